"""From a results folder to records: each read once, what can't be read told instead of hidden."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqbench.errors import RecordError
from seqbench.record import Record
from seqbench.store import NAME, Store
from seqbench.store import read as read_record

LEFT_OUT = "Left out: "  # begins the notice of a record that can't be read


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A record and the folder that holds it."""

    record: Record
    folder: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """A cell of a study's plan, run or not."""

    id: str
    task: str  # config file name
    column: str  # what the board calls it
    encoder: str  # config file name
    label: str  # what the board calls it
    seed: int
    config: dict[str, Any]  # resolved


def read(results: Path, ids: Iterable[str] | None = None) -> tuple[list[Entry], list[str]]:
    """Records under `results` (of these ids, if given), sorted by id, and a sentence for each that can't be read.

    The sentences name files relative to `results`: a board shows no path of the machine that made it.
    """
    store = Store(results)
    if ids is None:
        records, damages = store.all()
        told = [damage.reason for damage in damages]
    else:
        records, told = [], []
        for run_id in sorted(set(ids)):
            path = store.folder(run_id) / NAME
            try:
                if path.is_file():
                    records.append(read_record(path))
            except RecordError as error:
                told.append(str(error))
    entries = [Entry(record=record, folder=store.folder(record.id)) for record in records]
    return entries, [f"{LEFT_OUT}{text.replace(f'{results}/', '')}" for text in told]
