"""Errors, quantiles and weights behind the intervals over several tasks: against formulas."""
# S seeds, N examples, R draws, C rows

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from seqbench.board.aggregates import LEVELS, Standing, Task, _errors, standings
from seqbench.board.comparisons import compare
from seqbench.board.statistics import Examples, Sample, sample_of

Floats = NDArray[np.float64]


def task(samples: dict[str, Sample], *, floor: float | None = 0.0, known: float | None = 1.0) -> Task:
    examples_CC = compare(list(samples.values()), confidence=0.95).examples_CC
    return Task(
        label="t", sign=1.0, samples=samples, last={}, failed={}, examples_CC=examples_CC, floor=floor, known=known
    )


def scored(table_SN: Floats, group: str = "a") -> Sample:
    runs = [Examples(values={"value": row}, aggregate=None, group=group) for row in np.atleast_2d(table_SN)]
    return sample_of([run.score() for run in runs], runs)


def bare(*scores: float) -> Sample:
    return sample_of(scores, [None] * len(scores))


def of_a(tasks: list[Task], confidence: float = 0.95, draws: int = 2000) -> Standing:
    rows = sorted({row for one in tasks for row in one.samples})
    return standings(rows, tasks, confidence=confidence, draws=draws, seed=0)["a"]


def half(ends: tuple[float, float] | None) -> float:
    assert ends is not None
    return (ends[1] - ends[0]) / 2


def test_repetitions_of_rows_on_the_same_examples_move_together() -> None:
    draw = np.random.default_rng(0)
    common_N = draw.normal(size=400)
    tables = [common_N + 0.3 * draw.normal(size=400) for _ in range(2)] + [draw.normal(size=400)]
    errors_RC = _errors(task({f"r{i}": scored(t) for i, t in enumerate(tables)}), 60000, np.random.default_rng(1))
    assert np.cov(errors_RC.T) == pytest.approx(np.cov(tables) / 400, abs=3e-5)
    assert np.corrcoef(errors_RC[:, 0], errors_RC[:, 1]).min() > 0.9  # by the formula above; without the pairing 0


@pytest.mark.parametrize(("tasks", "seeds", "freedom"), [(1, 3, 2), (2, 3, 4), (1, 5, 4), (1, 1, None)])
def test_ranks_reach_as_far_as_students_t_of_all_seeds_of_a_row(tasks: int, seeds: int, freedom: int | None) -> None:
    draw = np.random.default_rng(2)
    tables = {row: draw.normal(size=(seeds, 50)) + draw.normal(size=(seeds, 1)) for row in "bcdefghi"}
    tables["a"] = draw.normal(size=(seeds, 50)) + draw.normal(size=(seeds, 1))
    tables["a"] += np.median([table.mean() for table in tables.values()]) - tables["a"].mean()  # in the middle
    rows = {row: scored(table) for row, table in tables.items()}
    many = [task(rows) for _ in range(tasks)]
    wide, narrow = (of_a(many, confidence) for confidence in (0.4, 0.2))  # neither reaches an end
    law = scipy.stats.norm() if freedom is None else scipy.stats.t(freedom)
    for one, other in ((wide.rank_interval, narrow.rank_interval), (wide.win_interval, narrow.win_interval)):
        assert half(one) / half(other) == pytest.approx(law.isf(0.3) / law.isf(0.4), rel=1e-6)


@pytest.mark.parametrize("seeds", [1, 3])  # the same three times: more runs, no more knowledge
def test_examples_weigh_in_an_interquartile_mean_by_the_square_of_their_tasks_share(seeds: int) -> None:
    draw = np.random.default_rng(3)
    one, other = 0.4 + 0.2 * draw.normal(size=200), 0.7 + 0.5 * draw.normal(size=300)
    tables = (np.tile(values, (seeds, 1)) for values in (one, other))
    found = of_a([task({"a": scored(table, group)}) for table, group in zip(tables, "ab", strict=True)])
    assert found.iqm == pytest.approx((one.mean() + other.mean()) / 2)  # each task gives half
    variance = (one.var(ddof=1) / 200 + other.var(ddof=1) / 300) / 4
    assert half(found.iqm_interval) == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-3)


def test_degrees_of_freedom_of_an_interquartile_mean_are_welchs() -> None:
    one, other = (0.2, 0.5, 0.8), (0.45, 0.5, 0.5, 0.5, 0.55)
    found = of_a([task({"a": bare(*one)}), task({"a": bare(*other)})])
    # In order: 0.2 (1/6), 0.45 (1/10), then the middle half: 0.5 of both, and the end of what lies around it.
    first = 1 / 6 + 1 / 10 - 1 / 4  # of 0.45, beyond the first quarter
    last = 3 / 4 - (1 / 6 + 1 / 10) - 1 / 6 - 3 / 10  # of 0.55, before the last
    x_K = [
        np.var(one, ddof=1) * (1 / 3) ** 2,
        np.var(other, ddof=1) * ((first / 0.5) ** 2 + 3 * (1 / 5) ** 2 + (last / 0.5) ** 2),
    ]
    freedom = sum(x_K) ** 2 / (x_K[0] ** 2 / 2 + x_K[1] ** 2 / 4)
    assert half(found.iqm_interval) == pytest.approx(scipy.stats.t.isf(0.025, freedom) * math.sqrt(sum(x_K)), rel=1e-3)


@pytest.mark.parametrize(("scores", "sd"), [((0.4, 0.6), 0.1), ((0.4, 0.5, 0.6), 0.1 / math.sqrt(3))])
def test_a_profile_moves_by_the_error_of_a_mean_of_so_many_runs(scores: tuple[float, ...], sd: float) -> None:
    profile = of_a([task({"a": bare(*scores)})]).profile
    assert profile is not None
    sure, none = LEVELS[profile.low > 0.999].max(), LEVELS[profile.high < 0.001].min()
    assert sure == pytest.approx(0.4 - 1.96 * sd, abs=0.03)  # all runs are above it in 97.5 % of draws
    assert none == pytest.approx(0.6 + 1.96 * sd, abs=0.03)
