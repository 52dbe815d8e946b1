"""Learning rate as a share of its peak: a pure function of the step and the number of steps."""

from __future__ import annotations

import math
from typing import Literal

Kind = Literal["cosine", "linear", "constant", "inverse_sqrt", "exponential"]


def warmup_steps(steps: int, warmup: float) -> int:
    """Steps of linear growth: that share of the steps, rounded."""
    return round(steps * warmup)


def factor(step: int, *, steps: int, kind: Kind, warmup: float, floor: float) -> float:
    """Share of the peak for step number `step` (0 is the first) of `steps`.

    Linear growth over `warmup` (a share of the steps) to 1, then from 1 to `floor` at the last step by half a cosine
    (Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5, without restarts) or a line; or constant; or with the square
    root of the step (Vaswani et al. 2017, arXiv 1706.03762, eq. 3), not below `floor`; or by an equal factor a step
    (`floor` must be above 0: RunConfig holds that).
    """
    rise = warmup_steps(steps, warmup)
    if step < rise:
        return (step + 1) / rise
    if kind == "constant":
        return 1.0
    if kind == "inverse_sqrt":
        return max(floor, math.sqrt(max(rise, 1) / (step + 1)))
    done = min(1.0, (step - rise) / max(1, steps - 1 - rise))
    if kind == "exponential":
        return math.pow(floor, done)
    shape = (1 + math.cos(math.pi * done)) / 2 if kind == "cosine" else 1 - done
    return floor + (1 - floor) * shape
