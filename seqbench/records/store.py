"""Records on disk: `results/<id>/record.json`, each written whole or not at all, each read strictly."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from seqbench.errors import RecordError, Unwritable, printable
from seqbench.record import SCHEMA_VERSION, Record

NAME = "record.json"
ID = re.compile(r"[0-9a-f]{16}")  # of runs, as seqbench.records.identity makes them
AGAIN = "delete its folder, or make it anew with rerun=always"
_OBJECT = pydantic.TypeAdapter(dict[str, object])


@dataclass(frozen=True, slots=True)
class Damage:
    """A record that cannot be read, and why, in a sentence."""

    path: Path
    reason: str


class Store:
    """A folder of records. Constructing one touches nothing."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def folder(self, run_id: str) -> Path:
        """Where the run keeps everything: record, predictions, weights, checkpoints, logs."""
        return self.root / run_id

    def find(self, run_id: str) -> Record | None:
        """The record of a run; None where there is none. Raises RecordError for one that is damaged or not its own."""
        if not os.path.isfile(f"{self.root}/{run_id}/{NAME}"):  # a plan asks for thousands: no Path for each
            return None
        return self.own(self.folder(run_id) / NAME)

    def written(self, run_id: str) -> float:
        """When a record was written, in seconds of the system's clock; 0 where there is none."""
        try:
            return (self.folder(run_id) / NAME).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    @staticmethod
    def own(path: Path) -> Record:
        """The record in a file. Raises RecordError for one that is damaged or in a folder of another name."""
        record = read(path)
        if record.id != path.parent.name:
            text = f"{path}: is the record of {record.id}, in a folder of another name; {AGAIN}"
            raise RecordError(printable(text))
        return record

    def all(self) -> tuple[list[Record], list[Damage]]:
        """Every record, ordered by id, and every file that should be one and cannot be read: none is skipped."""
        records, damages = [], []
        for path in sorted(self.root.glob(f"*/{NAME}")):
            try:
                records.append(self.own(path))
            except RecordError as error:
                damages.append(Damage(path, str(error)))
        return records, damages

    def write(self, record: Record) -> Path:
        """Write a record, atomically. Raises OSError; what was there before then still is."""
        path = self.folder(record.id) / NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, sealed(record))
        return path

    def check_writable(self) -> None:
        """Raise RecordError where no record could be written. Makes the folder, leaves nothing else."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise Unwritable(
                f"results: {self.root} cannot be written to ({reason_of(error)}); choose another folder: results=FOLDER"
            ) from None


def sealed(record: Record) -> bytes:
    """A record as it is written: JSON, with the checksum of all the rest in `sha256`."""
    seal = _seal(json.loads(record.model_dump_json()))
    return (record.model_copy(update={"sha256": seal}).model_dump_json(indent=2) + "\n").encode()


def _seal(content: dict[str, Any]) -> str:
    """sha256 of canonical JSON without `sha256`: of what the file says, not of later fields' defaults."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read(path: Path) -> Record:
    """The record in a file.

    Raises RecordError: unreadable, not JSON, of another schema version, a field too many, edited since it was written.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordError(printable(f"{path}: cannot be read ({reason_of(error)})")) from None
    try:
        record = Record.model_validate_json(content)
    except pydantic.ValidationError as error:
        raise RecordError(printable(f"{path}: {_what_is_wrong(content, error)}")) from None
    if "schema_version" not in record.model_fields_set or record.schema_version != SCHEMA_VERSION:
        raise RecordError(printable(f"{path}: {_what_is_wrong(content, None)}"))
    if record.sha256 is not None and record.sha256 != _seal(json.loads(content)):
        raise RecordError(printable(f"{path}: was edited after it was written (its checksum is another); {AGAIN}"))
    return record.model_copy(update={"sha256": None})


def _what_is_wrong(content: bytes, error: pydantic.ValidationError | None) -> str:
    """Why the content is no record of ours: parsed again, which only damaged ones are."""
    try:
        version = _OBJECT.validate_json(content).get("schema_version")
    except pydantic.ValidationError:
        return f"is no JSON object (cut off?); {AGAIN}"
    if version != SCHEMA_VERSION or error is None:
        return (
            f"has schema_version {version}, this SeqBench reads {SCHEMA_VERSION};"
            " use the SeqBench that wrote it, or run the cell again"
        )
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"has a field {key!r} that this SeqBench does not know; update it"
    return f"{key}: {first['msg']}"


def write_atomic(path: Path, content: bytes) -> None:
    """Temporary file beside it, fsync, rename: a reader sees the old file or the new one, never half of one.

    Raises OSError and then leaves no temporary file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def reason_of(error: OSError) -> str:
    """The system's words for what went wrong, without path and number."""
    return (error.strerror or str(error)).lower()
