"""The scores of a cell as seeds x examples: from statistics per example to the mean, its error and its interval.

score[s, i] = mean + seed[s] + example[i] + rest[s, i], seeds crossed with examples, both random; docs/statistics.md.
"""
# N examples, S seeds of a cell, G blocks of examples (single examples, for a metric that is a mean)

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri  # scipy.stats takes four tenths of a second to import

from seqbench.board import critical

Floats = NDArray[np.float64]
BLOCKS = 400  # a metric that is no mean is aggregated again without each of so many blocks of examples
ROUNDING = 1e-12  # relative: scores that differ by less are the same
MOST = float(np.finfo(np.float64).max)
LEAST = 0.03  # of the variance that the rest alone would give: seeds that agree by chance leave no zero width


def unrounded(values: Floats) -> Floats:
    """The values with those made equal (last axis) that differ by rounding alone, so that ties can be told by ==."""
    order = np.argsort(values, axis=-1, kind="stable")
    ordered = np.take_along_axis(np.asarray(values, dtype=np.float64), order, axis=-1)
    places = np.broadcast_to(np.arange(ordered.shape[-1]), ordered.shape).copy()
    places[..., 1:][follows(ordered)] = 0
    first = np.take_along_axis(ordered, np.maximum.accumulate(places, axis=-1), axis=-1)
    found = np.empty_like(ordered)
    np.put_along_axis(found, order, first, axis=-1)
    return found


def follows(ordered: Floats) -> NDArray[np.bool_]:
    """Of values in order (last axis) all but the first: whether they are the one before but for rounding."""
    before, after = ordered[..., :-1], ordered[..., 1:]
    with np.errstate(invalid="ignore"):  # two infinities, and NaN, which is equal to nothing
        gap = after - before
        near = (gap <= ROUNDING * np.maximum(np.abs(before), np.abs(after))) & (gap < np.inf)
        return np.asarray((before == after) | near)


