"""Finished records put into an object store, each once: `<mirror>/<id>/`, whole as soon as its record.json is there.

Runs go on in the results folder, whose locks a store does not have. What was put is told by comparing the record's
bytes with those in the store, so that whatever is missing is put by the same command again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from seqbench.errors import RecordError
from seqbench.record import Record
from seqbench.records import verified
from seqbench.records.address import is_local, opened, reason_of
from seqbench.records.claim import Claimed, claim
from seqbench.records.fetch import PREDICTIONS
from seqbench.records.store import NAME, Store
from seqbench.training.standing import UNDONE

WEIGHTS, TRACE = "weights.safetensors", "error.log"
TOGETHER = 256  # records that are asked for at once


@dataclasses.dataclass
class _Mirror:
    """An address, opened when something is to be done there."""

    system: Any
    root: str
    local: bool

    def contents(self, names: Iterable[str]) -> dict[str, bytes]:
        """What is there of some files, by name. Raises what the driver does, but for files that are not there."""
        paths = {self.system._strip_protocol(f"{self.root}/{name}"): name for name in names}
        found = self.system.cat(list(paths), on_error="return") if paths else {}
        there = {}
        for path, content in found.items():
            if isinstance(content, bytes):
                there[paths[path]] = content
            elif not isinstance(content, FileNotFoundError):
                raise content
        return there

    def put(self, file: Path) -> None:
        """A file of a run; on a disk under another name first, since there a reader may see half of one."""
        path = f"{self.root}/{file.parent.name}/{file.name}"
        if not self.local:
            self.system.put_file(str(file), path)
            return
        aside = f"{self.root}/{file.parent.name}/.{file.name}.tmp"
        self.system.put_file(str(file), aside)
        self.system.mv(aside, path)

    def put_record(self, folder: Path, record: Record, there: Mapping[str, bytes]) -> None:
        """A run's files, the record last; one that is there and another goes first."""
        verdict = folder / verified.NAME
        if there.get(f"{folder.name}/{NAME}") != (folder / NAME).read_bytes():
            if f"{folder.name}/{NAME}" in there:
                self.system.rm_file(f"{self.root}/{folder.name}/{NAME}")
            for file in parts(folder, record):
                self.put(file)
            self.put(folder / NAME)
        elif verdict.is_file() and there.get(f"{folder.name}/{verdict.name}") != verdict.read_bytes():
            self.put(verdict)


def parts(folder: Path, record: Record) -> list[Path]:
    """The files that belong to a record, itself aside: not checkpoints, loggers' files, what its jobs have printed."""
    named = {
        PREDICTIONS: record.predictions is not None,
        WEIGHTS: record.checkpoint is not None,
        TRACE: record.status == "failed",
        verified.NAME: True,
    }
    return [folder / name for name, belongs in named.items() if belongs and (folder / name).is_file()]


def bring(results: Path, ids: Iterable[str], address: str) -> str | None:
    """Put those of some records that the mirror lacks or has otherwise; None, or a line about what could not be put.

    Left aside: runs without a record, with one that can't be read, that are to go on, or that another process is at.
    """
    store, records = Store(results), []
    for this in dict.fromkeys(ids):
        try:
            record = store.find(this)
        except RecordError:
            continue  # whoever asked for the run is told
        if record is not None and record.status not in UNDONE:
            records.append(record)
    done = 0
    try:
        mirror = _Mirror(*opened(address), is_local(address)) if records else None
        for start in range(0, len(records), TOGETHER):
            some = records[start : start + TOGETHER]
            assert mirror is not None
            judged = [record.id for record in some if (store.folder(record.id) / verified.NAME).is_file()]
            names = [f"{record.id}/{NAME}" for record in some] + [f"{this}/{verified.NAME}" for this in judged]
            there = mirror.contents(names)
            for record in some:
                try:
                    with claim(store.folder(record.id)):
                        mirror.put_record(store.folder(record.id), record, there)
                except Claimed:
                    pass  # it will put what it makes
                done += 1
    except Exception as error:  # a driver's own, of any kind; the records are safe where they are
        left = records[done:]
        which = f"record {left[0].id}" if len(left) == 1 else f"{len(left)} of {len(records)} records"
        return (
            f"mirror: {which} could not be put into {address} ({reason_of(error)});"
            f" nothing is lost, all is in {results}: the same command again puts it there"
        )
    return None
