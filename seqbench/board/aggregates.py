"""Numbers over several tasks, each with its interval: mean rank, win rate, interquartile mean, performance profile.

Interquartile mean and profiles are those of Agarwal et al. 2021 (arXiv 2108.13264), the win rate that of HELM (Liang et
al. 2022, arXiv 2211.09110). Tasks are taken as given: intervals are over new seeds and examples of the same tasks.
"""
# C rows, K tasks, R draws, S seeds of a cell, M runs of a row in all tasks

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from seqbench.board import critical
from seqbench.board.statistics import Floats, Sample, follows

LEVELS = np.linspace(-0.1, 1.1, 61)  # of the performance profiles
Ends = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A column as the aggregates see it; rows by id, floors left out."""

    label: str
    sign: float  # 1 where more is better, else -1
    samples: Mapping[str, Sample]  # of rows with a score
    last: Mapping[str, int]  # rows that rank last since all of their runs failed, and how many those are
    failed: Mapping[str, int]  # runs that failed beside others that did not
    examples_CC: Floats  # of the rows of `samples`: of Pairs
    floor: float | None  # score of the trivial row; the best of several
    known: float | None  # published best; None: that of the board

    def normalised(self) -> tuple[float, float] | None:
        """Floor and range for min-max, in terms of more is better; None where there is no floor or nothing above."""
        if self.floor is None or not self.samples:
            return None
        there = max(self.sign * sample.mean for sample in self.samples.values())
        span = (there if self.known is None else self.sign * self.known) - self.sign * self.floor
        return (self.sign * self.floor, span) if span > 0 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Share of a row's runs above each of LEVELS, tasks weighing the same, with a pointwise interval."""

    share: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A row over all tasks; None where there is nothing to say."""

    tasks: int  # where it has a place
    rank: float | None
    rank_interval: Ends | None  # None, as that of win, where nothing is known of the error of any cell
    win: float | None
    win_interval: Ends | None
    iqm: float | None
    iqm_interval: Ends | None
    iqm_tasks: int
    profile: Profile | None


def standings(
    rows: Sequence[str], tasks: Sequence[Task], *, confidence: float, draws: int, seed: int
) -> dict[str, Standing]:
    """Every row's. The intervals of rank and win rate come from the spread of both over simulated repetitions."""
    ranked = [task for task in tasks if task.samples]
    observed = [_ranks(task, rows, np.zeros((1, len(task.samples))))[0] for task in ranked]
    observed_CK = np.stack(observed, axis=1) if observed else np.empty((len(rows), 0))
    drawn_CKR = np.empty((len(rows), len(ranked), draws))

    def draw(k: int) -> None:
        error_RC = _errors(ranked[k], draws, np.random.default_rng([seed, k]))
        drawn_CKR[:, k] = _ranks(ranked[k], rows, error_RC).T

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # numpy leaves others to work
        list(pool.map(draw, range(len(ranked))))
    scales = [task.normalised() for task in ranked]
    known_K = [any(np.isfinite([s.of_examples, s.of_seeds]).any() for s in task.samples.values()) for task in ranked]
    rivals_K = np.isfinite(observed_CK).sum(axis=0) - 1
    found = {}
    for c, row in enumerate(rows):
        mine = [k for k in range(len(ranked)) if np.isfinite(observed_CK[c, k])]
        rank = win = rank_ends = win_ends = None
        if mine:
            rivals = rivals_K[mine]
            reach = _reach(row, [ranked[k] for k in mine], confidence) if any(known_K[k] for k in mine) else None
            drawn_RK = np.ascontiguousarray(drawn_CKR[c, mine].T)
            rank, rank_ends = _with_spread(observed_CK[c, mine], drawn_RK, reach, (1.0, 1.0 + float(rivals.max())))
            if rivals.min() > 0:
                win, win_ends = _with_spread(
                    (rivals + 1 - observed_CK[c, mine]) / rivals, (rivals + 1 - drawn_RK) / rivals, reach, (0.0, 1.0)
                )
        runs = _Runs.of(row, ranked, scales)
        found[row] = Standing(
            tasks=len(mine),
            rank=rank,
            rank_interval=rank_ends,
            win=win,
            win_interval=win_ends,
            iqm=None if runs is None else runs.iqm(),
            iqm_interval=None if runs is None else runs.interval(confidence),
            iqm_tasks=0 if runs is None else runs.tasks,
            profile=None
            if runs is None
            else runs.profile(confidence, draws, np.random.default_rng([seed, len(ranked), c])),
        )
    return found


