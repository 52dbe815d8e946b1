"""From records to a board: rows and columns, each column's scores, and the numbers over all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from seqbench.board import accounting, budgets, leaks, marks, tuned
from seqbench.board.entries import Entry, Expected
from seqbench.board.grouping import Item, columns_of, items_of, rows_of, twins
from seqbench.board.model import Board, Column, Row, Run
from seqbench.board.scoring import counted, run_of, score_column
from seqbench.board.summary import Method, summarise

FEW_SEEDS = 5


def build(
    *,
    title: str,
    entries: Sequence[Entry],
    expected: Sequence[Expected] | None,
    left_out: Mapping[tuple[str, str], str] | None = None,
    split: str,
    method: Method,
    notices: Sequence[str] = (),
    known: Mapping[str, float] | None = None,
) -> Board:
    """A board of these records; with `expected`, cells of the plan that have no record are shown as not run.

    `left_out` says by (encoder, task) why the plan has no such cell; `known` has the best published score of tasks.
    """
    items = items_of(entries, expected or ())
    columns = columns_of(items, split)
    rows = rows_of(items)
    built, cells, samples = [], {}, {}
    places: dict[str, dict[str, list[Item]]] = {column.id: {row.id: [] for row in rows} for column in columns}
    runs: list[Run] = []
    for item in items:
        places[item.column][item.row].append(item)
        if item.entry is not None:
            item.run = run_of(item, split)
            runs.append(item.run)
    for column in columns:
        there = places[column.id]
        finished, mine, samples[column.id] = score_column(
            column, there, split, method.confidence, planned=expected is not None
        )
        built.append(finished)
        cells.update({(cell.row, cell.column): cell for cell in mine})
    encoders = {row.id: row.encoder for row in rows}
    tasks = {column.id: column.task for column in built}
    for (row, place), cell in cells.items():
        why = (left_out or {}).get((encoders[row], tasks[place]))
        if why and cell.state in ("not planned", "not run") and not cell.missing:
            cells[row, place] = replace(cell, state="not planned", notes=(why,))
    runs.sort(key=lambda run: (run.column, run.row, run.record.seed))
    counted = [run for run in runs if run.counted]
    scored: dict[tuple[str, str], list[Run]] = {}
    in_column: dict[str, list[Run]] = {column.id: [] for column in built}
    for run in counted:
        scored.setdefault((run.row, run.column), []).append(run)
        in_column[run.column].append(run)
    built = [_accounted(column, in_column[column.id]) for column in built]
    built = [_compared(column, rows, scored) for column in built]
    verdicts = marks.Verdicts()
    for key, group in scored.items():
        if found := marks.of_cell([(run.record, run.folder) for run in group], verdicts, split):
            cells[key] = replace(cells[key], marks=found)
    summary = summarise(rows, built, cells, samples, method, known or {})
    machines = Counter(run.record.environment.machine_class for run in counted)
    return Board(
        title=title,
        split=split,
        confidence=method.confidence,
        comparisons=summary.comparisons,
        columns=tuple(built),
        rows=tuple(summary.rows),
        cells=summary.cells,
        runs=tuple(runs),
        machines=tuple(machine for machine, _ in machines.most_common()),
        notices=(
            *notices,
            *summary.notices,
            *_notices(runs, machines),
            *twins(items),
            *marks.problems(((r.record, r.folder) for r in counted), verdicts),
        ),
    )


def _accounted(column: Column, runs: Sequence[Run]) -> Column:
    """The column with what became of its examples, floors aside (those may have other tokens), and what they leak."""
    records = [run.record for run in runs]
    found = accounting.accounts([r for r in records if r.encoder.family != "trivial"] or records)
    told = [*accounting.notices(found, column.label), *leaks.leaks(runs, column.label)]
    return replace(column, accounts=found, notices=(*column.notices, *told))


def _compared(column: Column, rows: Sequence[Row], scored: Mapping[tuple[str, str], Sequence[Run]]) -> Column:
    """The column with what its rows were given: sizes, budgets, trials; floors aside."""
    mine = {
        row.id: (row.label, records)
        for row in rows
        if not row.trivial and (records := [run.record for run in scored.get((row.id, column.id), ())])
    }
    told = budgets.notices([records for _, records in mine.values()], column.label)
    told += tuned.notices(mine, column.label)
    return replace(column, notices=(*column.notices, *told), trials=tuned.trials(mine))


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
            f"With {len(seeds)} seeds little is known of how much seeds vary; intervals are as wide as that asks for."
        )
    return notices
