"""A submitted batch of cells on disk: `results/slurm/<batch>/`, and which job a cell's folder waits for.

    cells.json      the cells' checked configs, frozen when they were submitted; plain JSON, nothing is unpickled
    job.sh, job     the batch script; the job's id, as soon as it is known
    3.log           what cell 3 printed, all its starts
    3.json          that cell 3 began, or how its job ended

Beside a cell's record, `job.json` names batch and index.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from seqbench.config import Names, RunConfig, check_config
from seqbench.errors import RecordError
from seqbench.records.store import Store, write_atomic
from seqbench.studies.study import Cell

FOLDER, CELLS, JOB, TICKET = "slurm", "cells.json", "job", "job.json"
PREFIX = "seqbench-"  # of a job's name


class Outcome(BaseModel):
    """What a cell's job has said of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: Literal["began", "end", "not run", "elsewhere", "stop", "interrupted", "bug"]
    line: str = ""
    started: str = ""  # its last start, ISO 8601


class Frozen(BaseModel):
    """A cell as its job needs it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    config: dict[str, Any]
    names: dict[str, Any]
    overrides: list[str]


class _Cells(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    asked: float  # when the command was given, in seconds of the system's clock
    requeues: int
    cells: list[Frozen]


@dataclass(frozen=True)
class Batch:
    """The folder of a batch. Constructing one touches nothing."""

    folder: Path

    @property
    def name(self) -> str:
        """The job's name, which no other job has: jobs are asked for by it, so one whose id was lost is found, too."""
        return PREFIX + self.folder.name

    @classmethod
    def make(cls, results: Path, cells: Sequence[Cell], requeues: int) -> Batch:
        """A new one with its cells, each of which is given its ticket. Raises OSError."""
        token = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        batch = cls(results.resolve() / FOLDER / token)
        batch.folder.mkdir(parents=True)
        frozen = [
            Frozen(
                id=cell.id,
                config=cell.config.resolved(),
                names=cell.config.names.model_dump(),
                overrides=cell.config.overrides,
            )
            for cell in cells
        ]
        content = _Cells(asked=cells[0].config.asked, requeues=requeues, cells=frozen)
        write_atomic(batch.folder / CELLS, content.model_dump_json().encode())
        for index, cell in enumerate(cells):
            folder = Store(cell.config.results).folder(cell.id)
            folder.mkdir(parents=True, exist_ok=True)
            ticket = {"batch": os.path.relpath(batch.folder, folder.resolve()), "index": index}
            write_atomic(folder / TICKET, (json.dumps(ticket) + "\n").encode())
        return batch

    def withdraw(self, cells: Sequence[Cell]) -> None:
        """Remove it and the tickets: nothing was submitted."""
        for cell in cells:
            folder = Store(cell.config.results).folder(cell.id)
            with contextlib.suppress(OSError):
                (folder / TICKET).unlink(missing_ok=True)
                folder.rmdir()  # where nothing else is
        shutil.rmtree(self.folder, ignore_errors=True)

    @cached_property
    def _read(self) -> _Cells:
        path = self.folder / CELLS
        try:
            return _Cells.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise RecordError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None

    @property
    def since(self) -> str:
        """When it was made, as records have it."""
        when = datetime.strptime(self.folder.name[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
        return when.isoformat(timespec="seconds")

    @property
    def requeues(self) -> int:
        """How often a cell may be queued again for want of time."""
        return self._read.requeues

    def cell(self, index: int) -> tuple[str, RunConfig]:
        """A cell's id and config, as they were when it was submitted. Raises RecordError, ConfigError."""
        if not 0 <= index < len(self._read.cells):
            raise RecordError(
                f"{self.folder / CELLS}: has no cell {index}, its cells are 0 to {len(self._read.cells) - 1}"
            )
        cell = self._read.cells[index]
        names = Names.model_validate(cell.names)
        config = check_config(cell.config, names, cell.overrides, allowed=cell.config["allowed"], found=True)
        return cell.id, config.asked_at(self._read.asked)

    def log(self, index: int) -> Path:
        """What a cell prints."""
        return self.folder / f"{index}.log"

    @property
    def job(self) -> str | None:
        """The id of its job array; None where it isn't known (yet)."""
        with contextlib.suppress(OSError):
            return (self.folder / JOB).read_text().strip() or None
        return None

    def submitted(self, job: str) -> None:
        """Note the id of its job array. Raises OSError."""
        write_atomic(self.folder / JOB, f"{job}\n".encode())

    def outcome(self, index: int) -> Outcome | None:
        """What a cell's job has said; None for nothing, or nothing that can be read."""
        try:
            return Outcome.model_validate_json((self.folder / f"{index}.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def say(self, index: int, outcome: Outcome) -> None:
        """Write what a cell's job says. Raises OSError."""
        write_atomic(self.folder / f"{index}.json", outcome.model_dump_json().encode())


@dataclass(frozen=True, slots=True)
class Ticket:
    """Which batch and index a cell waits for, or waited."""

    batch: Batch
    index: int

    @property
    def key(self) -> tuple[str, int]:
        """As the queue knows it."""
        return self.batch.name, self.index

    @property
    def id(self) -> str:
        """`job 12_3`, as far as it is known."""
        return f"job {self.batch.job}_{self.index}" if self.batch.job else f"{self.batch.name}, task {self.index}"

    @property
    def log(self) -> str:
        """Where its output is, as seen from the working directory."""
        return os.path.relpath(self.batch.log(self.index))


def ticket_of(cell: Cell) -> Ticket | None:
    """The last job that a cell was given to; None where there was none, or what is there can't be read."""
    folder = Store(cell.config.results).folder(cell.id)
    try:
        found = json.loads((folder / TICKET).read_bytes())
        return Ticket(Batch((folder / str(found["batch"])).resolve()), int(found["index"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
