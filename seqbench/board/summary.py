"""What the cells of a board say together: who is tied, which places are possible, how rows stand over all tasks."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from seqbench.board.aggregates import Standing, Task, standings
from seqbench.board.comparisons import Pairs, compare, level_of, places
from seqbench.board.critical import holm
from seqbench.board.model import Cell, Column, Row
from seqbench.board.statistics import Sample, unrounded

Cells = dict[tuple[str, str], Cell]
ONE_SEED = "one seed each: differences are between these trained models; another seed may turn them"
Samples = Mapping[str, Mapping[str, Sample]]  # by column, then row


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """How uncertainty is computed: `draws` and `seed` are for the intervals of ranks, win rates and profiles alone."""

    confidence: float
    draws: int
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """Rows in order, cells with their ties, and what a reader has to know."""

    rows: list[Row]
    cells: Cells
    comparisons: int
    notices: list[str]


def summarise(
    rows: Sequence[Row],
    columns: Sequence[Column],
    cells: Cells,
    samples: Samples,
    method: Method,
    known: Mapping[str, float],
) -> Summary:
    """Compare all rows of each column, correct over the board, then aggregate; `known` has published bests by task."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # numpy leaves others to work
        of_pairs = functools.partial(compare, confidence=method.confidence)
        found_pairs = pool.map(of_pairs, [list(samples[column.id].values()) for column in columns])
        pairs = {column.id: each for column, each in zip(columns, found_pairs, strict=True)}
    every = np.concatenate([pairs[column.id].upper() for column in columns]) if columns else np.empty(0)
    adjusted, start, marked = holm(every), 0, dict(cells)
    for column in columns:
        size = len(pairs[column.id].upper())
        _mark(marked, column, samples[column.id], pairs[column.id], adjusted[start : start + size], method)
        start += size
    contestants = [row.id for row in rows if not row.trivial]
    floors = [row.id for row in rows if row.trivial]
    tasks = [_task(c, marked, samples[c.id], pairs[c.id], contestants, floors, known.get(c.task)) for c in columns]
    found = standings(contestants, tasks, confidence=method.confidence, draws=method.draws, seed=method.seed)
    placed = sum(bool(task.samples) for task in tasks)
    done = [_with_standing(row, found.get(row.id), columns, marked, placed) for row in rows]
    done.sort(key=lambda r: (r.trivial, r.partial, np.inf if r.mean_rank is None else r.mean_rank, r.label))
    return Summary(
        rows=done,
        cells=marked,
        comparisons=int(np.isfinite(every).sum()),
        notices=[*_one_seed(pairs, samples), *_notices(tasks, done, placed)],
    )


def _mark(
    cells: Cells,
    column: Column,
    samples: Mapping[str, Sample],
    pairs: Pairs,
    adjusted: np.ndarray,
    method: Method,
) -> None:
    """Best and tied cells of a column, and the places that each may have."""
    if not samples:
        return
    names, count = list(samples), len(samples)
    adjusted_CC = np.full((count, count), np.nan)
    adjusted_CC[np.triu_indices(count, 1)] = adjusted
    adjusted_CC = np.where(np.isnan(adjusted_CC), adjusted_CC.T, adjusted_CC)
    sign = 1.0 if column.best == "max" else -1.0
    mean_C = sign * unrounded(np.array([sample.mean for sample in samples.values()]))
    best = max(range(count), key=lambda c: (mean_C[c], samples[names[c]].examples_G is not None))
    level = level_of(method.confidence)
    possible = places(pairs, adjusted_CC, best=column.best, level=level)
    for c, name in enumerate(names):
        p = adjusted_CC[best, c]
        both = c != best and not np.isnan(p) and samples[name].seeds == samples[names[best]].seeds == 1
        cells[name, column.id] = replace(
            cells[name, column.id],
            basis=f"{cells[name, column.id].basis}. To the best, {ONE_SEED}" if both else cells[name, column.id].basis,
            best=c == best,
            tied=not p <= level,  # NaN, where nothing is known of the error, tells nothing apart
            difference=None if c == best else float(pairs.difference_CC[c, best]),
            difference_interval=None if c == best else _ends(pairs, c, best),
            p=None if c == best or np.isnan(p) else float(p),
            places=possible[c],
        )


def _ends(pairs: Pairs, a: int, b: int) -> tuple[float, float] | None:
    low, high = float(pairs.low_CC[a, b]), float(pairs.high_CC[a, b])
    return (low, high) if np.isfinite(low) and np.isfinite(high) else None


