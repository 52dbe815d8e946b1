"""Measurements: settings, pairs that alternate, and the row that comes of them.

A measurement is a module of this package with `measure(settings: Settings) -> list[Row]`; its file name is its name,
and its first line is what `--help` says of it. It is quick with `settings.quick`: a tiny case that shows that it
works, whose numbers mean nothing.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

LOW, HIGH = 0.1, 0.9  # quantiles of the pairs' ratios that are the spread


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the command line says."""

    repeats: int | None  # pairs; None: as many as the measurement takes
    quick: bool  # a tiny case
    threads: int  # of torch
    seed: int
    clock: Literal["wall", "cpu"]  # cpu: seconds of this process alone, where a machine has other work

    def pairs(self, usual: int) -> int:
        """How often to repeat: as said, else `usual`; 2 if quick."""
        return self.repeats or (2 if self.quick else usual)

    def now(self) -> float:
        """Seconds of the clock."""
        return time.perf_counter() if self.clock == "wall" else time.process_time()

    def seconds(self, call: Callable[[], object]) -> float:
        """Seconds that a call takes."""
        start = self.now()
        call()
        return self.now() - start


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the table.

    `ours` and `peer` are medians in `unit`. `ratio` is the median of ours / peer over the pairs, `low` and `high` are
    its quantiles LOW and HIGH. Without a peer all three are None, and the goal is one of `ours`.
    """

    what: str
    ours: float
    peer: float | None
    unit: str
    ratio: float | None
    low: float | None
    high: float | None
    goal: float | None  # None: told, not judged
    better: Literal["lower", "higher"]  # the goal is at most, or at least
    repeats: int
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the goal is; None without one."""
        if self.goal is None:
            return None
        value = self.ours if self.ratio is None else self.ratio
        return value <= self.goal if self.better == "lower" else value >= self.goal


def alternate(
    ours: Callable[[], float], peer: Callable[[], float], *, repeats: int, warmup: int = 1
) -> list[tuple[float, float]]:
    """Pairs of what the two calls give, side by side in time; who is first changes from pair to pair.

    `warmup` pairs before are thrown away. Whatever drifts on the machine meets both of a pair alike.
    """
    for _ in range(warmup):
        ours(), peer()
    pairs = []
    for i in range(repeats):
        if i % 2:
            second = peer()
            pairs.append((ours(), second))
        else:
            first = ours()
            pairs.append((first, peer()))
    return pairs


def compared(
    what: str,
    pairs: Sequence[tuple[float, float]],
    *,
    unit: str,
    goal: float | None,
    better: Literal["lower", "higher"],
    note: str = "",
) -> Row:
    """The row of pairs (ours, peer), both in `unit`."""
    ratios = [first / second for first, second in pairs]
    return Row(
        what=what,
        ours=statistics.median(first for first, _ in pairs),
        peer=statistics.median(second for _, second in pairs),
        unit=unit,
        ratio=statistics.median(ratios),
        low=quantile(ratios, LOW),
        high=quantile(ratios, HIGH),
        goal=goal,
        better=better,
        repeats=len(pairs),
        note=note,
    )


def alone(
    what: str,
    values: Sequence[float],
    *,
    unit: str,
    goal: float | None,
    better: Literal["lower", "higher"],
    note: str = "",
) -> Row:
    """The row of values that have no peer; the goal is one of their median, in `unit`."""
    return Row(
        what=what,
        ours=statistics.median(values),
        peer=None,
        unit=unit,
        ratio=None,
        low=None,
        high=None,
        goal=goal,
        better=better,
        repeats=len(values),
        note=note,
    )


def quantile(values: Sequence[float], share: float) -> float:
    """Linear between the ordered values, as numpy's; of a single one, that."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
