"""Critical values and p-values for a mean whose error has a part that few seeds tell of and a part that is well known.

A difference (or a mean) has the variance k + X: k comes from many examples, X from seeds, S - 1 degrees of freedom
each. Student's t with the degrees of freedom of Satterthwaite (1946) or Welch (1947) does not reach 95 % there: 92 %
at three seeds. Intervals use degrees of freedom whose constants were fitted by numerical integration, so that the
coverage is 95.0 to 96.3 % whatever the share of the seeds (docs/statistics.md). Far tails, which a correction for many
comparisons needs, want something heavier: there the squared quantiles of the parts are added up (Banerjee 1960).
"""
# every argument may be an array; they are broadcast

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # scipy.stats takes four tenths of a second to import

Floats = NDArray[np.float64]
# Degrees of freedom of the seeds -> steepness and place of the step between "known" and "few seeds".
SEEDS = np.array([1.0, 2.0, 3.0, 4.0, 6.0, 9.0, 14.0])
STEEP = np.array([9.064, 2.179, 1.696, 1.519, 1.364, 1.255, 1.133])
PLACE = np.array([0.167, 0.752, 1.085, 1.247, 1.346, 1.292, 1.066])
TWO_STEEP, TWO_PLACE = 4.0, 2.1  # the same step between the seeds of two rows
FITTED = 0.95  # the confidence that these are for
TINY = 1e-300


def t_isf(p: Any, df: Any) -> Floats:
    """What Student's t exceeds with probability p."""
    return np.asarray(-stdtrit(df, p))


def seeds_of_two(x1: Any, df1: Any, x2: Any, df2: Any) -> Floats:
    """Degrees of freedom of x1 + x2, fitted for 95 %: those of the greater part, more where the two are alike."""
    x1, x2 = np.maximum(x1, TINY), np.maximum(x2, TINY)
    share1, share2 = _step(x1, x2, TWO_STEEP, TWO_PLACE), _step(x2, x1, TWO_STEEP, TWO_PLACE)
    return np.asarray(1.0 / (share1 / np.maximum(df1, 1.0) + share2 / np.maximum(df2, 1.0)))


def welch(x1: Any, df1: Any, x2: Any, df2: Any) -> Floats:
    """Degrees of freedom of x1 + x2 after Welch (1947)."""
    total = np.maximum(np.asarray(x1) + x2, TINY)
    inverse = (np.asarray(x1) / total) ** 2 / np.maximum(df1, 1.0) + (np.asarray(x2) / total) ** 2 / np.maximum(
        df2, 1.0
    )
    return np.asarray(1.0 / np.maximum(inverse, 1e-9))


def of_two(confidence: float, x1: Any, df1: Any, x2: Any, df2: Any) -> Floats:
    """Degrees of freedom of x1 + x2 for `quantile`: beyond the fitted confidence not more than Welch's."""
    found = seeds_of_two(x1, df1, x2, df2)
    return np.minimum(found, welch(x1, df1, x2, df2)) if beyond(confidence) else found


def quantile(confidence: float, k: Any, x: Any, df_seeds: Any, df_examples: Any) -> Floats:
    """How many standard errors sqrt(k + x) reach to either side of an interval.

    Beyond the confidence that the constants are fitted for, where they miss two to four times too often, at least as
    far as Banerjee's rule: the squared quantiles of the parts added up.
    """
    k, x = np.asarray(k, dtype=np.float64), np.asarray(x, dtype=np.float64)
    tail = (1 - confidence) / 2
    steep, place = np.interp(df_seeds, SEEDS, STEEP), np.interp(df_seeds, SEEDS, PLACE)
    seeds = np.where(x > 0, _step(np.maximum(x, TINY), k, steep, place), 0.0)
    examples = (k / np.maximum(k + x, TINY)) ** 2
    inverse = seeds / np.maximum(df_seeds, 1.0) + examples / np.maximum(df_examples, 1.0)
    reach = np.asarray(t_isf(tail, 1.0 / np.maximum(inverse, 1e-9)))
    if not beyond(confidence):
        return reach
    parts = t_isf(tail, np.maximum(df_examples, 1.0)) ** 2 * k + t_isf(tail, np.maximum(df_seeds, 1.0)) ** 2 * x
    return np.asarray(np.maximum(reach, np.sqrt(parts / np.maximum(k + x, TINY))))