def _errors(task: Task, draws: int, generator: np.random.Generator) -> Floats:
    """What simulated repetitions add to the means of a task's rows, (R, C): normal, related by shared examples.

    The means that were seen have errors already, which set rows apart that are alike: they are drawn together first, by
    the share of their variance that errors explain (James and Stein 1961).
    """
    samples = list(task.samples.values())
    k_C = np.nan_to_num([s.of_examples for s in samples])
    x_C = np.nan_to_num([s.of_seeds for s in samples])
    covariance_CC = (k_C[:, None] + k_C[None, :] - task.examples_CC) / 2
    np.fill_diagonal(covariance_CC, k_C + x_C)
    scale = float(np.abs(covariance_CC).max()) or 1.0
    values, vectors = np.linalg.eigh(covariance_CC / scale)
    normal_RC = generator.normal(size=(draws, len(samples)))
    error_RC = np.sqrt(scale) * (normal_RC * np.sqrt(np.where(values > 1e-14, values, 0.0))) @ vectors.T
    return np.asarray(error_RC + _together(np.array([s.mean for s in samples]), covariance_CC))


def _together(mean_C: Floats, covariance_CC: Floats) -> Floats:
    """Where the means move so that they spread as much as they would without errors, (C,)."""
    count = len(mean_C)
    if count < 2 or not mean_C.var():
        return np.zeros(count)
    noise = (np.trace(covariance_CC) - covariance_CC.sum() / count) / (count - 1)
    return np.asarray(-min(1.0, noise / mean_C.var(ddof=1)) * (mean_C - mean_C.mean()))


def _ranks(task: Task, rows: Sequence[str], error_RC: Floats) -> Floats:
    """Rank of each row in each draw, (R, C); equal scores share one, rows that failed share the last; NaN if absent."""
    badness_RC = np.full((len(error_RC), len(rows)), np.nan)
    place = {row: c for c, row in enumerate(rows)}
    mean_C = np.array([sample.mean for sample in task.samples.values()])
    badness_RC[:, [place[row] for row in task.samples]] = -(task.sign * (mean_C + error_RC))
    badness_RC[:, [place[row] for row in task.last]] = np.inf
    present = ~np.isnan(badness_RC[0])
    badness_RC[:, present] = shared_ranks(badness_RC[:, present])
    return badness_RC


def shared_ranks(values_RC: Floats) -> Floats:
    """Ranks from 1 along the last axis, the mean of their places for values that differ by rounding alone."""
    order = np.argsort(values_RC, axis=-1)
    ordered = np.take_along_axis(values_RC, order, axis=-1)
    new = np.ones(ordered.shape, dtype=bool)
    new[..., 1:] = ~follows(ordered)
    last = np.ones_like(new)
    last[..., :-1] = new[..., 1:]
    places = np.broadcast_to(np.arange(1, ordered.shape[-1] + 1), ordered.shape)
    first_place = np.maximum.accumulate(np.where(new, places, 0), axis=-1)
    backwards = np.where(last, places, ordered.shape[-1] + 1)[..., ::-1]
    last_place = np.minimum.accumulate(backwards, axis=-1)[..., ::-1]
    ranks = np.empty(ordered.shape)
    np.put_along_axis(ranks, order, (first_place + last_place) / 2, axis=-1)
    return ranks


def _reach(row: str, tasks: Sequence[Task], confidence: float) -> float:
    """Quantile of t with the degrees of freedom of all of the row's seeds; of the normal law for one seed a task."""
    freedom = sum(task.samples[row].seeds - 1 for task in tasks if row in task.samples)
    return float(critical.t_isf((1 - confidence) / 2, freedom if freedom else 1e9))


