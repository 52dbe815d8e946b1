"""Do the intervals of mean rank and interquartile mean cover? Synthetic boards, through the board's own code."""
# C rows, K tasks, R repeats, S seeds, N examples

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from seqbench.board.aggregates import Task, standings
from seqbench.board.comparisons import compare
from seqbench.board.statistics import Examples, Sample, sample_of

ROWS, TASKS, EXAMPLES, DRAWS = 5, 4, 200, 200
SPREADS, GAPS = (0.0, 0.1, 0.5), (0.0, 0.05, 0.2)  # of seeds; between a row and the next better one
HEAD = "| spread of seeds | gap of rows | seeds | mean rank covers | true rank | IQM covers |"


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """Shares of the rows of all repeats."""

    spread: float
    gap: float
    seeds: int
    rank: float  # interval of the mean rank holds the mean over all such boards
    true_rank: float  # it holds the rank that the rows would have without any error
    iqm: float  # interval of the interquartile mean holds the truth


def simulate(*, spread: float, gap: float, seeds: int, repeats: int, seed: int) -> Result:
    """Boards of five rows and four tasks; the example effects have a standard deviation of about 1, half of a row's."""
    names = [f"row {c}" for c in range(ROWS)]
    truth_C = 2.0 + gap * np.arange(ROWS)
    ranks, ends, iqm = [], [], 0
    for repeat in range(repeats):
        draw = np.random.default_rng([seed, seeds, repeat])
        tasks = [_task(draw, dict(zip(names, truth_C, strict=True)), spread, seeds) for _ in range(TASKS)]
        found = [standings(names, tasks, confidence=0.95, draws=DRAWS, seed=repeat)[name] for name in names]
        ranks.append([standing.rank for standing in found])
        ends.append([standing.rank_interval for standing in found])
        for truth, standing in zip(truth_C, found, strict=True):
            assert standing.iqm_interval is not None
            iqm += standing.iqm_interval[0] <= truth <= standing.iqm_interval[1]
    ends_RC2, mean_C = np.array(ends, dtype=np.float64), np.array(ranks, dtype=np.float64).mean(axis=0)
    low_RC, high_RC = ends_RC2[..., 0] - 1e-9, ends_RC2[..., 1] + 1e-9
    true_C = stats.rankdata(-truth_C)
    return Result(
        spread=spread,
        gap=gap,
        seeds=seeds,
        rank=float(((low_RC <= mean_C) & (mean_C <= high_RC)).mean()),
        true_rank=float(((low_RC <= true_C) & (true_C <= high_RC)).mean()),
        iqm=iqm / (repeats * ROWS),
    )


def lines(*, counts: Sequence[int], repeats: int, seed: int) -> Iterator[str]:
    """A Markdown table in per cent."""
    yield HEAD
    yield "| --: | --: | --: | --: | --: | --: |"
    for spread in SPREADS:
        for gap in GAPS:
            for seeds in counts:
                r = simulate(spread=spread, gap=gap, seeds=seeds, repeats=repeats, seed=seed)
                shares = " | ".join(f"{100 * share:.0f}" for share in (r.rank, r.true_rank, r.iqm))
                yield f"| {spread} | {gap} | {seeds} | {shares} |"


def _task(draw: np.random.Generator, truth: dict[str, float], spread: float, seeds: int) -> Task:
    shared_N = draw.normal(size=EXAMPLES)
    samples: dict[str, Sample] = {}
    for name, mean in truth.items():
        own_N = 0.5 * draw.normal(size=EXAMPLES)
        table_SN = mean + spread * draw.normal(size=(seeds, 1)) + shared_N + own_N
        table_SN = table_SN + draw.normal(size=(seeds, EXAMPLES))
        runs = [Examples(values={"value": values}, aggregate=None, group="synthetic") for values in table_SN]
        samples[name] = sample_of([run.score() for run in runs], runs)
    examples_CC = compare(list(samples.values()), confidence=0.95).examples_CC
    return Task(label="t", sign=1.0, samples=samples, last={}, failed={}, examples_CC=examples_CC, floor=0.0, known=1.0)
