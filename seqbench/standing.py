"""Which records stand as they are, and which runs are tried again."""

from __future__ import annotations

from seqbench.config import RunConfig
from seqbench.record import Record, Status

UNDONE: tuple[Status, ...] = ("interrupted", "timed_out")  # these go on from their checkpoint, whatever `rerun` says


def stands(record: Record, config: RunConfig) -> bool:
    """Whether a record is all that this config asks for."""
    if config.rerun == "always":
        return False
    return record.status not in UNDONE if config.rerun == "never" else record.status == "finished"
