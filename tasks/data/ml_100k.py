"""MovieLens 100K: the films that each user rated, in order of time, the last two held out."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.data.base import DataError, DataSet, Example, FileFact
from tasks.data.leave_one_out import leave_one_out
from tasks.data.pinned import check_files, identity

FILE = "ml-100k.inter"
COLUMNS = ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]


class ML100K(DataSet):
    """Leave one out, a row a user (Kang and McAuley 2018, arXiv 1808.09781, section IV-A): 943 rows in each split.

    `source` is the user's films before the target, (L,) int64 film numbers of the file (1 to 1,682), `target` a film
    number: the user's last one in test, the one before in valid, the one before that in training (whose rows are whole
    histories: a task makes more of them). Every rating counts as an interaction, whatever its value; no user and no
    film is left out. Order: timestamp; of equal ones (half of all rows) the order in the file. Users by number.
    """

    modality = "items"

    def __init__(self) -> None:
        pass

    def identity(self) -> list[FileFact]:
        """The one file that is read."""
        return identity("ml-100k", only=[FILE])

    def check(self) -> None:
        """Fetch or check the file."""
        check_files("ml-100k", only=[FILE])

    def read(self, split: str) -> Sequence[Example]:
        """A row a user."""
        return leave_one_out(read_histories(check_files("ml-100k", only=[FILE])[FILE]).values(), split)


def read_histories(path: Path) -> dict[int, NDArray[np.int64]]:
    """Films of each user in order of time, by user number. Raises DataError for another header or a cell of text."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if (header := next(reader, [])) != COLUMNS:
            raise DataError(f"ml-100k: {path.name} has columns {header}; expected {COLUMNS}")
        try:
            rows = np.array([[float(cell) for cell in row] for row in reader], dtype=np.float64).reshape(-1, 4)
        except ValueError as error:
            raise DataError(f"ml-100k: {path.name}: {error}") from None
    user_N, item_N, time_N = rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64), rows[:, 3]
    order = np.lexsort((np.arange(len(rows)), time_N, user_N))
    users, starts = np.unique(user_N[order], return_index=True)
    return dict(zip(users.tolist(), np.split(item_N[order], starts[1:]), strict=True))
