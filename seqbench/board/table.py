"""From records to a board: rows and columns, each column's scores, and the numbers over all of them."""
# C rows that compete, K columns

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from seqbench.board import accounting, marks
from seqbench.board.collect import Entry, Expected
from seqbench.board.grouping import Item, columns_of, items_of, rows_of
from seqbench.board.model import Board, Cell, Column, Row, Run
from seqbench.board.ranks import mean_ranks, win_rates
from seqbench.board.scoring import counted, run_of, score_column
from seqbench.board.statistics import Bootstrap
from seqbench.record import Record

FEW_SEEDS = 5


def build(
    *,
    title: str,
    entries: Sequence[Entry],
    expected: Sequence[Expected] | None,
    left_out: Mapping[tuple[str, str], str] | None = None,
    split: str,
    bootstrap: Bootstrap,
    notices: Sequence[str] = (),
) -> Board:
    """A board of these records; with `expected`, cells of the plan that have no record are shown as not run.

    `left_out` says by (encoder, task) why the plan has no such cell.
    """
    items = items_of(entries, expected or ())
    columns = columns_of(items, split)
    rows = rows_of(items)
    built, cells = [], {}
    for column in columns:
        there: dict[str, list[Item]] = {row.id: [] for row in rows}
        for item in items:
            if item.column == column.id:
                there[item.row].append(item)
        finished, mine = score_column(column, there, split, bootstrap, planned=expected is not None)
        built.append(finished)
        cells.update({(cell.row, cell.column): cell for cell in mine})
    encoders = {row.id: row.encoder for row in rows}
    tasks = {column.id: column.task for column in built}
    for (row, place), cell in cells.items():
        why = (left_out or {}).get((encoders[row], tasks[place]))
        if why and cell.state in ("not planned", "not run") and not cell.missing:
            cells[row, place] = replace(cell, state="not planned", notes=(why,))
    runs = [run_of(item, split) for item in items if item.entry]
    runs.sort(key=lambda run: (run.column, run.row, run.record.seed))
    counted = [run for run in runs if run.counted]
    built = [_accounted(column, [r.record for r in counted if r.column == column.id]) for column in built]
    scored: dict[tuple[str, str], list[Run]] = {}
    for run in counted:
        scored.setdefault((run.row, run.column), []).append(run)
    for key, group in scored.items():
        cells[key] = replace(cells[key], marks=marks.of_cell([(run.record, run.folder) for run in group]))
    machines = Counter(run.record.environment.machine_class for run in counted)
    return Board(
        title=title,
        split=split,
        confidence=bootstrap.confidence,
        resamples=bootstrap.resamples,
        seed=bootstrap.seed,
        columns=tuple(built),
        rows=tuple(_ranked(rows, built, cells)),
        cells=cells,
        runs=tuple(runs),
        machines=tuple(machine for machine, _ in machines.most_common()),
        notices=(*notices, *_notices(runs, machines), *marks.problems((r.record, r.folder) for r in counted)),
    )


def _accounted(column: Column, records: Sequence[Record]) -> Column:
    """The column with what became of its examples, floors aside: those may have other tokens."""
    found = accounting.accounts([r for r in records if r.encoder.family != "trivial"] or records)
    told = accounting.notices(found, column.label)
    return replace(column, accounts=found, notices=(*column.notices, *told))


def _ranked(rows: Sequence[Row], columns: Sequence[Column], cells: dict[tuple[str, str], Cell]) -> list[Row]:
    """Rows with mean rank and win rate, complete ones first, floors last."""
    contestants = [row for row in rows if not row.trivial]
    goodness_CK = np.array(
        [[_goodness(cells[row.id, column.id], column) for column in columns] for row in contestants], dtype=np.float64
    ).reshape(len(contestants), len(columns))
    ranks, wins = mean_ranks(goodness_CK), win_rates(goodness_CK)
    numbers = {row.id: (_or_none(r), _or_none(w)) for row, r, w in zip(contestants, ranks, wins, strict=True)}
    done = []
    for row in rows:
        rank, win = numbers.get(row.id, (None, None))
        scored = sum(cells[row.id, column.id].mean is not None for column in columns)
        done.append(replace(row, mean_rank=rank, win_rate=win, tasks=scored))
    return sorted(done, key=lambda r: (r.trivial, -r.tasks, np.inf if r.mean_rank is None else r.mean_rank, r.label))


def _goodness(cell: Cell, column: Column) -> float:
    if cell.mean is None:
        return float("nan")
    return cell.mean if column.best == "max" else -cell.mean


def _notices(runs: Sequence[Run], machines: Counter[str]) -> list[str]:
    notices = []
    sources = Counter(run.record.code.source_sha256[:8] for run in runs)
    if len(sources) > 1:
        notices.append(f"The runs come from {len(sources)} versions of the code: {counted(sources)}.")
    dirty = sum(bool(run.record.code.dirty) for run in runs)
    if dirty:
        notices.append(f"{dirty} of {len(runs)} runs had changes that were not committed.")
    if len(machines) > 1:
        notices.append(f"The runs come from {len(machines)} machine classes; their times and memory are kept apart.")
    beside = Counter(run.record.environment.jobs for run in runs if run.counted and run.record.environment.jobs > 1)
    if beside:
        number = sum(beside.values())
        who = "1 run had others beside it on its" if number == 1 else f"{number} runs had others beside them on their"
        notices.append(
            f"{who} machine ({max(beside)} jobs at once): latencies, speeds and wall times depend on what those did."
        )
    seeds = Counter(run.record.seed for run in runs if run.counted)
    if 1 < len(seeds) < FEW_SEEDS:
        notices.append(
            f"With {len(seeds)} seeds the part of an interval that comes from seeds is an estimate from few; "
            "read it as a lower bound."
        )
    return notices


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
