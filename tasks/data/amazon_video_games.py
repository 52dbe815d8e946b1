"""Amazon Video Games: the items that each user reviewed, in order of time, the last two held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.data.base import DataError, Example
from tasks.data.leave_one_out import leave_one_out
from tasks.data.pinned_set import PinnedSet


class AmazonVideoGames(PinnedSet):
    """Leave one out, a row a user, as in the code of SASRec, whose file it is (Kang and McAuley 2018, 1808.09781).

    `source` is the user's items before the target, (L,) int64 numbers of the file (1 to 23,715), `target` the number of
    an item. `core` leaves out the reviews of items that have fewer than so many, and numbers the others anew, in order
    of the file's numbers: 3,375 items at 20. At 1 all are there.
    """

    pinned: ClassVar[str] = "amazon-video-games"
    modality = "items"
    overlap: ClassVar[str] = (
        "a user's rows are beginnings of one history, and short ones of different users are the same"
    )

    def __init__(self, *, core: Annotated[int, Field(gt=0)]) -> None:
        self.core = core

    def read(self, split: str) -> Sequence[Example]:
        """A row a user, users by number."""
        return leave_one_out(read_histories(self.located()["Video.txt"], core=self.core), split)


def read_histories(path: Path, *, core: int) -> list[NDArray[np.int64]]:
    """Items of each user in order of the file. Raises DataError for a line that is no two numbers from 1."""
    lines = path.read_text(encoding="utf-8").splitlines()
    cells = [line.split() for line in lines]
    wrong = next((i for i, cell in enumerate(cells) if len(cell) != 2 or not all(map(str.isdecimal, cell))), None)
    if wrong is not None or not cells:
        raise DataError(f"amazon-video-games: {path.name} line {(wrong or 0) + 1} is not `user item`")
    rows = np.array(cells, dtype=np.int64)
    user_N, item_N = rows.T
    kept = np.bincount(item_N)[item_N] >= core
    user_N, item_N = user_N[kept], item_N[kept]
    if core > 1:
        item_N = np.unique(item_N, return_inverse=True)[1] + 1
    order = np.argsort(user_N, kind="stable")
    starts = np.unique(user_N[order], return_index=True)[1]
    return np.split(item_N[order], starts[1:])
