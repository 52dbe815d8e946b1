"""SeqBench: which sequence encoder is better at what, at what cost? Running, records and boards.

In Python: `seqbench.load_encoder(name, spec, dim=64)` and `seqbench.load_task(name)` build what the files of configs/
describe; `seqbench.compose_node("encoder", name)` is the description.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seqbench.composition.nodes import compose_node
    from seqbench.library import load_encoder, load_task

__all__ = ["compose_node", "load_encoder", "load_task"]


def __getattr__(name: str) -> object:
    """What __all__ names, imported when it is asked for: importing seqbench must cost neither torch nor hydra."""
    if name == "compose_node":
        from seqbench.composition import nodes

        return nodes.compose_node
    if name in __all__:
        from seqbench import library

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
