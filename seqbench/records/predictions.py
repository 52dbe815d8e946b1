"""Predictions and statistics of every example, one Parquet file a run: what tests of significance need."""
# N examples of a split

from __future__ import annotations

import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqbench.record import Artefact
from seqbench.records.store import write_atomic

if TYPE_CHECKING:  # provenance needs none of torch
    import pyarrow as pa

    from tasks.base import Score, Task

NAME = "predictions.parquet"
LARGE = 256  # numbers of an array; above, its checksum stands for it (a forecast of ETTh1 has 672, a split 2,785 rows)


def write(
    folder: Path, task: Task, predictions: Mapping[str, Mapping[int, Any]], scores: Mapping[str, Mapping[str, Score]]
) -> Artefact:
    """Write the file and say where it is. Same predictions, same bytes. Raises OSError.

    Columns: split, row (int64), prediction and reference (JSON), and `<metric>/<statistic>` (float64) for each
    statistic of each metric; null where a split has no such statistic (a count of a class that it lacks). Splits one
    after the other, rows in the order of the split. Of a user's own data also `line` (int64), in the split's file: its
    name is no part of it, so that a renamed file gives the same bytes.
    """
    import pyarrow as pa  # not above: a board from its index needs none of it

    tables = []
    for split, by_row in predictions.items():
        references = task.references(split)
        columns: dict[str, Any] = {
            "split": pa.array([split] * len(references), pa.string()),
            "row": pa.array(np.arange(len(references), dtype=np.int64)),
            "prediction": pa.array([to_json(by_row[row]) for row in range(len(references))], pa.string()),
            "reference": pa.array([to_json(reference) for reference in references], pa.string()),
        }
        examples = task.examples[split]
        if len(examples) == len(references) and examples[0].line is not None:
            columns["line"] = pa.array([example.line for example in examples], pa.int64())
        for name, score in scores[split].items():
            for statistic, values in score.statistics.items():
                columns[f"{name}/{statistic}"] = pa.array(np.asarray(values, dtype=np.float64))
        tables.append(pa.table(columns))
    content = _bytes(pa.concat_tables(tables, promote_options="default"))
    write_atomic(folder / NAME, content)
    return Artefact(path=NAME, sha256=hashlib.sha256(content).hexdigest())


def without_lines(table: pa.Table) -> str:
    """Checksum of the file as it was before rows of own data had their lines: all else is in it."""
    import pyarrow as pa

    table = table.select([name for name in table.column_names if name != "line"]).combine_chunks()
    counts = Counter(table["split"].to_pylist())  # in the file's order; each is a piece of its own, as `write` has it
    starts = [0, *accumulate(counts.values())]
    pieces = [table.slice(start, count) for start, count in zip(starts, counts.values(), strict=False)]
    return hashlib.sha256(_bytes(pa.concat_tables(pieces))).hexdigest()


def _bytes(table: pa.Table) -> bytes:
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def one_class(task: Task, predictions: Mapping[str, Mapping[int, Any]]) -> dict[str, str]:
    """By split the class that a task of classes predicted for every example, where the split has several."""
    if not task.names_a_class:
        return {}
    found = {split: {str(one) for one in by_row.values()} for split, by_row in predictions.items()}
    return {
        split: min(each) for split, each in found.items() if len(each) == 1 and len(set(task.references(split))) > 1
    }


def to_json(value: Any) -> str:
    """A prediction or reference as compact JSON; numbers that are not finite become null."""
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)


def _plain(value: Any) -> Any:
    if hasattr(value, "detach"):  # a tensor
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        if value.size > LARGE:
            return {"sha256": array_sha256(value), "shape": list(value.shape)}
        value = value.tolist()
    elif isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"a prediction or reference of type {type(value).__name__} cannot be written as JSON")


def array_sha256(array: np.ndarray[Any, Any]) -> str:
    """Checksum of an array's type, shape and numbers (little endian, C order)."""
    array = np.ascontiguousarray(array)
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes()).hexdigest()
