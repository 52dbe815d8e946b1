"""Which records stand as they are, and which runs are tried again."""

from __future__ import annotations

from seqbench.config import RunConfig
from seqbench.record import Record, Status

EXPLODES = "the training loss explodes"  # how the reason of such a record begins
UNDONE: tuple[Status, ...] = ("interrupted", "timed_out")  # these go on from their checkpoint, whatever `rerun` says

KILLED, ENDED = "the process was killed", "the process ended"  # reasons begin so; was_killed() knows them by that


def stands(record: Record, config: RunConfig, *, made: float | None = None) -> bool:
    """Whether a record is all that this config asks for.

    With `rerun=always` none is, but a trial of a tuning that was `made` (the clock's seconds) after it was asked for:
    the seeds of a row share their trials, so the first of them makes them again, and the others don't.
    One that ended since its loss exploded stands as long as the same counts as exploding (`trainer.explosion`).
    One without trials is nothing to a config that asks for some, unless its process died before it could tell.
    """
    to_tune = config.tune is not None and config.tune.chosen is None  # a trivial row has no `tune` by now
    if to_tune and record.tuning is None and not was_killed(record):
        return False
    if exploded(record) and record.config.get("trainer", {}).get("explosion") != config.trainer.explosion:
        return False
    if config.rerun == "always":
        return made is not None and made >= config.asked and record.status not in UNDONE
    return record.status not in UNDONE if config.rerun == "never" else record.status == "finished"


def exploded(record: Record) -> bool:
    """Whether `trainer.explosion` ended the run, which the id does not have."""
    return record.status == "diverged" and (record.reason or "").startswith(EXPLODES)


def was_killed(record: Record) -> bool:
    """Whether its process died in it: then, if it is tried again, it goes on from its checkpoint."""
    return record.status in ("killed", "failed", "out_of_memory") and (record.reason or "").startswith((KILLED, ENDED))
