"""Do the board's intervals cover, do its tests hold? Synthetic runs of known truth, through the board's own code."""
# S seeds, N examples

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seqbench import coverage_aggregates
from seqbench.board.comparisons import compare
from seqbench.board.statistics import Examples, interval, sample_of

Floats = NDArray[np.float64]
Statistics = dict[str, Floats]
Aggregate = Callable[[Mapping[str, Floats]], float]
Make = Callable[[np.random.Generator, int, float], list[Statistics]]  # (generator, S, gap) -> S runs of each of 3 rows
USAGE = """python scripts/coverage.py [repeats=1000] [seeds=3,5,10] [seed=0] [only=TEXT]

A table of how often the 95 % interval of a cell, and of a known difference between two rows, holds the truth, and how
often the test at 5 % tells apart two rows that are equal. `seed` draws other synthetic runs, `only` picks settings;
`only=aggregates` is another table: how often the intervals of mean rank and interquartile mean hold (slow)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A way to draw runs of three rows: the first better by `gap`, the others equal; and what is true of them."""

    name: str
    make: Make
    truth: float  # of the second and the third row
    gap: float  # of the first to them
    bounds: tuple[float, float]
    aggregate: Aggregate | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """Shares of the repeats."""

    setting: str
    seeds: int
    cell: float  # interval of a cell holds its truth
    difference: float  # interval of a difference holds its truth
    rejected: float  # p <= 0.05 for two rows that are equal


def continuous(name: str, *, seed_sd: tuple[float, float, float], own_sd: float, examples: int = 200) -> Setting:
    """Scores without bounds: example effects shared by all rows and, with own_sd, others of each row's own."""

    def make(draw: np.random.Generator, seeds: int, gap: float) -> list[Statistics]:
        shared_N, runs = draw.normal(size=examples), []
        for row in range(3):
            own_N = own_sd * draw.normal(size=examples)
            effects_S1 = seed_sd[row] * draw.normal(size=(seeds, 1))
            values_SN = 2.0 + gap * (row == 0) + effects_S1 + shared_N + own_N + draw.normal(size=(seeds, examples))
            runs += [{"value": np.asarray(values_N, dtype=np.float64)} for values_N in values_SN]
        return runs

    return Setting(name=name, make=make, truth=2.0, gap=0.3, bounds=(-math.inf, math.inf))


def binary(name: str, *, rate: float, gap: float, seed_sd: float, examples: int) -> Setting:
    """Hits and misses: an example is hit where skill + its ease + a seed's luck + noise is above 0, all normal."""
    width = math.sqrt(1.0 + 1.0 + seed_sd**2)
    from scipy.stats import norm

    def make(draw: np.random.Generator, seeds: int, gap: float) -> list[Statistics]:
        ease_N, runs = draw.normal(size=examples), []
        for row in range(3):
            skill = width * norm.ppf(rate + gap * (row == 0))
            luck_S1 = seed_sd * draw.normal(size=(seeds, 1))
            runs += [
                {"value": hits_N.astype(np.float64)}
                for hits_N in skill + luck_S1 + ease_N + draw.normal(size=(seeds, examples)) > 0
            ]
        return runs

    return Setting(name=name, make=make, truth=rate, gap=gap, bounds=(0.0, 1.0))


def f1(name: str, *, seed_sd: float, examples: int = 150) -> Setting:
    """Micro F1 by counts of each example; expected F1 of a seed is its rate of hits."""

    def make(draw: np.random.Generator, seeds: int, gap: float) -> list[Statistics]:
        gold_N, ease_N, runs = (
            1.0 + draw.poisson(2.0, size=examples).astype(np.float64),
            draw.uniform(-0.15, 0.15, size=examples),
            [],
        )
        for row in range(3):
            for _ in range(seeds):
                rate_N = np.clip(0.7 + gap * (row == 0) + seed_sd * draw.normal() + ease_N, 0.0, 1.0)
                hits_N = draw.binomial(gold_N.astype(np.int64), rate_N).astype(np.float64)
                wrong_N = draw.poisson(gold_N * (1 - rate_N)).astype(np.float64)
                runs.append({"hits": hits_N, "predicted": hits_N + wrong_N, "gold": gold_N})
        return runs

    return Setting(name=name, make=make, truth=0.7, gap=0.05, bounds=(0.0, 1.0), aggregate=_f1)


def spearman(name: str, *, seed_sd: float, examples: int = 100) -> Setting:
    """Rank correlation of two normal numbers, whose truth is 6 / pi asin(r / 2); a seed has its own r."""

    def truth(correlation: float) -> float:
        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        return float((weights * 6 / np.pi * np.arcsin((correlation + seed_sd * nodes) / 2)).sum() / weights.sum())

    def make(draw: np.random.Generator, seeds: int, gap: float) -> list[Statistics]:
        reference_N, shared_N, runs = draw.normal(size=examples), draw.normal(size=examples), []
        for row in range(3):
            for _ in range(seeds):
                r = 0.6 + 0.1 * (row == 0) * (gap > 0) + seed_sd * draw.normal()
                error_N = math.sqrt(0.5) * (shared_N + draw.normal(size=examples))
                prediction_N = np.asarray(r * reference_N + math.sqrt(1 - r**2) * error_N, dtype=np.float64)
                runs.append({"prediction": prediction_N, "reference": reference_N})
        return runs

    gap = truth(0.7) - truth(0.6)
    return Setting(name=name, make=make, truth=truth(0.6), gap=gap, bounds=(-1.0, 1.0), aggregate=_spearman)


