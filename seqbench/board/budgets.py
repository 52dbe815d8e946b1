"""What a column's rows were given: nothing is called equal that differs by more than the tolerance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from seqbench.board.text import size
from seqbench.record import Record

Value = Callable[[Record], float | None]
TOLERANCE = 0.02  # between the least and the greatest of what is counted
NOISE = 0.2  # the same for what is measured
COUNTED: dict[str, tuple[Value, float]] = {
    "parameters": (lambda r: r.cost.parameters, TOLERANCE),
    "training FLOPs": (lambda r: r.cost.flops_train, TOLERANCE),
    "training tokens": (lambda r: r.cost.train_tokens, TOLERANCE),
    "steps": (lambda r: r.curves[-1].step if r.curves else None, TOLERANCE),
    "latency, ms": (lambda r: r.cost.latency.p50_ms if r.cost.latency else None, NOISE),
}
WORDS = {"params": "parameters", "flops": "operations of a step", "latency": "latency, ms"}


def notices(rows: Sequence[Sequence[Record]], label: str) -> list[str]:
    """Sentences on the finished runs of each row of a column, floors left out; none for a single row.

    Latency is compared only where all come from one machine class.
    """
    if len(rows) < 2:
        return []
    told = _matched([record for row in rows for record in row], label)
    machines = {record.environment.machine_class for row in rows for record in row}
    unequal = []
    for what, (value, tolerance) in COUNTED.items():
        if what.startswith("latency") and len(machines) > 1:
            continue
        known = [[x for record in row if (x := value(record)) is not None] for row in rows]
        means = [fmean(values) for values in known if values]
        if len(means) > 1 and max(means) > (1 + tolerance) * min(means):
            unequal.append(f"{what} {size(min(means))} to {size(max(means))}")
    if unequal:
        told.append(f"{label}: the rows differ in {'; '.join(unequal)}")
    return told


def _matched(records: Sequence[Record], label: str) -> list[str]:
    """That all rows are matched on one target, and how near; or that some are, and so the column is not."""
    found = [record.match for record in records if record.match is not None]
    if not found:
        return []
    first = found[0]
    goals = {(match.of, match.count, match.target) for match in found}
    if len(found) < len(records) or len(goals) > 1:
        return [
            f"{label}: {len(found)} of {len(records)} runs are matched, on {len(goals)} targets: the rows are not equal"
        ]
    most = max(abs(match.leftover) for match in found)
    goal = f"{WORDS[first.of]} at {size(first.target)}"
    if any(abs(match.leftover) > match.tolerance for match in found):
        return [f"{label}: meant to be matched on {goal}, but up to {100 * most:.1f} % off: the rows are not equal"]
    unsure = [match.spread for match in found if match.spread is not None and match.spread > match.tolerance]
    if unsure:
        return [
            f"{label}: meant to be matched on {goal}, but {len(unsure)} of {len(found)} were measured no surer than "
            f"{100 * max(unsure):.0f} % (a busy machine): the rows can't be called equal"
        ]
    return [f"{label}: matched on {goal} within {100 * most:.1f} %"]
