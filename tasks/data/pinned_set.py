"""A data set whose files all come from pinned addresses: what is the same for each of them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from tasks.data.base import DataSet, FileFact
from tasks.data.pinned import check_files, identity


class PinnedSet(DataSet):
    """All files of one card (`tasks/data/cards/<pinned>.yaml`)."""

    pinned: ClassVar[str]  # name of the card

    def identity(self) -> list[FileFact]:
        """The files of the card."""
        return identity(self.pinned)

    def check(self) -> None:
        """They are there, or are fetched, with the right checksum. Raises DataError."""
        self.located()

    def located(self) -> dict[str, Path]:
        """Where each file lies, checked."""
        return check_files(self.pinned)