@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """Statistics per example of one run: what a score can be computed from again."""

    values: Mapping[str, Floats]  # each (N,)
    aggregate: Callable[[Mapping[str, Floats]], float] | None  # None: the mean of `value`
    group: str  # runs of equal group were scored on the same examples, in the same order

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def score(self) -> float:
        """The score of all examples."""
        if self.aggregate is None:
            return float(self.values["value"].mean()) if len(self) else float("nan")
        return self.aggregate(self.values)

    def contributions(self) -> Floats:
        """What each example, or block of them, adds to the score or takes from it, (G,): their mean is 0.

        For a mean: value - score. Else by the delete-a-group jackknife (Busing, Meijer and van der Leeden 1999), whose
        variance over blocks, divided by G, is that of the score. NaN where the score is not defined without a block.
        """
        if self.aggregate is None:
            return np.asarray(self.values["value"] - self.values["value"].mean())
        n, score = len(self), self.score()
        found, kept = [], np.ones(n, dtype=bool)
        for rows in blocks(n):
            kept[rows] = False
            rest = {name: x[kept] for name, x in self.values.items()}
            found.append((n - len(rows)) * (score - (self.aggregate(rest) if len(rows) < n else np.nan)))
            kept[rows] = True
        contributions = np.array(found) * (len(found) / n)
        return np.asarray(contributions - contributions.mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """Of Examples what a sample needs, as an index kept it."""

    size: int
    group: str
    values: NDArray[Any] | None  # (N,) of a score that is their mean
    added: Floats | None  # contributions of any other

    def __len__(self) -> int:
        return self.size

    def contributions(self) -> Floats:
        """As those of Examples, to the bit."""
        if self.values is None:
            assert self.added is not None
            return self.added
        values = self.values.astype(np.float64)
        return np.asarray(values - values.mean())


@functools.lru_cache(maxsize=64)
def blocks(size: int) -> tuple[NDArray[np.int64], ...]:
    """The examples in at most BLOCKS blocks, drawn once and for all by their number: the same for all runs."""
    if size <= BLOCKS:
        return tuple(np.arange(size)[:, None])
    return tuple(np.array_split(np.random.default_rng(size).permutation(size), BLOCKS))


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A cell: the scores of its seeds, and what its examples contribute, averaged over the seeds that tell."""

    scores_S: Floats
    examples_G: Floats | None  # None: no statistics per example
    rest: float  # variance of the rest[s, i]; 0 where one seed alone has statistics
    told: int  # seeds that have statistics per example
    group: str

    @functools.cached_property
    def mean(self) -> float:
        """Over the seeds."""
        return float(self.scores_S.mean())

    @property
    def seeds(self) -> int:
        """S."""
        return len(self.scores_S)

    @functools.cached_property
    def noise(self) -> float:
        """The part of the variance of the mean that the rest gives."""
        return 0.0 if self.examples_G is None else self.rest / (self.told * len(self.examples_G))

    @functools.cached_property
    def of_seeds(self) -> float:
        """X: variance of the mean by its seeds, the rest included; NaN where nothing is known of it.

        That is for one seed, and for seeds that coincide without statistics per example to say whether by chance.
        """
        if self.seeds < 2 or (self.examples_G is None and len(set(unrounded(self.scores_S))) == 1):
            return float("nan")
        return max(float(self.scores_S.var(ddof=1)) / self.seeds, LEAST * self.noise)

    @functools.cached_property
    def of_examples(self) -> float:
        """k: variance of the mean by its examples, the rest left out where it is in X; NaN where nothing is known."""
        if self.examples_G is None:
            return float("nan")
        return max(float(self.examples_G.var(ddof=1)) / len(self.examples_G) - self.noise, 0.0)


def sample_of(scores: Sequence[float], runs: Sequence[Examples | Kept | None]) -> Sample:
    """The sample of a cell; runs over other examples than the first that has any count as without."""
    there = [run for run in runs if run is not None and len(run) > 1]
    scores_S = np.asarray(scores, dtype=np.float64)
    table_SG = _contributions([run for run in there if run.group == there[0].group])
    if table_SG is None or not np.isfinite(table_SG).all():
        return Sample(scores_S=scores_S, examples_G=None, rest=0.0, told=0, group="")
    told, size = table_SG.shape
    mean_G = table_SG.mean(axis=0)
    freedom = (told - 1) * (size - 1)
    rest = float(np.square(table_SG - mean_G).sum() / freedom) if freedom else 0.0
    return Sample(scores_S=scores_S, examples_G=mean_G, rest=rest, told=told, group=there[0].group)


def _contributions(runs: Sequence[Examples | Kept]) -> Floats | None:
    """Those of runs, (S, G), of as many blocks as the first has; None for no runs. Those of means at once."""
    kept = [run.values for run in runs if isinstance(run, Kept) and run.values is not None]
    if kept and len(kept) == len(runs) and len({len(values) for values in kept}) == 1:
        values_SN = np.stack(kept).astype(np.float64)
        return np.asarray(values_SN - values_SN.mean(axis=1, keepdims=True))
    found = [run.contributions() for run in runs]
    return np.stack([x for x in found if len(x) == len(found[0])]) if found else None


def interval(
    sample: Sample, *, confidence: float, bounds: tuple[float, float] | None = None
) -> tuple[float, float] | None:
    """Interval of the mean over new seeds and new examples; over what there is, where one of the two is missing.

    Within finite bounds after Wilson (1927) with the effective number of examples (Dean and Pagano 2015, modified
    Wilson), so that 500 hits of 500 leave room below. None for one seed, or seeds that coincide, without statistics
    per example.
    """
    k, x = sample.of_examples, sample.of_seeds
    if math.isnan(k) and math.isnan(x):
        return None
    k, x = (0.0 if math.isnan(variance) else min(variance, MOST) for variance in (k, x))
    inside = bounds is not None and all(map(math.isfinite, bounds))
    freedom = 1e9
    if sample.examples_G is not None:
        freedom = len(sample.examples_G) - 1.0 if inside else float(freedom_of(sample.examples_G))
    # One by one: in arrays of several numpy's powers differ from these in their last digit.
    reach = float(critical.quantile(confidence, k, x, max(sample.seeds - 1, 1), freedom))
    if inside and bounds is not None:
        return _wilson(sample, bounds, variance=k + x, reach=reach, confidence=confidence)
    half = reach * math.sqrt(k + x)
    low, high = bounds or (-math.inf, math.inf)
    return max(sample.mean - half, low), min(sample.mean + half, high)


def _wilson(
    sample: Sample, bounds: tuple[float, float], *, variance: float, reach: float, confidence: float
) -> tuple[float, float]:
    width = bounds[1] - bounds[0]
    share = min(max((sample.mean - bounds[0]) / width, 0.0), 1.0)
    variance /= width**2
    spread = share * (1 - share)
    if spread <= 0:  # 0 % or 100 %: nothing varies, and as many examples as there are say so
        if sample.examples_G is None:  # by a rounding
            return sample.mean, sample.mean
        size, reach = float(len(sample.examples_G)), float(-ndtri((1 - confidence) / 2))
    elif variance <= 0:
        return sample.mean, sample.mean
    else:
        size = spread / variance
    z = reach**2 / size
    middle, half = (share + z / 2) / (1 + z), reach * math.sqrt(spread / size + z / (4 * size)) / (1 + z)
    low, high = (bounds[0] + width * min(max(end, 0.0), 1.0) for end in (middle - half, middle + half))
    return min(low, sample.mean), max(high, sample.mean)


def freedom_of(values: Floats) -> Floats:
    """Degrees of freedom of a variance by the kurtosis of its values (last axis), N - 1 for the normal law.

    Six values that are not 0 among 500 tell as little of their variance as a dozen normal ones.
    """
    size = values.shape[-1]
    squares = np.square(values - values.mean(axis=-1, keepdims=True))
    second, fourth = squares.mean(axis=-1), np.square(squares).mean(axis=-1)
    return freedom_by(size, second, fourth)


def freedom_by(size: int, second: Floats, fourth: Floats) -> Floats:
    """The same from central moments: 2 N / (kurtosis - 1), at most N - 1, at least 1."""
    excess = np.maximum(fourth / np.maximum(second**2, critical.TINY) - 1.0, 1e-9)
    return np.asarray(np.clip(2.0 * size / excess, 1.0, max(size - 1.0, 1.0)))
