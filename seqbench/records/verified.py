"""The verdict of running a record again: `verified.json` beside the record; written by verify, read by boards."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from seqbench.errors import RecordError, printable
from seqbench.record import Code
from seqbench.records.store import NAME as RECORD
from seqbench.records.store import reason_of, write_atomic

NAME = "verified.json"
NAMES = (("", "studies"), ("encoder", "label"), ("task", "label"), ("", "sha256"))  # no part of the run; the seal
Verdict = Literal["identical", "within_tolerance", "different", "impossible"]
PASSED: tuple[Verdict, ...] = ("identical", "within_tolerance")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Compared(_Part):
    """One score, as recorded and as found again."""

    split: str
    metric: str
    recorded: float | None
    again: float | None
    difference: float | None = Field(description="|recorded - again| / max(1, |recorded|); null where one is missing")
    passed: bool


class Verified(_Part):
    """What came of running a record again. It is about what the record says: a record edited since has no verdict."""

    schema_version: Literal[1] = 1
    id: str
    record_sha256: str = Field(description="of record.json when it was verified, names aside (sha256_of)")
    verdict: Verdict
    reason: str = Field(description="one line for people")
    time: str = Field(description="ISO 8601, UTC")
    machine_class: str = Field(description="of the machine that verified")
    same_machine_class: bool
    code: Code = Field(description="that verified; without its single files")
    packages: dict[str, tuple[str, str]] = Field(
        default_factory=dict, description="name -> version recorded, version now; those that differ"
    )
    differences: list[str] = Field(default_factory=list, description="what differs in code, data, environment")
    scores: list[Compared] = Field(default_factory=list)
    rows: int = Field(default=0, description="predictions compared, over all splits")
    rows_moved: int = Field(default=0, description="of them, how many are not the same")
    largest_difference: float | None = Field(default=None, description="of a score, as Compared.difference")
    tolerance: float = Field(description="of a score, where it may differ at all")

    @property
    def passed(self) -> bool:
        """Whether the record's numbers came again."""
        return self.verdict in PASSED


def read(folder: Path, *, name: str = NAME, of: str = RECORD) -> Verified | None:
    """The verdict on the record in a folder; None where there is none, or none about the record as it is now.

    `name` and `of`: the file of the verdict, and that of the record. Raises RecordError for a file that is no verdict.
    """
    if not os.path.lexists(f"{folder}/{name}"):  # most have none, and a board asks for thousands
        return None
    path = folder / name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({reason_of(error)})") from None
    try:
        verified = Verified.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "it"
        raise RecordError(printable(f"{path}: {key}: {first['msg']}; delete it and verify again")) from None
    return verified if verified.record_sha256 == sha256_of(folder / of) else None


def write(folder: Path, verified: Verified, *, name: str = NAME) -> Path:
    """Write the verdict beside its record, atomically. Raises OSError."""
    path = folder / name
    write_atomic(path, (verified.model_dump_json(indent=2) + "\n").encode())
    return path


def sha256_of(path: Path) -> str:
    """Of what a record says, its names aside: studies that ask for it and labels may come later; "" for no record."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return ""
    for place, name in NAMES:
        part = content.get(place) if place else content
        if isinstance(part, dict):
            part.pop(name, None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
