"""Which records stand as they are, and which runs are tried again."""

from __future__ import annotations

from seqbench.config import RunConfig
from seqbench.record import Record, Status

UNDONE: tuple[Status, ...] = ("interrupted", "timed_out")  # these go on from their checkpoint, whatever `rerun` says


def stands(record: Record, config: RunConfig, *, made: float | None = None) -> bool:
    """Whether a record is all that this config asks for.

    With `rerun=always` none is, but a trial of a tuning that was `made` (the clock's seconds) after it was asked for:
    the seeds of a row share their trials, so the first of them makes them again, and the others don't.
    One without trials is nothing to a config that asks for some, unless its process died before it could tell.
    """
    to_tune = config.tune is not None and config.tune.chosen is None  # a trivial row has no `tune` by now
    if to_tune and record.tuning is None:
        from seqbench.casualty import was_killed  # with torch

        if not was_killed(record):
            return False
    if config.rerun == "always":
        return made is not None and made >= config.asked and record.status not in UNDONE
    return record.status not in UNDONE if config.rerun == "never" else record.status == "finished"
