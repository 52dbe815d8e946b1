"""Problems of the UCR and UEA archives: whole series to classify, from .ts files."""
# L steps, C channels

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from tasks.data.base import DataError, DataSet, Example, FileFact
from tasks.data.pinned import check_files, identity

CARD = "ucr-uea-small"


class TimeSeriesArchive(DataSet):
    """Dau et al. 2019; Bagnall et al. 2018 (arXiv 1811.00075). Source: (L, C) float32. Target: class name.

    The archive's training and test parts. It has no validation part, and its problems are too small to give one up:
    `valid` is the training part once more, so nothing can be selected on it: a run needs
    `budget.select=last`.
    """

    modality = "time series"
    independent_valid = False
    overlap: ClassVar[str] = "valid is train once more: the archive has no validation part"

    def __init__(
        self,
        *,
        problem: Literal[
            "ArrowHead",
            "BasicMotions",
            "Coffee",
            "ECG200",
            "FaceFour",
            "GunPoint",
            "ItalyPowerDemand",
            "JapaneseVowels",
            "Lightning7",
            "PLAID",
            "PickupGestureWiimoteZ",
            "Plane",
        ],
    ) -> None:
        self.files = {
            "train": f"{problem}_TRAIN.ts",
            "valid": f"{problem}_TRAIN.ts",
            "test": f"{problem}_TEST.ts",
        }

    def identity(self) -> list[FileFact]:
        """The problem's two files."""
        return identity(CARD, only=set(self.files.values()))

    def check(self) -> None:
        """They are there, or are fetched, with the right checksum."""
        check_files(CARD, only=set(self.files.values()))

    def read(self, split: str) -> Sequence[Example]:
        """Series in the order of the file."""
        name = self.files[split]
        return read_ts(check_files(CARD, only=[name])[name])


def read_ts(path: Path) -> list[Example]:
    """Examples of a .ts file: after `@data` a line each, channels apart by ":", the class last.

    Raises DataError with the line of the first that is broken.
    """
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    start = next((i for i, line in enumerate(lines) if line.strip().lower() == "@data"), None)
    if start is None:
        raise DataError(f"{CARD}: {path.name} has no line @data")
    examples: list[Example] = []
    for number, line in enumerate(lines[start + 1 :], start + 2):
        if not line.strip():
            continue
        *channels, label = line.strip().split(":")
        try:
            series = np.array([[float(value) for value in channel.split(",")] for channel in channels], np.float32).T
        except ValueError:
            raise DataError(f"{CARD}: {path.name} line {number}: not lists of numbers of one length") from None
        if not channels or not label or not np.isfinite(series).all():
            raise DataError(f"{CARD}: {path.name} line {number}: needs finite numbers, then `:` and a class")
        examples.append(Example(source=np.ascontiguousarray(series), target=label))
    return examples
