"""Leave one out: the last item of each user's history is for testing, the one before it for validation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from tasks.data.base import Example

HELD_OUT = {"train": 3, "valid": 2, "test": 1}  # the target is the item that far from the end
LEAST = 3  # items of a user of whom two can be held out


def leave_one_out(histories: Iterable[NDArray[Any]], split: str) -> list[Example]:
    """The rows of a split (Kang and McAuley 2018, arXiv 1808.09781, section IV-A, and their code).

    Source: (L,) items in order of time, at least one; target: the item after them. A user of three items and more is a
    row of valid and of test, and one of train if there are two items left for it; a user of two is of train alone.
    """
    rows = []
    for items in histories:
        whole = len(items) < LEAST
        back = 1 if whole else HELD_OUT[split]
        if len(items) > back and not (whole and split != "train"):
            rows.append(Example(source=items[:-back], target=int(items[-back])))
    return rows
