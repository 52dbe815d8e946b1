"""Learning curves, thinned and rounded so that a page with a thousand of them still opens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from seqbench.record import Point, Record

if TYPE_CHECKING:
    from seqbench.board.model import Run

MOST, FEWEST, ALL = 200, 20, 200_000  # points of a curve, at most and at least; points of a page
LINES = 5000  # curves of a page; of a larger board each cell has that of one seed


def limit_for(runs: int) -> int:
    """Points of each curve on a page with so many runs."""
    return max(FEWEST, min(MOST, ALL // max(runs, 1)))


def drawn(runs: Sequence[Run]) -> set[int] | None:
    """The runs (by identity) whose curves a page has: of each cell the one of its first seed; None for all of them."""
    if len(runs) <= LINES:
        return None
    first: dict[tuple[str, str], Run] = {}
    for run in runs:
        key = (run.row, run.column)
        if key not in first or (run.counted, -run.record.seed) > (first[key].counted, -first[key].record.seed):
            first[key] = run
    return {id(run) for run in first.values()}


def scored(record: Record) -> bool:
    """Whether there is a curve of a validation score."""
    return "valid" in curve(record, 2) if record.curves else False


def curve(record: Record, limit: int) -> dict[str, dict[str, list[float]]]:
    """`valid` (the headline metric) and `loss` (training): each step, tokens, seconds and value; absent if empty.

    A run without headline (it failed) is drawn by the one validation metric that it has points of.
    """
    names = {"loss": "train/loss"}
    headline = record.headline or next(
        (
            name.removeprefix("valid/")
            for point in record.curves
            for name in point.values
            if name.startswith("valid/") and name != "valid/loss"
        ),
        None,
    )
    if headline:
        names["valid"] = f"valid/{headline}"
    made = {}
    for kind, name in names.items():
        points = thin([point for point in record.curves if name in point.values], limit)
        if points:
            made[kind] = {
                "step": [float(point.step) for point in points],
                "tokens": [float(point.tokens) for point in points],
                "seconds": [_short(point.seconds) for point in points],
                "value": [_short(point.values[name]) for point in points],
            }
    return made


def thin(points: list[Any] | list[Point], limit: int) -> list[Any]:
    """At most `limit` points, evenly spaced, first and last among them."""
    if len(points) <= limit:
        return list(points)
    return [points[round(i * (len(points) - 1) / (limit - 1))] for i in range(limit)]


def _short(value: float) -> float:
    """Five significant digits: more than a screen shows."""
    return float(f"{value:.5g}")
