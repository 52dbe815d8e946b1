"""From a results folder to records: each read once, what can't be read told instead of hidden."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from seqbench.board.entries import Entry
from seqbench.board.index import FOLDER
from seqbench.board.reading import Found, read_many
from seqbench.errors import RecordError
from seqbench.records.store import NAME, Store

LEFT_OUT = "Left out: "  # begins the notice of a record that can't be read


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
