"""The arguments that every Transformer here takes, stated once, and what is made of them: input table and stacks."""

from __future__ import annotations

from typing import Annotated, TypedDict

from pydantic import Field

from encoders.base import InputSpec
from encoders.blocks.embedding import InputEmbedding
from encoders.blocks.layer import LayerOptions
from encoders.blocks.positions import Position
from encoders.blocks.stack import Stack, StemOptions


class Arguments(TypedDict):
    """The keys of configs/block/transformer.yaml; an encoder takes them as `**block: Unpack[Arguments]`."""

    dim: Annotated[int, Field(gt=0)]
    depth: Annotated[int, Field(ge=0)]
    heads: Annotated[int, Field(gt=0)]
    hidden: Annotated[int, Field(gt=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    patch: Annotated[int, Field(gt=0)]
    position: Position
    stem: StemOptions
    layer: LayerOptions


def embedding_of(block: Arguments, spec: InputSpec) -> InputEmbedding:
    """The embedding of what a task feeds. Raises TypeError where an argument is missing or not known."""
    wrong = sorted(Arguments.__annotations__.keys() ^ block.keys())
    if wrong:
        what = "is missing" if wrong[0] in Arguments.__annotations__ else "is no argument"
        raise TypeError(f"{wrong[0]} {what}; a Transformer takes {', '.join(Arguments.__annotations__)}")
    return InputEmbedding(dim=block["dim"], patch=block["patch"], spec=spec)


def stack_of(
    block: Arguments, *, length: int, causal: bool | tuple[bool, ...], cross: bool, depth: int | None = None
) -> Stack:
    """A stack of `depth` layers, null: of the block's."""
    return Stack(
        dim=block["dim"],
        depth=block["depth"] if depth is None else depth,
        heads=block["heads"],
        hidden=block["hidden"],
        dropout=block["dropout"],
        position=block["position"],
        stem=block["stem"],
        layer=block["layer"],
        length=length,
        causal=causal,
        cross=cross,
    )
