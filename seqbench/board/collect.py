"""From a results folder to records: each read once, what can't be read told instead of hidden."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqbench.board.index import FOLDER
from seqbench.board.reading import Found, read_many
from seqbench.board.statistics import Kept
from seqbench.errors import RecordError
from seqbench.record import Record
from seqbench.store import NAME, Store

LEFT_OUT = "Left out: "  # begins the notice of a record that can't be read


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A record and the folder that holds it."""

    record: Record
    folder: Path
    told: tuple[Kept | None, str | None] | None = None  # as examples.read says, where an index knows it


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


def read(
    results: Path, ids: Iterable[str] | None = None, *, split: str = "test", index: bool = False
) -> tuple[list[Entry], list[str]]:
    """Records under `results` (of these ids, if given), sorted by id, and a sentence for each that can't be read.

    With `index` they are read by way of `<results>/.index/`, which gives the same faster, for a board over `split`. The
    sentences name files relative to `results`: a board shows no path of the machine that made it.
    """
    store = Store(results)
    if ids is None:
        with contextlib.suppress(OSError):
            ids = os.listdir(results)
    names = sorted({*(ids or ())} - {FOLDER})
    found: dict[str, Found] = {}
    if index:
        reading = read_many(results, names, split)
        found, names = reading.found, reading.rest
    told = []
    for name in names:
        path = store.folder(name) / NAME
        try:
            if path.exists():
                found[name] = Found(store.own(path), None)
        except RecordError as error:
            told.append(str(error))
    entries = [
        Entry(record=one.record, folder=store.folder(name), told=one.told) for name, one in sorted(found.items())
    ]
    return entries, [f"{LEFT_OUT}{text.replace(f'{results}/', '')}" for text in told]
