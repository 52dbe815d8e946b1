"""What a run says at its end: its scores as a small table, its cost in a line, and where the record is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from seqbench.board import text
from seqbench.record import Cost, Record, ScoreFacts


@dataclass
class Troubles:
    """Cells without a record of this sweep, by id, with the reason in a line."""

    not_run: dict[str, str] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)  # another process works on it


def describe(record: Record, results: Path, *, skipped: bool) -> str:
    """Several lines for a terminal."""
    path = results / record.id / "record.json"
    title = f"{record.encoder.name} x {record.task.name}, seed {record.seed}"
    if record.status != "finished":
        reason = (record.reason or "").splitlines()
        told = f": {reason[0]}" if reason else ""
        already = " already, not run again (rerun=failed tries it)" if skipped else ""
        log = results / record.id / "error.log"
        return "\n".join(
            [
                f"{title}{already}: {record.status.replace('_', ' ')}{told}",
                f"record: {path}",
                *([f"traceback: {log}"] if record.status == "failed" and log.is_file() else []),
            ]
        )
    lines = [f"{title}{': has a record already' if skipped else ''}"]
    splits = list(record.scores)
    metrics = list(dict.fromkeys(metric for split in splits for metric in record.scores[split]))
    rows = [["", *splits]]
    for metric in metrics:
        rows.append([metric, *(number(record.scores[split].get(metric)) for split in splits)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines += [
        "  "
        + "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    return "\n".join([*lines, *_cost(record.cost), f"record: {path}"])


def _cost(cost: Cost) -> list[str]:
    """One line of what was measured, as a board writes it: parameters, seconds of training, its speed, memory."""
    measured = [
        (cost.parameters, text.size(cost.parameters), "parameters"),
        (cost.train_seconds, text.seconds(cost.train_seconds), "of training"),
        (cost.train_tokens_per_second, text.size(cost.train_tokens_per_second), "tokens/s"),
        (cost.peak_memory_mib, text.mebibytes(cost.peak_memory_mib), "at the peak"),
    ]
    told = ", ".join(f"{written} {of}" for value, written, of in measured if value is not None)
    return [f"cost: {told}"] if told else []


def number(score: ScoreFacts | None) -> str:
    """A score with its unit; a dash where there is none."""
    if score is None or score.value is None:
        return "-"
    return f"{score.value:.4g}{' ' + score.unit if score.unit else ''}"


def told(record: Record) -> str:
    """In a few words: the metric that ranks, or the status and why."""
    if record.status == "finished":
        return headline(record)
    reason = (record.reason or "").splitlines()
    return f"{record.status.replace('_', ' ')}{': ' if reason else ''}{reason[0] if reason else ''}"


def headline(record: Record, split: str = "test") -> str:
    """The metric that ranks, `accuracy 0.81`."""
    if record.headline is None or record.headline not in record.scores.get(split, {}):
        return "-"
    return f"{record.headline} {number(record.scores[split][record.headline])}"
