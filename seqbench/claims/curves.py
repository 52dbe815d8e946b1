"""The points of a claim's plots: means over seeds with their range."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from seqbench.claims.selection import ABSENT, ALONG, Run, along, quantity
from seqbench.claims.sheet import Curve, Part
from seqbench.errors import ConfigError


class Dot(Part):
    """A place of a line: mean over seeds, and the least and the greatest of them."""

    x: float
    y: float
    low: float
    high: float
    seeds: int


class Line(Part):
    """A line of a plot, by x."""

    label: str
    dots: tuple[Dot, ...]


def places(curve: Curve, runs: Sequence[Run]) -> tuple[str, ...]:
    """The names along x, sorted, where x is a config key that holds text; () where it holds numbers.

    A line's x is then the number of the name.
    """
    values = [] if "/" in curve.x or curve.x == ALONG else [run.at(curve.x) for run in runs]
    return tuple(sorted(set(values))) if values and all(isinstance(value, str) for value in values) else ()


def line(curve: Curve, label: str, runs: Sequence[Run], names: Sequence[str] = ()) -> Line:
    """The line of finished runs. Over a config key, runs of equal value are seeds of one dot.

    Over a quantity, runs that differ in nothing but the seed are; along a sequence, all runs. Raises ConfigError for an
    x that is neither a number nor one of `names`.
    """
    groups: dict[object, list[tuple[float, float]]] = {}
    for run in runs:
        assert run.entry is not None
        if curve.x == ALONG:
            for part, score in along(run.entry.record, curve.y):
                groups.setdefault(part, []).append((part, score))
            continue
        y = quantity(run.entry.record, curve.y)
        x = quantity(run.entry.record, curve.x) if "/" in curve.x else _key(curve, run, names)
        if x is None or y is None:
            continue
        groups.setdefault(_setup(run) if "/" in curve.x else x, []).append((x, y))
    dots = [
        Dot(
            x=fmean(x for x, _ in points),
            y=fmean(y for _, y in points),
            low=min(y for _, y in points),
            high=max(y for _, y in points),
            seeds=len(points),
        )
        for points in groups.values()
    ]
    return Line(label=label, dots=tuple(sorted(dots, key=lambda dot: dot.x)))


def _key(curve: Curve, run: Run, names: Sequence[str]) -> float:
    value = run.at(curve.x)
    if isinstance(value, str) and value in names:
        return float(names.index(value))
    if value is ABSENT or isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{curve.name}: {curve.x} is no number of {run.cell.title}")
    return float(value)


def _setup(run: Run) -> tuple[str, ...]:
    """What was typed for it, the seed aside."""
    return tuple(text for text in run.cell.overrides if not text.startswith("seed="))