def _with_spread(observed_K: Floats, drawn_RK: Floats, reach: float | None, bounds: Ends) -> tuple[float, Ends | None]:
    if reach is None:
        return float(observed_K.mean()), None
    mean, half = float(observed_K.mean()), reach * float(drawn_RK.mean(axis=1).std())
    return mean, (max(mean - half, bounds[0]), min(mean + half, bounds[1]))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Runs:
    """The normalised scores of a row's runs: 0 is the trivial row, 1 the best known; a run that failed counts as 0."""

    scores_M: Floats
    weights_M: Floats  # 1 / K for a task, shared by its runs
    task_M: np.ndarray  # which task a run belongs to
    of_seed_K: Floats  # variance of the score of one seed, the range of the task being 1; 0 for one seed
    of_examples_K: Floats
    freedom_K: Floats  # of of_seed_K
    tasks: int

    @classmethod
    def of(cls, row: str, tasks: Sequence[Task], scales: Sequence[tuple[float, float] | None]) -> _Runs | None:
        scores: list[float] = []
        weights: list[float] = []
        at: list[int] = []
        of_seed: list[float] = []
        of_examples: list[float] = []
        freedom: list[float] = []
        for task, scale in zip(tasks, scales, strict=True):
            sample, failed = task.samples.get(row), task.failed.get(row, 0) + task.last.get(row, 0)
            if scale is None or (sample is None and not failed):
                continue
            low, span = scale
            mine = [] if sample is None else list((task.sign * sample.scores_S - low) / span)
            mine += [0.0] * failed
            scores += mine
            weights += [1.0 / len(mine)] * len(mine)
            at += [len(of_seed)] * len(mine)
            of_seed.append(float(np.nan_to_num(sample.of_seeds)) * sample.seeds / span**2 if sample else 0.0)
            of_examples.append(float(np.nan_to_num(sample.of_examples)) / span**2 if sample else 0.0)
            freedom.append(max(sample.seeds - 1.0, 1.0) if sample else 1.0)
        if not of_seed:
            return None
        return cls(
            scores_M=np.array(scores),
            weights_M=np.array(weights) / len(of_seed),
            task_M=np.array(at),
            of_seed_K=np.array(of_seed),
            of_examples_K=np.array(of_examples),
            freedom_K=np.array(freedom),
            tasks=len(of_seed),
        )

    def middle(self) -> Floats:
        """Weight of each run in the interquartile mean: its part between the quarters of the order."""
        order = np.argsort(self.scores_M, kind="stable")
        ends = np.cumsum(self.weights_M[order])
        inside = np.minimum(ends, 0.75) - np.maximum(ends - self.weights_M[order], 0.25)
        weights = np.empty_like(ends)
        weights[order] = np.maximum(inside, 0.0) / 0.5
        return weights

    def iqm(self) -> float:
        """The interquartile mean."""
        return float(self.middle() @ self.scores_M)

    def interval(self, confidence: float) -> Ends | None:
        """By the weights that the runs have in it (the delta method), variances as those of the cells; None if 0."""
        weights = self.middle()
        x_K = self.of_seed_K * np.bincount(self.task_M, weights**2, minlength=self.tasks)
        k = float((self.of_examples_K * np.bincount(self.task_M, weights, minlength=self.tasks) ** 2).sum())
        x = float(x_K.sum())
        if k + x <= 0:
            return None
        freedom = x**2 / float((x_K**2 / self.freedom_K).sum()) if x > 0 else 1.0
        half = float(critical.quantile(confidence, k, x, freedom, 1e9)) * float(np.sqrt(k + x))
        return self.iqm() - half, self.iqm() + half

    def profile(self, confidence: float, draws: int, generator: np.random.Generator) -> Profile:
        """Share of runs above each level; the interval moves each task's runs by the error of its mean."""
        freedom_K = np.array(np.bincount(self.task_M, minlength=self.tasks))
        error_K = np.sqrt(self.of_examples_K + self.of_seed_K / freedom_K)
        moved_RM = self.scores_M + (generator.normal(size=(min(draws, 400), self.tasks)) * error_K)[:, self.task_M]
        tail = (1 - confidence) / 2
        share = np.array([float((self.scores_M > level) @ self.weights_M) for level in LEVELS])
        least, most = moved_RM.min(), moved_RM.max()
        drawn_LR = np.empty((len(LEVELS), len(moved_RM)))
        drawn_LR[least > LEVELS] = np.ones_like(moved_RM) @ self.weights_M
        drawn_LR[most <= LEVELS] = 0.0
        for at in np.flatnonzero((least <= LEVELS) & (most > LEVELS)):
            drawn_LR[at] = (moved_RM > LEVELS[at]) @ self.weights_M
        low, high = np.quantile(drawn_LR, [tail, 1 - tail], axis=1)
        return Profile(share=share, low=np.minimum(low, share), high=np.maximum(high, share))
