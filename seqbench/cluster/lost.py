"""The record of a cell whose job has died: what the scheduler says of it."""

from __future__ import annotations

from seqbench.cluster import scheduler
from seqbench.cluster.batch import Outcome, Ticket
from seqbench.record import Record, Status
from seqbench.records.store import Store
from seqbench.studies.study import Cell
from seqbench.training import casualty
from seqbench.training.resume import Checkpoints
from seqbench.training.standing import KILLED


def lost(cell: Cell, ticket: Ticket, outcome: Outcome) -> Record:
    """Write and return it. Raises RecordError; Claimed where somebody works on the run."""
    status, why = cause(ticket, outcome)
    saved = Checkpoints(Store(cell.config.results).folder(cell.id) / "checkpoints").peek()
    return casualty.bury(
        cell.config,
        cell.id,
        process=None,
        since=outcome.started,
        status=status,
        reason=f"{why}; {ticket.log}",
        step=saved["progress"]["step"] if saved else None,
        threads=None,
        jobs=1,
    )


def cause(ticket: Ticket, outcome: Outcome) -> tuple[Status, str]:
    """Status and reason of a cell whose job ended without a record: killed, or stopped in a trial or in pretraining."""
    end = scheduler.end_of(f"{ticket.batch.job}_{ticket.index}") if ticket.batch.job else None
    if end is None:
        return "killed", f"{KILLED} ({ticket.id}, which SLURM does not know any more)"
    said = f"{ticket.id}, {end.state} on {end.nodes or 'no node'}"
    said += f", {end.reason}" if end.reason not in ("", "None") else ""
    if end.state == "OUT_OF_MEMORY":
        return "out_of_memory", f"{KILLED} ({said})"
    if end.state in ("TIMEOUT", "DEADLINE"):
        return "timed_out", f"{KILLED} ({said}); the same command goes on"
    if end.state in ("CANCELLED", "PREEMPTED"):
        return "interrupted", f"{KILLED} ({said})"
    status, how = casualty.cause(end.code, memory=False)
    if end.state == "FAILED" and outcome.what == "interrupted":  # by itself: what it was at has a checkpoint
        by_clock = outcome.line == "SIGUSR1"
        return (
            "timed_out" if by_clock else "interrupted",
            f"stopped by {outcome.line} ({said})",
        )
    if end.state == "FAILED":
        return status, f"{how} ({said})"
    return "killed", f"{KILLED} ({said})"
