"""Reproduced, not reproduced, or inconclusive: by where intervals lie, and by nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Literal

from seqbench.claims import selection
from seqbench.claims.curves import Line, line, places
from seqbench.claims.estimate import Estimate, check_sides, estimate
from seqbench.claims.selection import Run, chosen
from seqbench.claims.sheet import Claim, Comparison, Curve, Part
from seqbench.errors import RecordError
from seqbench.record import Record
from seqbench.records.store import Store

Verdict = Literal["reproduced", "not reproduced", "inconclusive", "not run"]


class Outcome(Part):
    """What came of a comparison."""

    name: str
    verdict: Verdict
    estimate: Estimate | None
    why: str = ""  # where there is no number
    bounds: tuple[float | None, float | None] | None = None  # that it was held against; None: kept before they were


class Plot(Part):
    """The lines of a curve."""

    name: str
    lines: tuple[Line, ...]
    places: tuple[str, ...] = ()  # along x, where it is no number


class Judged(Part):
    """What came of a claim."""

    verdict: Verdict
    outcomes: tuple[Outcome, ...]
    plots: tuple[Plot, ...]
    ids: tuple[str, ...]  # of the finished runs
    missing: int  # runs that have no record
    failed: tuple[str, ...]  # runs that did not finish, with the reason
    seconds: float  # that the runs took, those before them (pretraining, teachers) counted once


def judge(claim: Claim, runs: Sequence[Run], *, confidence: float) -> Judged:
    """The verdict on a claim.

    Reproduced: the interval of every deciding comparison lies on the claimed side of its bounds. Not reproduced: that
    of one of them lies wholly on the other side, at the level corrected for their number (Bonferroni), so that many
    comparisons do not make a refutation likelier. Else inconclusive. Raises ConfigError for a selector without runs.
    """
    deciding = sum(comparison.decides for comparison in claim.comparisons)
    strict = 1 - (1 - confidence) / deciding
    outcomes = tuple(_outcome(comparison, runs, confidence, strict) for comparison in claim.comparisons)
    failed = tuple(
        f"{run.cell.title}: {run.entry.record.status}: {run.entry.record.reason}"
        for run in runs
        if run.entry is not None and not run.finished
    )
    return Judged(
        verdict=together([o.verdict for o, c in zip(outcomes, claim.comparisons, strict=True) if c.decides]),
        outcomes=outcomes,
        plots=tuple(_plot(curve, runs) for curve in claim.curves),
        ids=tuple(run.cell.id for run in runs if run.finished),
        missing=sum(run.entry is None for run in runs),
        failed=failed,
        seconds=sum(record.cost.wall_seconds or 0.0 for record in _all_records(runs).values()),
    )


def _all_records(runs: Sequence[Run]) -> dict[str, Record]:
    """By id, the records of runs and of those before them (pretraining, teachers), each once.

    One before that is not there, or that cannot be read, is left out: this is of what it took, not of the verdict.
    """
    found = {run.entry.record.id: run.entry.record for run in runs if run.entry is not None}
    places = [
        (this, run.entry.folder.parent) for run in runs if run.entry is not None for this in run.entry.record.parents
    ]
    while places:
        this, results = places.pop()
        if this in found:
            continue
        with contextlib.suppress(RecordError):
            record = Store(results).find(this)
            if record is not None:
                found[this] = record
                places += [(before, results) for before in record.parents]
    return found


def check(claim: Claim, runs: Sequence[Run]) -> None:
    """Raise ConfigError where a comparison or a curve is of runs, metrics or costs that the study does not have.

    And where the sides of a comparison are no sets of seeds that can be compared: before hours of training, not after.
    """
    for comparison in claim.comparisons:
        check_sides(comparison, _sides(comparison, runs))
    sides = [
        (c.name, {**c.where, **side}, [c.of]) for c in claim.comparisons for side in (c.a, c.b) if side is not None
    ]
    for curve in claim.curves:
        of = [quantity for quantity in (curve.x, curve.y) if "/" in quantity]
        sides += [(f"{curve.name}: {label}", {**curve.where, **line}, of) for label, line in curve.lines.items()]
    for name, selector, quantities in sides:
        mine = chosen(runs, selector, where=name)
        for quantity in quantities:
            selection.check(quantity, mine[0])


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """Of a claim, from those of its deciding comparisons: all of them must hold, one that fails is enough."""
    order: tuple[Verdict, ...] = ("not reproduced", "not run", "inconclusive", "reproduced")
    return min(verdicts, key=order.index)


def _sides(comparison: Comparison, runs: Sequence[Run]) -> list[list[Run]]:
    return [
        chosen(runs, {**comparison.where, **side}, where=f"{comparison.name}: {key}")
        for key, side in (("a", comparison.a), ("b", comparison.b))
        if side is not None
    ]


def _outcome(comparison: Comparison, runs: Sequence[Run], confidence: float, strict: float) -> Outcome:
    sides = _sides(comparison, runs)
    waiting = [run for side in sides for run in side if not run.finished]
    if waiting:
        what = "1 run has" if len(waiting) == 1 else f"{len(waiting)} runs have"
        why = f"{what} no score: {waiting[0].cell.title}"
        return Outcome(name=comparison.name, verdict="not run", estimate=None, why=why, bounds=_bounds(comparison))
    a, b = sides[0], sides[1] if len(sides) > 1 else None
    found = estimate(comparison, a, b, confidence=confidence)
    wide = estimate(comparison, a, b, confidence=strict)
    verdict = side_of(comparison, found, wide)
    return Outcome(name=comparison.name, verdict=verdict, estimate=found, bounds=_bounds(comparison))


def fits(claim: Claim, judged: Judged) -> bool:
    """Whether a verdict is of the claim as its file stands now: the same comparisons, held against the same bounds."""
    return [c.name for c in claim.comparisons] == [o.name for o in judged.outcomes] and all(
        o.bounds is None or o.bounds == _bounds(c) for c, o in zip(claim.comparisons, judged.outcomes, strict=True)
    )


def _bounds(comparison: Comparison) -> tuple[float | None, float | None]:
    return comparison.at_least, comparison.at_most


def side_of(comparison: Comparison, found: Estimate, wide: Estimate) -> Verdict:
    """Where an interval lies; `wide` is the one at the corrected level, which alone refutes.

    A measured difference that has no width and lies on its bound tells of no side.
    """
    if found.low is None or found.high is None or wide.low is None or wide.high is None:
        return "inconclusive"
    if found.basis == "one seed":  # its interval is over examples alone: nothing is known of another training
        return "inconclusive"
    low = float("-inf") if comparison.at_least is None else comparison.at_least
    high = float("inf") if comparison.at_most is None else comparison.at_most
    if wide.high < low or wide.low > high:
        return "not reproduced"
    if found.basis != "counted" and found.low == found.high and found.low in (low, high):
        return "inconclusive"  # both sides fail alike (no translation has a word right): on the bound by that alone
    return "reproduced" if low <= found.low and found.high <= high else "inconclusive"


def _plot(curve: Curve, runs: Sequence[Run]) -> Plot:
    mine = {
        label: chosen(runs, {**curve.where, **selector}, where=f"{curve.name}: {label}")
        for label, selector in curve.lines.items()
    }
    names = places(curve, [run for each in mine.values() for run in each])
    lines = (line(curve, label, [run for run in each if run.finished], names) for label, each in mine.items())
    return Plot(name=curve.name, lines=tuple(lines), places=names)