def settings() -> list[Setting]:
    """Those of docs/statistics.md: no, some and large variance between seeds; means and metrics that are none."""
    return [
        continuous("continuous, no seed variance", seed_sd=(0.0, 0.0, 0.0), own_sd=0.5),
        continuous("continuous, no seed variance, example effects wholly shared", seed_sd=(0.0, 0.0, 0.0), own_sd=0.0),
        continuous("continuous, seeds as examples", seed_sd=(0.1, 0.1, 0.1), own_sd=0.5),
        continuous("continuous, large seed variance", seed_sd=(1.0, 1.0, 1.0), own_sd=0.5),
        continuous("continuous, large seed variance in two of three rows", seed_sd=(0.0, 1.0, 0.0), own_sd=0.5),
        continuous("continuous, 50 examples", seed_sd=(0.2, 0.2, 0.2), own_sd=0.5, examples=50),
        binary("binary 75 %, no seed variance", rate=0.75, gap=0.05, seed_sd=0.0, examples=300),
        binary("binary 75 %, some seed variance", rate=0.75, gap=0.05, seed_sd=0.1, examples=300),
        binary("binary 75 %, large seed variance", rate=0.75, gap=0.05, seed_sd=0.5, examples=300),
        binary("binary 97 %, some seed variance", rate=0.97, gap=0.01, seed_sd=0.1, examples=500),
        f1("F1, no seed variance", seed_sd=0.0),
        f1("F1, large seed variance", seed_sd=0.05),
        spearman("Spearman, no seed variance", seed_sd=0.0),
        spearman("Spearman, large seed variance", seed_sd=0.05),
    ]


def simulate(setting: Setting, *, seeds: int, repeats: int, seed: int) -> Result:
    """How the board's 95 % intervals and its test at 5 % do."""
    cell = difference = rejected = 0
    for repeat in range(repeats):
        draw = np.random.default_rng([seed, seeds, repeat])
        runs = [
            Examples(values=values, aggregate=setting.aggregate, group="synthetic")
            for values in setting.make(draw, seeds, setting.gap)
        ]
        rows = [runs[row * seeds : (row + 1) * seeds] for row in range(3)]
        samples = [sample_of([run.score() for run in row], row) for row in rows]
        found = interval(samples[1], confidence=0.95, bounds=setting.bounds)
        assert found is not None
        cell += found[0] <= setting.truth <= found[1]
        pairs = compare(samples, confidence=0.95)
        difference += pairs.low_CC[0, 1] <= setting.gap <= pairs.high_CC[0, 1]
        rejected += pairs.p_CC[1, 2] <= 0.05
    return Result(
        setting=setting.name,
        seeds=seeds,
        cell=cell / repeats,
        difference=difference / repeats,
        rejected=rejected / repeats,
    )


def table(results: Sequence[Result]) -> Iterator[str]:
    """Markdown, in per cent."""
    yield "| setting | seeds | cell covers | difference covers | true null rejected |"
    yield "| --- | --: | --: | --: | --: |"
    for r in results:
        marks = ["" if 0.93 <= share <= 0.97 else " *" for share in (r.cell, r.difference)]
        marks.append("" if r.rejected <= 0.06 else " *")
        shares = [f"{100 * x:.1f}{m}" for x, m in zip((r.cell, r.difference, r.rejected), marks, strict=True)]
        yield f"| {r.setting} | {r.seeds} | {' | '.join(shares)} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0, 1 where something is out of 93 to 97 % or above 6 % (marked *), 2 for a mistake."""
    given = {"repeats": "1000", "seeds": "3,5,10", "seed": "0", "only": ""}
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or key not in given:
            print(f"{argument!r}: not one of {', '.join(f'{k}=...' for k in given)}", file=sys.stderr)
            return 2
        given[key] = value
    try:
        repeats, seed = int(given["repeats"]), int(given["seed"])
        counts = [int(count) for count in given["seeds"].split(",")]
    except ValueError as error:
        print(f"repeats, seeds and seed are whole numbers: {error}", file=sys.stderr)
        return 2
    over_tasks = given["only"] == "aggregates"
    chosen = [setting for setting in settings() if given["only"] in setting.name]
    if repeats < 1 or seed < 0 or min(counts) < 1 or not (chosen or over_tasks):
        print("repeats and seeds begin at 1, seed at 0, and `only` has to fit a setting", file=sys.stderr)
        return 2
    if over_tasks:
        for line in coverage_aggregates.lines(counts=counts, repeats=repeats, seed=seed):
            print(line, flush=True)
        return 0
    results = []
    for line in table([]):
        print(line)
    for setting in chosen:
        for count in counts:
            results.append(simulate(setting, seeds=count, repeats=repeats, seed=seed))
            print(list(table(results[-1:]))[2], flush=True)
    return int(any(line.count("*") for line in table(results)))


def _f1(statistics: Mapping[str, Floats]) -> float:
    total = statistics["predicted"].sum() + statistics["gold"].sum()
    return float(2 * statistics["hits"].sum() / total)


def _spearman(statistics: Mapping[str, Floats]) -> float:
    x, y = (np.argsort(np.argsort(statistics[name])) - (len(statistics[name]) - 1) / 2 for name in statistics)
    return float(x @ y / (x @ x))  # ranks without ties: both have the same variance
