"""The statistics per example of a run, read from the Parquet file beside its record."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from seqbench.board.statistics import Examples, Floats, Kept
from seqbench.record import Record

if TYPE_CHECKING:
    from seqbench.board.entries import Entry

PREFIX = "tasks.metrics."


def read(entry: Entry, split: str, metric: str | None = None) -> tuple[Examples | Kept | None, str | None]:
    """Statistics of a metric (None: the headline one) over the split, or None and a sentence that says why not.

    They are used only if the file is the one that the record names (sha256) and if they give the recorded score
    again; so an interval never belongs to other predictions than its score.
    """
    if entry.told is not None and metric in (None, entry.record.headline):
        return entry.told
    data: bytes | None = None
    if entry.record.predictions is not None:
        with contextlib.suppress(OSError):
            data = (entry.folder / entry.record.predictions.path).read_bytes()
    return of(entry.record, data, split, metric)


def of(record: Record, data: bytes | None, split: str, metric: str | None = None) -> tuple[Examples | None, str | None]:
    """As read, of the bytes of the predictions file; None where there is none that can be read."""
    if record.predictions is None:
        return None, "the record names no predictions file"
    name = metric or record.headline or ""
    score = record.scores[split][name]
    if data is None:
        return None, f"{record.predictions.path} is missing"
    if hashlib.sha256(data).hexdigest() != record.predictions.sha256:
        return None, f"{record.predictions.path} is not the file that the record names (its sha256 differs)"
    values = _columns(data, split, name)
    if isinstance(values, str):
        return None, values
    if len(next(iter(values.values()))) != score.n:
        return None, f"the predictions have other rows than the {score.n} that were scored"
    group = record.splits[split].sha256 if split in record.splits else ""
    found = Examples(values=values, aggregate=None, group=group)
    mean = set(values) == {"value"} and _equal(found.score(), score.value)
    if not mean:
        kind = metric_class(score.target)
        if kind is None:
            return None, f"the metric {score.target} is not one of {PREFIX}*, so it isn't imported"
        found = Examples(values=values, aggregate=kind().aggregate, group=group)
        try:
            again = found.score()
        except (KeyError, ValueError) as error:
            return None, f"the statistics are not those of {score.target}: {error}"
        if not _equal(again, score.value):
            return None, f"the statistics give {again:.6g}, the record says {score.value}"
    return found, None


@cache
def metric_class(target: str) -> Any:
    """The class of a metric by its dotted name, or None: nothing outside of `tasks.metrics` is ever imported."""
    from tasks.metrics.base import Metric

    module, _, name = target.rpartition(".")
    if not module.startswith(PREFIX) or not all(part.isidentifier() for part in target.split(".")):
        return None
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
    return found if isinstance(found, type) and issubclass(found, Metric) else None


def bounds(target: str) -> tuple[float, float] | None:
    """Least and greatest value of a metric, where its class may be imported."""
    metric = metric_class(target)
    return None if metric is None else (float(metric.bounds[0]), float(metric.bounds[1]))


def _columns(data: bytes, split: str, metric: str) -> dict[str, Floats] | str:
    """Columns `<metric>/<statistic>` of the split's rows in order of `row`, each (N,); or what is wrong."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = [name for name in file.schema_arrow.names if name.startswith(f"{metric}/")]
        if not names or not {"split", "row"} <= set(file.schema_arrow.names):
            return f"the predictions hold no statistics of {metric}"
        table = file.read(columns=["split", "row", *names], use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        return f"the predictions can't be read: {error}"
    mine = np.flatnonzero(pc.equal(table["split"], split).to_numpy())
    rows = table["row"].to_numpy()[mine]
    order = mine[np.argsort(rows, kind="stable")]
    if not np.array_equal(np.sort(rows), np.arange(len(rows))):
        return f"the {split} rows of the predictions are not 0 to {len(rows) - 1}, each once"
    if not len(rows):
        return f"the predictions have no {split} rows"
    return {name.split("/", 1)[1]: table[name].to_numpy().astype(np.float64)[order] for name in names}


def _equal(again: float, recorded: float | None) -> bool:
    if recorded is None:
        return not np.isfinite(again)
    return bool(np.isclose(again, recorded, rtol=1e-6, atol=1e-9))


def headline(record: Record, split: str) -> bool:
    """Whether the record holds a headline score over the split."""
    return record.headline is not None and record.headline in record.scores.get(split, {})
