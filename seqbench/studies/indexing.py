"""What a sweep leaves for the board after it: entries of its records in `<results>/.index`.

Reading ten thousand records takes a board half a minute, and the process that waits for their runs has the time. It
changes nothing else: whatever goes wrong is told at debug level alone, and what has no entry is read by the board.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from seqbench.board.sources import checksum

SPLIT = "test"  # that of a board, unless another is asked for
EVERY, PART = 256, 16  # new records, or that part of those left before, which the files of the index are written for


class Leaving:
    """Leaves entries of cells' records, now and then as they end, the rest when told to."""

    def __init__(self, results: Mapping[str, Path]) -> None:
        """`results` has the folder of each cell, by id."""
        checksum()  # of the code as it is now: it may be edited while a sweep goes on
        self._results = results
        self._ended: set[str] = set()  # and have no entry yet
        self._since = 0  # how many of them since it was tried
        self._left: set[str] = set()

    def ended(self, this: str) -> None:
        """A cell has ended, with a record or without."""
        self._ended.add(this)
        self._since += 1
        if self._since >= max(EVERY, len(self._left) // PART):
            self._leave(sorted(self._ended))
            self._since = 0

    def rest(self) -> None:
        """All have ended."""
        self._leave([this for this in self._results if this not in self._left])

    def _leave(self, ids: Sequence[str]) -> None:
        folders: dict[Path, list[str]] = {}
        for this in ids:
            if (folder := self._results[this]).is_dir():
                folders.setdefault(folder, []).append(this)
        try:
            from seqbench.board.reading import leave

            for folder, names in folders.items():
                self._left |= leave(folder, names, SPLIT)
        except Exception:  # a sweep is not to fail for want of a cache
            logging.getLogger(__name__).debug("no index is left in %s", [*map(str, folders)], exc_info=True)
        self._ended -= self._left
