"""Splits that the user has, and splits that are cut from the training part because the user has none."""
# N examples

from __future__ import annotations

import hashlib
import json
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.data.base import SPLITS, DataError, DataSet, Example


class OwnData(DataSet):
    """A user's own data: a place for training, and for validation and test a place or None.

    Where there is none, a share of the training part is cut out: of its N different sources, ordered by a hash of the
    source and `split_seed`, the first `test_share` N (rounded, at least one) test, the next `valid_share` N validate.
    So rows with equal sources fall on the same side, and the order of the rows doesn't matter.
    """

    modality = "text"
    overlap = "a user's own splits are taken as they are"

    def __init__(
        self, *, places: Mapping[str, str | None], valid_share: float, test_share: float, split_seed: int
    ) -> None:
        cut = {"test": test_share, "valid": valid_share}
        self.places = {split: place and os.path.expanduser(place) for split, place in places.items()}
        self.shares = {split: share for split, share in cut.items() if self.places[split] is None}
        if sum(self.shares.values()) >= 1:
            raise ValueError(f"valid_share: with test_share it takes {sum(self.shares.values()):g}; keep below 1")
        for split, share in self.shares.items():
            if share <= 0:
                raise ValueError(f"{split}_share: {share:g}, but {split} is null; give {split} a place or a share")
        self.split_seed = split_seed
        self._train: dict[str, list[Example]] | None = None

    @abstractmethod
    def load(self, split: str, place: str) -> list[Example]:
        """All examples at a place, in its order."""

    def read(self, split: str) -> Sequence[Example]:
        """The examples of a split, in the order of their place. Raises DataError for malformed content."""
        place = self.places[split]
        if split != "train" and place is not None:
            return self.load(split, place)
        if self._train is None:
            train = self.places["train"]
            assert train is not None
            self._train = self._cut(self.load("train", train))
        return self._train[split]

    def _cut(self, examples: list[Example]) -> dict[str, list[Example]]:
        keys = [_key(example.source, self.split_seed) for example in examples]
        order = sorted(set(keys))
        if self.shares and len(order) < len(self.shares) + 1:
            missing = " and ".join(self.shares)
            raise DataError(
                f"task.data.train: {os.path.basename(self.places['train'] or '')} has {len(order)} different"
                f" source{'s' if len(order) > 1 else ''}, too few to cut {missing} out; add rows, or a file for each:"
                f" {' '.join(f'task.data.{split}=...' for split in self.shares)}"
            )
        side: dict[str, str] = {}
        start = 0
        for split, share in self.shares.items():
            number = max(1, round(share * len(order)))
            side |= dict.fromkeys(order[start : start + number], split)
            start += number
        parts: dict[str, list[Example]] = {split: [] for split in SPLITS}
        for key, example in zip(keys, examples, strict=True):
            parts[side.get(key, "train")].append(example)
        return parts


def _key(source: Any, seed: int) -> str:
    text = json.dumps([seed, source], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
