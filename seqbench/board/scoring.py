"""The scores of a column: means over seeds, intervals, what failed."""
# S seeds of a cell, K runs of the column

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np

from seqbench.board import examples as per_example
from seqbench.board import identity
from seqbench.board.costs import cost_lines
from seqbench.board.entries import Entry
from seqbench.board.grouping import Item
from seqbench.board.model import Cell, Column, Run, State
from seqbench.board.statistics import Sample, interval, sample_of
from seqbench.board.text import scale

# What is equal in a fair race; of the trainer what isn't where it runs alone.
RACE = ("protocol", "budget", "optimizer", "schedule", "trainer", "tokenizer", "deterministic", "tune")


def score_column(
    column: Column, there: dict[str, list[Item]], split: str, confidence: float, *, planned: bool
) -> tuple[Column, list[Cell], dict[str, Sample]]:
    """The column with its facts, its cells, one per row, and by row what its scores tell of their error.

    `there` gives the runs and missing cells of each row.
    """
    scored = {row: _scored(items) for row, items in there.items()}
    records = [entry.record for entries in scored.values() for entry in entries]
    if records:
        column = _with_facts(column, records, split)
    cells, samples = [], {}
    for row, items in there.items():
        cell, sample = _cell(row, column, items, scored[row], split, confidence, planned=planned)
        cells.append(cell)
        if sample is not None:
            samples[row] = sample
    return column, cells, samples


def _scored(items: Sequence[Item]) -> list[Entry]:
    """Finished runs in order of seed; the latest where a seed was run more than once."""
    latest: dict[int, Entry] = {}
    for item in items:
        entry = item.entry
        if entry is None or item.run is None or not item.run.counted:
            continue
        other = latest.get(item.seed)
        if other is None or (entry.record.ended, entry.record.id) > (other.record.ended, other.record.id):
            latest[item.seed] = entry
    return [latest[seed] for seed in sorted(latest)]


def _cell(
    row: str,
    column: Column,
    items: Sequence[Item],
    entries: Sequence[Entry],
    split: str,
    confidence: float,
    *,
    planned: bool,
) -> tuple[Cell, Sample | None]:
    """The cell, and its seeds x examples where it has a score."""
    found = [per_example.read(entry, split) for entry in entries]
    runs, reasons = [examples for examples, _ in found], [why for _, why in found]
    values = [_value(entry, split) for entry in entries]
    ended = [item.run for item in items if item.run]
    failures = tuple(run for run in ended if run.record.status != "finished")
    missing = tuple(item.expected for item in items if item.expected)
    records = [entry.record for entry in entries]
    notes = [f"seed {r.seed}: {why}" for r, why in zip(records, reasons, strict=True) if why]
    finished = [run.record for run in ended if run.record.status == "finished"]
    if len(finished) > len(records):
        notes.append(
            f"{len(finished)} finished runs for {len(records)} scored seeds: the latest of each seed is scored"
        )
    if finished and not records:
        notes.append(f"finished, without a score over the {split} split")
    absent: State = "failed" if failures else "not run" if missing or not planned else "not planned"
    make = functools.partial(
        Cell,
        row=row,
        column=column.id,
        seeds=tuple(record.seed for record in records),
        costs=tuple(cost_lines(finished)),
        failures=failures,
        missing=missing,
    )
    if not records:
        return make(state="undefined" if finished else absent, notes=tuple(notes)), None
    scores = [record.scores[split] for record in records]
    examples = max(score[column.metric].n for score in scores)
    metrics = {name: _mean([s[name].value if name in s else None for s in scores]) for name in scores[0]}
    make = functools.partial(make, examples=examples, metrics=metrics)
    mean = _mean(values)
    if mean is None:
        undefined = sum(value is None for value in values)
        notes.append(f"not defined for {undefined} of {len(values)} seeds")
        return make(state="undefined", notes=tuple(notes)), None
    sample = sample_of([value for value in values if value is not None], runs)
    if sample.examples_G is None and any(runs):
        notes.append("the metric is not defined without some of the examples: their part of the interval is not known")
    limits = per_example.bounds(records[0].scores[split][column.metric].target) or _share(column)
    low, high = interval(sample, confidence=confidence, bounds=limits) or (None, None)
    basis = _basis(sample, examples)
    return make(state="scored", mean=mean, low=low, high=high, basis=basis, notes=tuple(notes)), sample