def beyond(confidence: float) -> bool:
    """Whether a level is stricter than the constants are fitted for."""
    return confidence > FITTED + 1e-9


def _step(part: Any, rest: Any, steep: Any, place: Any) -> Floats:
    """From 0, where a part is small beside the rest, to 1, where it is all."""
    with np.errstate(over="ignore", divide="ignore"):
        return np.asarray(1.0 / (1.0 + (place * np.asarray(rest) / part) ** steep))


def p_values(difference: Any, k: Any, x: Any, df_seeds: Any, df_examples: Any) -> Floats:
    """Two-sided p of difference = 0: where difference^2 = t(p; df_examples)^2 k + t(p; df_seeds)^2 x.

    Banerjee's rule, whose error is at most p for normal parts at every p. 1 where the difference is 0; at least 1e-15.
    """
    table_PD, log_p, step = _quantiles()
    difference, k, x, seeds, examples = np.broadcast_arrays(difference, k, x, df_seeds, df_examples)
    shape = difference.shape
    target = np.square(difference, dtype=np.float64).ravel()
    table, width = table_PD.ravel(), table_PD.shape[1]
    parts = []
    for weight, freedom in ((k, examples), (x, seeds)):
        column, beyond = _place(freedom.ravel(), step)
        parts.append((weight.ravel(), column, np.minimum(column + 1, width - 1), 1 - beyond, beyond))

    def reach(row: NDArray[np.int64]) -> Floats:
        start, total = row * width, np.zeros(len(target))
        for weight, column, following, near, beyond in parts:
            logs = table[start + column] * near + table[start + following] * beyond
            total += weight * np.exp(logs)
        return total

    low, high = np.zeros(len(target), dtype=np.int64), np.full(len(target), len(log_p) - 1)
    last = reach(high) <= target
    while (high - low > 1).any():
        middle = (low + high) // 2
        inside = reach(middle) <= target
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    below, above = (np.log(np.maximum(reach(row), TINY)) for row in (low, high))
    part = np.clip((np.log(np.maximum(target, TINY)) - below) / np.maximum(above - below, 1e-12), 0.0, 1.0)
    p = np.exp(log_p[low] + part * (log_p[high] - log_p[low]))
    p = np.where(last, np.exp(log_p[-1]), p)
    return np.asarray(np.where(target <= reach(np.zeros_like(low)), 1.0, p).reshape(shape))


@cache
def _quantiles() -> tuple[Floats, Floats, float]:
    """Logarithms of squared two-sided quantiles of t, by p and 1 / degrees of freedom; of p; the grid's step."""
    inverse = np.linspace(0.0, 1.0, 61)
    log_p = np.concatenate([np.log(np.linspace(0.999, 0.1, 60)), np.linspace(np.log(0.1), np.log(1e-15), 200)[1:]])
    df = 1.0 / np.maximum(inverse, 1e-9)
    table = 2 * np.log(t_isf(np.exp(log_p)[:, None] / 2, df[None, :]))
    return table, log_p, float(inverse[1])


def _place(df: Floats, step: float) -> tuple[NDArray[np.int64], Floats]:
    at = np.clip(1.0 / np.maximum(df, 1.0), 0.0, 1.0) / step
    column = np.floor(at).astype(np.int64)
    return column, at - column


def holm(p: Floats) -> Floats:
    """p-values corrected for their number (Holm 1979); NaN stays NaN and does not count."""
    p = np.asarray(p, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return adjusted
