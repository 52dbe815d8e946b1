"""What a board starts from: records that were found, and cells that were expected."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqbench.board.statistics import Kept
from seqbench.record import Record


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
