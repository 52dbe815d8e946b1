"""How many runs a sweep has at once."""

from __future__ import annotations

from collections.abc import Sequence

from seqbench.config import RunConfig
from seqbench.cores import cores
from seqbench.errors import ConfigError
from seqbench.ranks.place import placed

ROOM = 2**30  # bytes of memory that a small run takes with torch and Lightning, rounded up


def lanes(configs: Sequence[RunConfig]) -> int:
    """Runs at once for a sweep's missing cells: its `jobs`, no more than there are cells.

    `auto` is the CPU cores by the threads of a run (null: one), as far as memory goes; 1 where runs are on an
    accelerator, which they would share. Raises ConfigError for cells that do not agree.
    """
    given = {config.jobs for config in configs}
    if len(given) > 1:
        raise ConfigError(f"jobs: {', '.join(map(str, sorted(given, key=str)))}; a sweep has one number of jobs")
    if not given or placed() is not None:  # ranks of a launcher share one cell after the other
        return 1
    jobs = given.pop()
    number = jobs if isinstance(jobs, int) else _auto(configs)
    return max(1, min(number, len(configs)))


def _auto(configs: Sequence[RunConfig]) -> int:
    if any(_on_accelerator(config) for config in configs):
        return 1
    return min(cores() // max((config.trainer.threads or 1) * _ranks(config) for config in configs), _room())


def _ranks(config: RunConfig) -> int:
    """Processes of a run."""
    return config.trainer.devices if isinstance(config.trainer.devices, int) else 1


def _room() -> int:
    import psutil

    return max(1, int(psutil.virtual_memory().available // ROOM))


def _on_accelerator(config: RunConfig) -> bool:
    from seqbench.training.facts import device_of

    return device_of(config) != "cpu"
