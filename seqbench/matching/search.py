"""Whole numbers that bring a growing measure to a target: a width in steps that a net allows, what fills the rest."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

LOOK = 512  # widths in a row that may be refused before there is none
LARGEST = 2**17

Measure = Callable[[int, float], float | None]  # (width, factor of what goes along) -> amount; None: can't be built


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A width, the factor by which its companions differ from their proportion, and what it comes to."""

    width: int
    factor: float
    reached: float

    def leftover(self, target: float) -> float:
        """Share of the target that is missing (below 0) or too much."""
        return (self.reached - target) / target


def search(measure: Measure, *, start: int, target: float, tolerance: float, step: float | None) -> Found | None:
    """The width whose amount is nearest to the target; None where no width can be built.

    `measure` grows with the width and the factor. `step` is the least change of the factor that changes anything, at
    the starting width (one over the size of the companion); with None there is no companion. Companions stay in
    proportion (factor 1) but for filling up what the steps of the width leave over: of the two widths around the
    target that one is taken which needs less of this, if it comes within a tenth of the tolerance; else the nearest.
    """
    known: dict[int, float | None] = {}

    def at(width: int) -> float | None:
        if width not in known:
            known[width] = measure(width, 1.0)
        return known[width]

    def up(width: int) -> int | None:
        return next((w for w in range(width, min(width + LOOK, LARGEST)) if at(w) is not None), None)

    def down(width: int) -> int | None:
        return next((w for w in range(width, max(0, width - LOOK), -1) if at(w) is not None), None)

    low, high = 0, start
    while (w := up(high)) is not None and (at(w) or 0.0) < target and high < LARGEST:
        low, high = w, 2 * w
    while high - low > 1:  # the least number from which on the next width reaches the target
        middle = (low + high) // 2
        w = up(middle)
        if w is None or (at(w) or 0.0) >= target:
            high = middle
        else:
            low = w if w < high else middle
    found = []
    for w in {down(high - 1) if high > 1 else None, up(high)} - {None}:
        assert w is not None
        plain = at(w)
        assert plain is not None
        found.append(Found(width=w, factor=1.0, reached=plain))
    if not found:
        return None
    if step is not None:
        filled = [_fill(measure, one.width, target, step * start / one.width) for one in found]
        near = [one for one in filled if one is not None and abs(one.leftover(target)) <= tolerance / 10]
        if near:
            return min(near, key=lambda one: (abs(math.log(one.factor)), one.width))
        found += [one for one in filled if one is not None]
    return min(found, key=lambda one: (abs(one.leftover(target)), one.width))


def _fill(measure: Measure, width: int, target: float, step: float) -> Found | None:
    """The factor, in steps, that comes nearest at this width: from a quarter of the proportion to four times it."""
    low, high = max(1, math.ceil(0.25 / step)), math.floor(4 / step)
    least, most = measure(width, low * step), measure(width, high * step)
    if least is None or most is None or not least <= target <= most:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        amount = measure(width, middle * step)
        if amount is None:
            return None
        low, high = (middle, high) if amount < target else (low, middle)
    ends = [(measure(width, k * step), k * step) for k in (low, high)]
    both = [Found(width=width, factor=factor, reached=amount) for amount, factor in ends if amount is not None]
    return min(both, key=lambda one: abs(one.leftover(target)), default=None)
