"""Many records at once: from the index where it knows them, the others from their files, in processes where many."""
# n entries, W pieces of a record at most

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqbench.board import examples
from seqbench.board.index import ABSENT, SETTLED, SHARDS, Builder, Index, Ints, Shard, Stat, joined, shard_of, stat_of
from seqbench.board.statistics import Kept
from seqbench.cores import at_once, shares, workers
from seqbench.record import Record
from seqbench.records.pieces import Curve, NotOurs, Values
from seqbench.records.store import NAME

PREDICTIONS = "predictions.parquet"
CHUNK = 256  # records that are worth a process of their own
NOT_LOOKED: Stat = (-1, -1, -1, -1)  # at predictions that nobody needs


@dataclass(frozen=True, slots=True)
class Found:
    """A record and what is known of its examples; None where that was not asked yet."""

    record: Record
    told: tuple[Kept | None, str | None] | None


@dataclass(frozen=True, slots=True)
class Reading:
    """Records by the name of their folder, and the folders whose record has to be read whole."""

    found: dict[str, Found]
    rest: list[str]
    indexed: int  # of the records, how many came from the index


def read_many(results: Path, names: Sequence[str], split: str) -> Reading:
    """The records of these folders, for a board over a split. What is wrong with the rest, reading them whole tells."""
    index = Index(results, split)
    started: int | None = None
    with contextlib.suppress(OSError):  # a folder that can't be written to has no index
        started = index.started()
    wanted, there = set(names), Values()
    found: dict[str, Found] = {}
    valid: dict[int, tuple[Shard, Ints]] = {}
    changed: set[int] = set()
    for number, shard in index.load():
        rows = _valid_rows(results, shard)
        if len(rows) < len(shard.names):
            changed.add(number)
        valid[number] = (shard, rows)
        found |= decode(shard, [int(row) for row in rows if shard.names[row] in wanted], split, there)
    indexed = len(found)
    unread = [name for name in names if name not in found]
    made = _encode_all(results, unread, split)
    for shard in made:
        found |= decode(shard, range(len(shard.names)), split, there)
    if started is not None and (made or changed):
        with contextlib.suppress(OSError):
            _save(index, valid, made, changed, started)
    return Reading(found=found, rest=[name for name in unread if name not in found], indexed=indexed)


def leave(results: Path, names: Sequence[str], split: str) -> set[str]:
    """Put records that were written since into the index, file by file of it and without a look at the others there.

    Returns those that it has now: not what is no record that can be read, nor what is too young. Raises OSError.
    """
    index = Index(results, split)
    started = index.started()
    made = encode(results, names, split)
    replaced, there = set(made.names), set()
    for number, rows in _by_file(made, started).items():
        before = index.read(number)
        kept = [row for row, name in enumerate(before.names) if name not in replaced] if before is not None else []
        chosen = [(before, np.array(kept, dtype=np.int64))] if before is not None else []
        index.save(number, joined([*chosen, (made, np.array(rows, dtype=np.int64))]))
        there |= {made.names[row] for row in rows}
    return there


def decode(shard: Shard, rows: Sequence[int], split: str, there: Values) -> dict[str, Found]:
    """Entries as records. Pieces that several have are made once, column by column."""
    found: dict[str, Found] = {}
    rows_n = np.asarray(rows, dtype=np.int64)
    for number, layout in enumerate(shard.layouts):
        mine = rows_n[shard.layout_n[rows_n] == number]
        columns: list[list[Any]] = []
        for place, name in enumerate(layout):
            parts, which = np.unique(shard.refs_nW[mine, place], return_inverse=True)
            value = Curve if name == "curves" else functools.partial(there.value, name)
            values = [value(shard.parts[part]) for part in parts.tolist()]
            columns.append([values[i] for i in which.tolist()])
        for row, its in zip(mine.tolist(), zip(*columns, strict=True), strict=True):
            record = there.record(layout, its)
            group = record.splits[split].sha256 if split in record.splits else ""
            found[shard.names[row]] = Found(record, shard.told(row, group))
    return found


def _valid_rows(results: Path, shard: Shard) -> Ints:
    """Entries whose two files are as they were."""
    root = str(results)
    now = np.empty_like(shard.stats_n8)
    looked = (shard.stats_n8[:, 4] != NOT_LOOKED[0]).tolist()
    for row, name in enumerate(shard.names):
        now[row, :4] = _stat(f"{root}/{name}/{NAME}")
        now[row, 4:] = _stat(f"{root}/{name}/{PREDICTIONS}") if looked[row] else NOT_LOOKED
    return np.flatnonzero((now == shard.stats_n8).all(axis=1))


def _stat(path: str) -> Stat:
    try:
        return stat_of(os.stat(path))
    except OSError:
        return ABSENT


def _encode_all(results: Path, names: Sequence[str], split: str) -> list[Shard]:
    """Entries of records that are read now; those that can't be are left out."""
    runs = shares(names, workers(len(names) // CHUNK))
    return at_once([functools.partial(encode, results, run, split) for run in runs]) if names else []


def encode(results: Path, names: Sequence[str], split: str) -> Shard:
    """Entries of the records in these folders; one that can't be cut into pieces is left out."""
    there, builder = Values(), Builder()
    for name in names:
        folder = results / name
        try:
            with open(folder / NAME, "rb") as file:
                mark = stat_of(os.fstat(file.fileno()))
                content = file.read()
            layout, pieces, record = there.read(content)
        except (OSError, NotOurs):
            continue
        if record.id != name or (record.predictions is not None and record.predictions.path != PREDICTIONS):
            continue
        told, predictions = None, NOT_LOOKED
        if examples.headline(record, split) and record.status == "finished":
            data: bytes | None = None
            predictions = ABSENT
            with contextlib.suppress(OSError), open(folder / PREDICTIONS, "rb") as file:
                predictions = stat_of(os.fstat(file.fileno()))
                data = file.read() if record.predictions is not None else None
            told = examples.of(record, data, split)
        builder.add(name, (mark, predictions), layout, pieces, told)
    return builder.shard()


def _save(
    index: Index, valid: dict[int, tuple[Shard, Ints]], made: Sequence[Shard], changed: set[int], started: int
) -> None:
    """Put new entries into the index, and take out those of files that are others by now."""
    rows: dict[int, list[tuple[Shard, list[int]]]] = {}
    for shard in made:
        for number, each in _by_file(shard, started).items():
            rows.setdefault(number, []).append((shard, each))
    for number in range(SHARDS):
        if number not in rows and number not in changed:
            continue
        chosen = [valid[number]] if number in valid else []
        chosen += [(shard, np.array(each, dtype=np.int64)) for shard, each in rows.get(number, [])]
        index.save(number, joined(chosen))


def _by_file(shard: Shard, started: int) -> dict[int, list[int]]:
    """Entries that the index may have, of files old enough by then, by the file of it."""
    latest = np.maximum(shard.stats_n8[:, 2:4].max(axis=1), shard.stats_n8[:, 6:8].max(axis=1))
    rows: dict[int, list[int]] = {}
    for row in np.flatnonzero(latest < started - SETTLED).tolist():
        rows.setdefault(shard_of(shard.names[row]), []).append(row)
    return rows