def _task(
    column: Column,
    cells: Cells,
    samples: Mapping[str, Sample],
    pairs: Pairs,
    contestants: Sequence[str],
    floors: Sequence[str],
    known: float | None,
) -> Task:
    among, places_of = set(contestants), {row: at for at, row in enumerate(samples)}
    mine = [row for row in samples if row in among]
    at = [places_of[row] for row in mine]
    sign = 1.0 if column.best == "max" else -1.0
    trivial = [sign * samples[row].mean for row in floors if row in samples]
    failed = {row: _failed(cells[row, column.id]) for row in contestants if (row, column.id) in cells}
    last = {
        row: max(count, 1) for row, count in failed.items() if row not in samples and _is_last(cells[row, column.id])
    }
    return Task(
        label=column.label,
        sign=sign,
        samples={row: samples[row] for row in mine},
        last=last,
        failed={row: failed[row] for row in mine},
        examples_CC=pairs.examples_CC[np.ix_(at, at)],
        floor=sign * max(trivial) if trivial else None,
        known=known,
    )


def _failed(cell: Cell) -> int:
    """Runs that failed of themselves: an interrupted one is as good as not run."""
    return sum(run.record.status != "interrupted" for run in cell.failures)


def _is_last(cell: Cell) -> bool:
    """Whether a cell without a score ranks last: it failed, or its score is not defined; not: it was not run."""
    return (cell.state == "failed" and _failed(cell) > 0) or (cell.state == "undefined" and cell.examples is not None)


def _with_standing(row: Row, standing: Standing | None, columns: Sequence[Column], cells: Cells, placed: int) -> Row:
    mine = [cells[row.id, column.id] for column in columns]
    scored = sum(cell.mean is not None for cell in mine)
    if standing is None:
        return replace(row, tasks=scored)
    told = []
    if standing.tasks < placed:
        told.append(f"{standing.tasks} of {placed} tasks")
    failed = sum(cell.mean is None and _is_last(cell) for cell in mine)
    if failed:
        told.append(f"{failed} failed")
    hurt = sum(cell.mean is not None and _failed(cell) > 0 for cell in mine)
    if hurt:
        told.append(f"seeds failed on {hurt}")
    return replace(
        row,
        mean_rank=standing.rank,
        rank_interval=standing.rank_interval,
        win_rate=standing.win,
        win_interval=standing.win_interval,
        iqm=standing.iqm,
        iqm_interval=standing.iqm_interval,
        iqm_tasks=standing.iqm_tasks,
        profile=standing.profile,
        tasks=scored,
        partial=standing.tasks < placed,
        told=tuple(told),
    )


def _one_seed(pairs: Mapping[str, Pairs], samples: Samples) -> list[str]:
    """How many comparisons say nothing of seeds."""
    number = every = 0
    for column, found in pairs.items():
        one_C = np.array([sample.seeds == 1 for sample in samples[column].values()], dtype=bool)
        compared_CC = np.triu(np.isfinite(found.p_CC), 1)
        number += int((compared_CC & one_C[:, None] & one_C[None, :]).sum())
        every += int(compared_CC.sum())
    return [f"In {number} of {every} comparisons the rows have {ONE_SEED}."] if number else []


def _notices(tasks: Sequence[Task], rows: Sequence[Row], placed: int) -> list[str]:
    notices = []
    outside = [task for task in tasks if task.samples and task.normalised() is None]
    without = [task.label for task in outside if task.floor is None]
    under = [task.label for task in outside if task.floor is not None]
    if without and len(without) < placed:
        notices.append(f"Not in the interquartile mean, for want of a trivial row: {', '.join(without)}.")
    elif without:
        floors = [row.label for row in rows if row.trivial]
        why = f"no trivial row has a score yet ({', '.join(floors)})" if floors else "no task has a trivial row"
        notices.append(f"No interquartile mean: {why}{'' if floors else ' (encoder=majority, repeat_last)'}.")
    if under:
        notices.append(
            f"Not in the interquartile mean, since no row is better than the trivial one: {', '.join(under)}."
        )
    partial = [row.label for row in rows if row.partial]
    if partial:
        notices.append(
            f"Rows without a place in some tasks stand below the others; compare their ranks with care: "
            f"{', '.join(partial)}."
        )
    return notices