def _share(column: Column) -> tuple[float, float] | None:
    """Bounds of a metric whose class may not be imported: those of a share, if it is shown as one."""
    return (0.0, 1.0) if column.scale.factor == 100.0 else None


def _basis(sample: Sample, examples: int) -> str:
    """What an interval is over."""
    seeds = f"{sample.seeds} seeds" if sample.seeds > 1 else "1 seed"
    if sample.told == sample.seeds:
        return f"{seeds} x {examples} examples" if sample.seeds > 1 else f"1 seed: {examples} examples alone"
    if sample.told:
        return f"{seeds} x {examples} examples, statistics per example for {sample.told} of them"
    if sample.seeds > 1:
        if np.isnan(sample.of_seeds):
            return f"{seeds} of the same score, no statistics per example: no interval"
        return f"{seeds} alone, no statistics per example"
    return "1 seed, no statistics per example: no interval"


def _with_facts(column: Column, records: Sequence[Any], split: str) -> Column:
    """The column with its metric, as most of the records have it."""
    metric = Counter(record.headline for record in records).most_common(1)[0][0]
    scores = [record.scores[split][metric] for record in records if metric in record.scores[split]]
    values = [score.value for score in scores if score.value is not None]
    counts = Counter(score.n for score in scores)
    notices = []
    if len(counts) > 1:
        notices.append(f"{column.label}: not all rows were scored on the same number of examples: {counted(counts)}")
    for key, number in _unequal(records).items():
        notices.append(f"{column.label}: {key} is not the same for all rows: {counted(number)}")
    labels = _labels_a_step(records)
    if labels and max(labels) > 1.1 * min(labels):
        notices.append(
            f"{column.label}: rows were trained on unequal numbers of labels a step, {min(labels):.3g} to"
            f" {max(labels):.3g}: equal steps are not equal teaching"
        )
    machines = Counter(record.environment.machine_class for record in records)
    if len(machines) > 1:
        notices.append(
            f"{column.label}: costs come from {len(machines)} machine classes; compare times, speeds and memory "
            "within one of them only"
        )
    return replace(
        column,
        metric=metric,
        best=scores[0].best,
        scale=scale(scores[0].unit, values, per_example.bounds(scores[0].target) if scores[0].unit == "%" else None),
        examples=counts.most_common(1)[0][0],
        machines=tuple(machine for machine, _ in machines.most_common()),
        notices=(*column.notices, *notices),
    )


def _unequal(records: Sequence[Any]) -> dict[str, Counter[Any]]:
    """Settings of the race that differ down a column, floors aside."""
    trained = [record for record in records if record.encoder.family != "trivial"]
    race = identity.Sections(_race, wanted=RACE.__contains__)
    flats = [race(record.config) for record in trained]
    return {key: Counter(identity.show(flat.get(key), key) for flat in flats) for key in identity.varying(flats)}


def _race(sections: dict[str, Any]) -> identity.Flat:
    return identity.in_force(identity.flatten({key: sections[key] for key in RACE if key in sections}))


def _labels_a_step(records: Sequence[Any]) -> list[float]:
    """Labels that a step's loss was the mean over, of each run that counted them and was trained."""
    return [r.cost.train_items / r.curves[-1].step for r in records if r.cost.train_items and r.curves]


def run_of(item: Item, split: str) -> Run:
    """The record of an item as a run of the board."""
    assert item.entry is not None
    record = item.entry.record
    return Run(
        record=record,
        folder=item.entry.folder,
        row=item.row,
        column=item.column,
        value=_value(item.entry, split) if record.status == "finished" else None,
        counted=record.status == "finished" and per_example.headline(record, split),
    )


def _value(entry: Entry, split: str) -> float | None:
    record = entry.record
    if not per_example.headline(record, split):
        return None
    value = record.scores[split][record.headline or ""].value
    return value if value is not None and np.isfinite(value) else None


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean over seeds; None where a seed has none, because leaving it out would flatter."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def counted(counts: Counter[Any]) -> str:
    """`1000 (8), 2000 (2)`."""
    return ", ".join(f"{value} ({number})" for value, number in counts.most_common())
