"""The number of a comparison with its interval, from the runs of its sides."""
# S seeds that both sides have

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from seqbench.board import examples
from seqbench.board.comparisons import compare
from seqbench.board.statistics import Examples, Kept, Sample, interval, sample_of
from seqbench.claims.selection import ABSENT, Run, quantity
from seqbench.claims.sheet import Comparison, Part
from seqbench.errors import ConfigError

Floats = NDArray[np.float64]
Basis = Literal["seeds and examples", "seeds", "counted", "one seed"]


class Estimate(Part):
    """A number and its interval; no interval where nothing is known of the error."""

    value: float
    low: float | None
    high: float | None
    a: float  # mean of each side
    b: float | None
    seeds: int
    basis: Basis


def estimate(comparison: Comparison, a: Sequence[Run], b: Sequence[Run] | None, *, confidence: float) -> Estimate:
    """The number of a comparison whose runs have all finished.

    A difference of scores is the board's (seeds and examples, paired where examples are shared). A ratio of scores is
    paired by seed, its logarithm an interval over seeds and examples. Costs, what encoders tell and exponents are
    paired by seed, their interval Student's over seeds, of ratios over their logarithms; what every seed counts alike
    (operations, parameters) is exact. Raises ConfigError where sides cannot be compared.
    """
    sides = [a] if b is None else [a, b]
    of_scores = comparison.exponent_over is None and not comparison.of.startswith(("cost/", "encoder/"))
    if of_scores and (comparison.by == "difference" or b is None):
        return _scores(comparison, sides, confidence)
    by_seed = [_by_seed(comparison, side) for side in sides]
    seeds = sorted(by_seed[0])
    if b is not None:
        _same_seeds(comparison, *by_seed)
    a_S = np.array([by_seed[0][seed] for seed in seeds])
    b_S = np.array([by_seed[1][seed] for seed in seeds]) if b is not None else None
    if of_scores and b is not None and b_S is not None:
        runs = [_together(*(_examples(comparison, side, seed) for side in (a, b))) for seed in seeds]
        return _ratio_of_scores(comparison, a_S, b_S, runs, confidence)
    return _over_seeds(comparison, a_S, b_S, confidence)


def check_sides(comparison: Comparison, sides: Sequence[Sequence[Run]]) -> None:
    """Raise ConfigError for sides that `estimate` would refuse once they have run: told before anything is trained."""
    key = comparison.exponent_over
    for side in sides:
        if key is None:
            _one_a_seed(comparison, side)
            continue
        for seed in {run.seed for run in side}:
            _apart(comparison, key, seed, [_number(comparison, run, key) for run in side if run.seed == seed])
    of_scores = key is None and not comparison.of.startswith(("cost/", "encoder/"))
    if len(sides) > 1 and not (of_scores and comparison.by == "difference"):
        _same_seeds(comparison, [run.seed for run in sides[0]], [run.seed for run in sides[1]])


def _same_seeds(comparison: Comparison, a: Iterable[int], b: Iterable[int]) -> None:
    seeds, others = sorted(set(a)), sorted(set(b))
    if seeds != others:
        raise ConfigError(f"{comparison.name}: a and b have other seeds: {seeds} and {others}")


def _apart(comparison: Comparison, key: str, seed: int, values: Sequence[float]) -> None:
    if len(set(values)) < len(values):
        raise ConfigError(f"{comparison.name}: a side has one run a seed and {key}; seed {seed} has more of one")
    if len(values) < 2 or min(values) <= 0:
        raise ConfigError(f"{comparison.name}: no exponent over {key}: two or more positive values are needed")


def _scores(comparison: Comparison, sides: Sequence[Sequence[Run]], confidence: float) -> Estimate:
    samples = [_sample(comparison, side) for side in sides]
    seeds = min(sample.seeds for sample in samples)
    told = all(sample.examples_G is not None for sample in samples)
    basis: Basis = "seeds and examples" if told and seeds > 1 else "seeds" if seeds > 1 else "one seed"
    if len(samples) == 1:
        ends = interval(samples[0], confidence=confidence, bounds=_bounds(comparison, sides[0]))
        low, high = ends if ends is not None else (None, None)
        mean = samples[0].mean
        return Estimate(value=mean, low=low, high=high, a=mean, b=None, seeds=seeds, basis=basis)
    pairs = compare(samples, confidence=confidence)
    low, high = float(pairs.low_CC[0, 1]), float(pairs.high_CC[0, 1])
    known = bool(np.isfinite([low, high]).all())
    return Estimate(
        value=float(pairs.difference_CC[0, 1]),
        low=low if known else None,
        high=high if known else None,
        a=samples[0].mean,
        b=samples[1].mean,
        seeds=seeds,
        basis=basis,
    )


def _ratio_of_scores(
    comparison: Comparison, a_S: Floats, b_S: Floats, runs: Sequence[Kept | None], confidence: float
) -> Estimate:
    """exp of the mean of log(a / b), whose error is that of seeds and, by the delta method, that of the examples."""
    if min(a_S.min(), b_S.min()) <= 0:
        raise ConfigError(f"{comparison.name}: no ratio of numbers that are not above 0")
    sample = sample_of(list(np.log(a_S / b_S)), runs)
    ends = interval(sample, confidence=confidence)
    low, high = (None, None) if ends is None else (float(np.exp(ends[0])), float(np.exp(ends[1])))
    told = sample.examples_G is not None
    return Estimate(
        value=float(np.exp(sample.mean)),
        low=low,
        high=high,
        a=float(a_S.mean()),
        b=float(b_S.mean()),
        seeds=len(a_S),
        basis="one seed" if len(a_S) == 1 else "seeds and examples" if told else "seeds",
    )


