"""Two records of one run, side by side: scores, and predictions row by row; and a record against its own file."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seqbench.record import Record, ScoreFacts
from seqbench.records import predictions
from seqbench.records.verified import Compared
from tasks.base import Task

_Score = ScoreFacts | None
ROUNDING = 1e-9  # an aggregate of stored statistics, computed by another numpy


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Predictions compared."""

    compared: int  # over all splits; 0 where there was nothing to compare with
    moved: int
    same_bytes: bool  # the whole file is the same, statistics included
    first: str | None = None  # the first that moved, for people


class Damaged(Exception):
    """A file beside a record that is not what the record says, in a line."""


def scores(recorded: Record, again: Record, tolerance: float | None) -> list[Compared]:
    """Every score of both, in the record's order; `tolerance` None: to the last bit."""
    found = []
    pairs = [(split, name) for record in (recorded, again) for split, by in record.scores.items() for name in by]
    for split, name in dict.fromkeys(pairs):
        one, other = recorded.scores.get(split, {}).get(name), again.scores.get(split, {}).get(name)
        found.append(_score(split, name, one, other, tolerance))
    return found


def _score(split: str, name: str, one: _Score, other: _Score, tolerance: float | None) -> Compared:
    a, b = one.value if one else None, other.value if other else None
    both = one is not None and other is not None
    difference = None
    if both and a == b:
        difference = 0.0
    elif a is not None and b is not None:
        difference = abs(a - b) / max(1.0, abs(a))
    counted = one is not None and other is not None and one.n == other.n
    passed = counted and difference is not None and difference <= (tolerance or 0.0)
    return Compared(split=split, metric=name, recorded=a, again=b, difference=difference, passed=passed)


def own_predictions(record: Record, folder: Path) -> pa.Table | None:
    """The predictions beside a record, if they are there. Raises Damaged for a file that isn't the record's own."""
    named = record.predictions
    if named is None or not (folder / predictions.NAME).is_file():
        return None
    path = folder / predictions.NAME
    if named.path != predictions.NAME:
        raise Damaged(f"its predictions are said to be in {named.path!r}, not {predictions.NAME}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != named.sha256:
        raise Damaged(f"{predictions.NAME} is not the file that the record names: another sha256 (cut off or edited?)")
    return read(content)


def read(content: bytes) -> pa.Table:
    """A predictions file. Raises Damaged for what is none."""
    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise Damaged(f"{predictions.NAME} can't be read: {str(error).splitlines()[0]}") from None
    missing = {"split", "row", "prediction", "reference"} - set(table.column_names)
    if missing:
        raise Damaged(f"{predictions.NAME} has no column {', '.join(sorted(missing))}")
    return table


def check_scores(record: Record, table: pa.Table, task: Task) -> None:
    """Raise Damaged where the record's scores don't follow from the statistics stored beside it."""
    metrics = {metric.name: metric for metric in task.metrics}
    splits = np.array(table["split"].to_pylist(), dtype=object)
    for split, by in record.scores.items():
        mask = splits == split
        for name, score in by.items():
            if name not in metrics:
                raise Damaged(f"score {split}/{name} is of no metric of the task")
            prefix = f"{name}/"
            columns = [column for column in table.column_names if column.startswith(prefix)]
            stored = {c[len(prefix) :]: table[c].to_numpy(zero_copy_only=False)[mask] for c in columns}
            statistics = {key: values for key, values in stored.items() if not _absent(values)}
            value = metrics[name].aggregate(statistics) if statistics and mask.any() else math.nan
            if score.value is None:
                same = not math.isfinite(value)
            else:
                same = math.isclose(value, score.value, rel_tol=ROUNDING, abs_tol=ROUNDING)
            if not same or score.n != int(mask.sum()):
                raise Damaged(
                    f"score {split}/{name} is {score.value} over {score.n} in the record,"
                    f" but its own predictions give {value} over {int(mask.sum())}: edited"
                )


def _absent(values: np.ndarray[Any, Any]) -> bool:
    """Whether a column is null in all rows: another split's statistic."""
    return bool(len(values)) and values.dtype.kind == "f" and bool(np.isnan(values).all())


def rows(recorded: Record, table: pa.Table | None, again: Record, folder: Path) -> Rows:
    """Predictions of both, row by row; by checksum alone where the recorded ones are not there.

    Files of own data had no lines of their rows once: the checksum of such a one is that of the rest.
    """
    if again.predictions is None or recorded.predictions is None:
        return Rows(compared=0, moved=0, same_bytes=False)
    same = recorded.predictions.sha256 == again.predictions.sha256
    new = read((folder / predictions.NAME).read_bytes())
    if same or (
        table is None and "line" in new.column_names and recorded.predictions.sha256 == predictions.without_lines(new)
    ):
        return Rows(compared=new.num_rows, moved=0, same_bytes=True)
    if table is None:
        return Rows(compared=0, moved=0, same_bytes=False)
    one, other = _by_row(table), _by_row(new)
    moved = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    first = None
    if moved:
        split, row = moved[0]
        first = f"{split} row {row}: {_short(one.get(moved[0]))} -> {_short(other.get(moved[0]))}"
    return Rows(compared=len({**one, **other}), moved=len(moved), same_bytes=False, first=first)


def _by_row(table: pa.Table) -> dict[tuple[str, int], str]:
    keys = zip(table["split"].to_pylist(), table["row"].to_pylist(), strict=True)
    return dict(zip(keys, table["prediction"].to_pylist(), strict=True))


def _short(text: str | None, width: int = 40) -> str:
    if text is None:
        return "none"
    return text if len(text) <= width else text[: width - 3] + "..."
