"""Toy data that tells which of its splits were read, and can refuse its test split."""

from __future__ import annotations

from typing import ClassVar

from tasks.data.base import DataError, Example
from tests.seqbench.toy import ToyData


class Watched(ToyData):
    """Writes down which split is read; the test split is a trap where `trap` says so."""

    read_so_far: ClassVar[list[str]] = []
    trap: ClassVar[bool] = False

    def read(self, split: str) -> list[Example]:
        """As ToyData."""
        self.read_so_far.append(split)
        if split == "test" and self.trap:
            raise DataError("task.data: the test split was touched")
        return super().read(split)