def _examples(comparison: Comparison, side: Sequence[Run], seed: int) -> tuple[Examples | Kept | None, float]:
    """Statistics per example of a side's run of a seed, and its score."""
    split, _, metric = comparison.of.partition("/")
    run = next(run for run in side if run.seed == seed)
    assert run.entry is not None
    return examples.read(run.entry, split, metric)[0], _defined(comparison, run)


def _together(a: tuple[Examples | Kept | None, float], b: tuple[Examples | Kept | None, float]) -> Kept | None:
    """What each example adds to log(a / b): of shared examples the difference, of others each side's own."""
    if a[0] is None or b[0] is None or a[1] <= 0 or b[1] <= 0:
        return None
    a_G, b_G = a[0].contributions() / a[1], b[0].contributions() / b[1]
    if a[0].group == b[0].group and len(a_G) == len(b_G):
        return Kept(size=len(a_G), group=a[0].group, values=None, added=a_G - b_G)
    size = len(a_G) + len(b_G)
    added_G = np.concatenate([a_G * (size / len(a_G)), -b_G * (size / len(b_G))])
    return Kept(size=size, group=f"{a[0].group} {b[0].group}", values=None, added=added_G)


def _bounds(comparison: Comparison, side: Sequence[Run]) -> tuple[float, float] | None:
    split, _, metric = comparison.of.partition("/")
    assert side[0].entry is not None
    return examples.bounds(side[0].entry.record.scores[split][metric].target)


def _sample(comparison: Comparison, side: Sequence[Run]) -> Sample:
    _one_a_seed(comparison, side)
    split, _, metric = comparison.of.partition("/")
    values, runs = [], []
    for run in side:
        assert run.entry is not None
        values.append(_defined(comparison, run))
        runs.append(examples.read(run.entry, split, metric)[0])
    return sample_of(values, runs)


def _by_seed(comparison: Comparison, side: Sequence[Run]) -> dict[int, float]:
    """A number for each seed: the quantity, or its exponent over a config key."""
    key = comparison.exponent_over
    if key is None:
        _one_a_seed(comparison, side)
        return {run.seed: _defined(comparison, run) for run in side}
    found: dict[int, float] = {}
    for seed in {run.seed for run in side}:
        points = [(_number(comparison, run, key), _defined(comparison, run)) for run in side if run.seed == seed]
        x, y = np.array(sorted(points)).T
        _apart(comparison, key, seed, list(x))
        if min(y) <= 0:
            raise ConfigError(f"{comparison.name}: no exponent of {comparison.of}: it is not above 0 everywhere")
        found[seed] = float(stats.linregress(np.log(x), np.log(y)).slope)
    return found


def _number(comparison: Comparison, run: Run, key: str) -> float:
    value = run.at(key)
    if value is ABSENT or isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{comparison.name}: {key} is no number of {run.cell.title}")
    return float(value)


def _defined(comparison: Comparison, run: Run) -> float:
    assert run.entry is not None
    value = quantity(run.entry.record, comparison.of)
    if value is None:
        raise ConfigError(f"{comparison.name}: {comparison.of} is not defined for {run.cell.title}")
    return value


def _one_a_seed(comparison: Comparison, side: Sequence[Run]) -> None:
    seeds = [run.seed for run in side]
    if len(set(seeds)) < len(seeds):
        titles = ", ".join(run.cell.title for run in side[:3])
        raise ConfigError(f"{comparison.name}: a side has one run a seed, this one has {len(seeds)}: {titles}")


def _over_seeds(comparison: Comparison, a_S: Floats, b_S: Floats | None, confidence: float) -> Estimate:
    ratio = comparison.by == "ratio" and b_S is not None
    if b_S is None:
        value_S = a_S
    elif ratio:
        if min(a_S.min(), b_S.min()) <= 0:
            raise ConfigError(f"{comparison.name}: no ratio of numbers that are not above 0")
        value_S = np.log(a_S / b_S)
    else:
        value_S = a_S - b_S
    mean, seeds = float(value_S.mean()), len(value_S)
    low: float | None
    high: float | None
    basis: Basis
    alike = bool(np.ptp(value_S) <= 1e-9 * max(abs(mean), 1.0))
    counted = _counted(comparison.of) and alike and (seeds > 1 or comparison.of == "cost/parameters")
    exact = float(a_S[0] if b_S is None else a_S[0] / b_S[0] if ratio else a_S[0] - b_S[0])  # exp(log(3)) is not 3
    if counted:
        low, high, basis = exact, exact, "counted"
    elif seeds > 1:
        half = float(stats.t.isf((1 - confidence) / 2, seeds - 1) * value_S.std(ddof=1) / np.sqrt(seeds))
        low, high, basis = mean - half, mean + half, "seeds"
    else:
        low, high, basis = None, None, "one seed"
    if counted:
        mean = exact
    elif ratio:
        mean, low, high = float(np.exp(mean)), *(None if x is None else float(np.exp(x)) for x in (low, high))
    return Estimate(
        value=mean,
        low=low,
        high=high,
        a=float(a_S.mean()),
        b=None if b_S is None else float(b_S.mean()),
        seeds=seeds,
        basis=basis,
    )


def _counted(of: str) -> bool:
    """Whether a quantity is a count, the same on every machine, and no measurement."""
    counts = ("cost/parameters", "cost/flops", "cost/train_tokens", "cost/train_items", "cost/generation.cache_mib")
    return of.startswith(counts) and not of.endswith("_per_second")
