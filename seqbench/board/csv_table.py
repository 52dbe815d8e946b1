"""The board as CSV in long form: one line per cell, with every number in full precision."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from seqbench.board import text
from seqbench.board.costs import COSTS
from seqbench.board.model import Board, Cell, Column, Row

FIELDS = (
    *("board", "task", "column", "kind", "modality", "metric", "best", "unit", "encoder", "row", "family", "state"),
    *("mean", "low", "high", "confidence", "basis", "is_best", "in_best_group", "seeds", "examples"),
    *("tokens", "truncated", "dropped", "marks", "mark_notes"),
    *(
        "failed",
        "not_run",
        "failures",
        "other_metrics",
        "mean_rank",
        "mean_rank_low",
        "mean_rank_high",
        "win_rate",
        "win_rate_low",
    ),
    *("win_rate_high", "iqm", "iqm_low", "iqm_high", "iqm_tasks"),
    *("rank_notes", "tasks", "difference", "difference_low", "difference_high", "p_to_best", "places"),
    *("machine_class", *(cost.key for cost in COSTS), "costs_on_other_machines"),
)


FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # what a spreadsheet begins to compute at


def render(board: Board) -> str:
    """The whole file. Scores are as the metric gives them: 0.874 where the board shows 87.4 %."""
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _safe(value) for key, value in line.items()} for line in lines(board))
    return out.getvalue()


def lines(board: Board) -> list[dict[str, Any]]:
    """One mapping per cell with the keys of FIELDS; None where there is no value."""
    return [_line(board, column, row, cell) for column, row, cell in board.in_order()]


def _line(board: Board, column: Column, row: Row, cell: Cell) -> dict[str, Any]:
    main = cell.costs[0] if cell.costs else None
    reasons = [
        f"seed {r.record.seed}: {r.record.status}: {text.one_line(r.record.reason or '')}" for r in cell.failures
    ]
    account = next((account for account in column.accounts if account.split == board.split), None)
    others = [{"machine_class": line.machine, "runs": line.runs, **line.values} for line in cell.costs[1:]]
    return {
        "board": board.title,
        "task": column.task,
        "column": column.label,
        "kind": column.kind,
        "modality": column.modality,
        "metric": column.metric,
        "best": column.best,
        "unit": column.scale.unit,
        "encoder": row.encoder,
        "row": row.label,
        "family": row.family,
        "state": cell.state,
        "mean": cell.mean,
        "low": cell.low,
        "high": cell.high,
        "confidence": board.confidence,
        "basis": cell.basis,
        "is_best": int(cell.best),
        "in_best_group": int(cell.tied),
        "seeds": " ".join(map(str, cell.seeds)),
        "examples": cell.examples,
        "tokens": account.count("positions") if account else None,
        "truncated": account.count("truncated") if account else None,
        "dropped": account.count("dropped") if account else None,
        "marks": " ".join(mark.kind for mark in cell.marks),
        "mark_notes": "; ".join(mark.text for mark in cell.marks),
        "failed": len(cell.failures),
        "not_run": len(cell.missing),
        "failures": "; ".join(reasons),
        "other_metrics": json.dumps({k: v for k, v in cell.metrics.items() if k != column.metric}, sort_keys=True),
        "mean_rank": row.mean_rank,
        "win_rate": row.win_rate,
        **_ends("mean_rank", row.rank_interval),
        **_ends("win_rate", row.win_interval),
        "iqm": row.iqm,
        **_ends("iqm", row.iqm_interval),
        "iqm_tasks": row.iqm_tasks,
        "rank_notes": "; ".join(row.told),
        "difference": cell.difference,  # to the best row of the column
        **_ends("difference", cell.difference_interval),
        "p_to_best": cell.p,
        "places": None if cell.places is None else f"{cell.places[0]} to {cell.places[1]}",
        "tasks": row.tasks,
        "machine_class": main.machine if main else None,
        **{cost.key: main.values[cost.key] if main else None for cost in COSTS},
        "costs_on_other_machines": json.dumps(others, sort_keys=True) if others else None,
    }


def _ends(name: str, ends: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = ends if ends is not None else (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _safe(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value[:1] in FORMULA else value
