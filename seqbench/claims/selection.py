"""From a selector to runs: the cells of a plan whose configs say so, with their records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, get_args

from seqbench.board.entries import Entry
from seqbench.claims.sheet import Selector
from seqbench.errors import ConfigError
from seqbench.record import Cost, Record
from seqbench.studies.study import Cell

ABSENT = object()
ALONG = "along"  # the x of a curve along a sequence


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A cell of the claim's study, and its record where it has run."""

    cell: Cell
    config: Mapping[str, Any]  # resolved
    entry: Entry | None

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.cell.config.seed

    @property
    def finished(self) -> bool:
        """Whether it has scores."""
        return self.entry is not None and self.entry.record.status == "finished"

    def at(self, key: str) -> Any:
        """The value of a config key, `encoder` and `task` by name; ABSENT where there is none."""
        if key == "encoder":
            return self.cell.names.encoder
        if key == "task":
            return self.cell.names.task
        found: Any = self.config
        for name in key.split("."):
            if not isinstance(found, Mapping) or name not in found:
                return ABSENT
            found = found[name]
        return found


def chosen(runs: Sequence[Run], selector: Selector, *, where: str) -> list[Run]:
    """Runs that a selector names, in order of seed. Raises ConfigError where there are none: it names what is there."""
    found = [run for run in runs if all(_same(run.at(key), value) for key, value in selector.items())]
    if not found:
        raise ConfigError(f"{where}: no run of the study has {_told(runs, selector)}")
    return sorted(found, key=lambda run: run.seed)


def _same(found: Any, asked: Any) -> bool:
    if isinstance(found, bool) or isinstance(asked, bool) or found is None or asked is None:
        return found is asked
    return bool(found == asked)


def _told(runs: Sequence[Run], selector: Selector) -> str:
    """The first key of the selector that nothing meets, and the values that there are."""
    for key, value in selector.items():
        there = {str(run.at(key)) for run in runs if run.at(key) is not ABSENT}
        if not any(_same(run.at(key), value) for run in runs):
            return f"{key}={value}; it has {', '.join(sorted(there)) or 'no such key'}"
    return " and ".join(f"{key}={value}" for key, value in selector.items()) + " together"


def check(of: str, run: Run) -> None:
    """Raise ConfigError for a metric or a cost that a run cannot have, before it is run."""
    from seqbench.build import build_task

    part, _, name = of.partition("/")
    if part == "encoder":
        return  # what an encoder tells of itself is known once it is trained
    if part == "cost":
        model: Any = Cost
        for key in name.split("."):
            fields = getattr(model, "model_fields", {})
            if key not in fields:
                raise ConfigError(
                    f"{of}: a record's cost has no {key}; it has {', '.join(fields or Cost.model_fields)}"
                )
            model = next((part for part in get_args(fields[key].annotation) if hasattr(part, "model_fields")), None)
        if model is not None:
            raise ConfigError(f"{of}: is no number; it has {', '.join(model.model_fields)}")
        return
    metrics = [metric.name for metric in build_task(run.cell.config).metrics]
    if name not in metrics:
        raise ConfigError(f"{of}: {run.cell.names.task} has no such metric; it has {', '.join(metrics)}")


def quantity(record: Record, of: str) -> float | None:
    """`test/accuracy` or `cost/latency.p50_ms` of a record; None where it was not measured or is not defined.

    `check` says whether the record can have it.
    """
    part, _, name = of.partition("/")
    found: Any
    if part == "encoder":
        found = record.encoder.told.get(name)
    elif part == "cost":
        found = record.cost
        for key in name.split("."):
            found = None if found is None else getattr(found, key)
    else:
        score = record.scores.get(part, {}).get(name)
        found = None if score is None else score.value
    return None if found is None or not isfinite(found) else float(found)


def along(record: Record, of: str) -> list[tuple[float, float]]:
    """Of `test/word_accuracy`, say, its parts: the share of a sequence that has come when each ends, and its score."""
    split, _, name = of.partition("/")
    score = record.scores.get(split, {}).get(name)
    parts = [] if score is None else score.along
    return [((k + 1) / len(parts), y) for k, y in enumerate(parts) if y is not None]
