"""E2E NLG: attributes of a restaurant, and how people described it."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from tasks.data.base import DataError, Example
from tasks.data.pinned_set import PinnedSet

COLUMNS = ["mr", "ref"]


class E2ENLGSmall(PinnedSet):
    """Novikova et al. 2017 (arXiv 1706.09254), without its training file, so that no figure compares with a paper's.

    Source: attributes, as `name[Alimentum], area[city centre], familyFriendly[no]`; target: a description. A source
    comes as often as it has descriptions, and in one split alone. `train`: the set's validation file but for the last
    tenth of its 547 sources, which is `valid`; `test`: the set's own. `descriptions`: of each source so many,
    the first ones, are left in `valid` and `test`; null: all. Raises DataError for a row that is no pair.
    """

    pinned: ClassVar[str] = "e2e_nlg"
    modality = "text"

    def __init__(self, *, descriptions: Annotated[int, Field(gt=0)] | None) -> None:
        self.descriptions = descriptions

    def read(self, split: str) -> Sequence[Example]:
        """Pairs in the order of the file."""
        if split == "test":
            return self._first(_pairs(self.located()["testset_w_refs.csv"]))
        pairs = _pairs(self.located()["devset.csv"])
        every = list(dict.fromkeys(pair.source for pair in pairs))
        first = set(every[: len(every) * 9 // 10])
        if split == "train":
            return [pair for pair in pairs if pair.source in first]
        return self._first([pair for pair in pairs if pair.source not in first])

    def _first(self, pairs: list[Example]) -> list[Example]:
        """The first descriptions of each source."""
        if self.descriptions is None:
            return pairs
        seen: Counter[str] = Counter()
        kept = []
        for pair in pairs:
            seen[pair.source] += 1
            if seen[pair.source] <= self.descriptions:
                kept.append(pair)
        return kept


def _pairs(path: Path) -> list[Example]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        if next(rows, None) != COLUMNS:
            raise DataError(f"{path.name} line 1: the columns should be {', '.join(COLUMNS)}")
        pairs = []
        for row in rows:
            if len(row) != len(COLUMNS):
                raise DataError(f"{path.name} line {rows.line_num}: {len(row)} columns, 2 were expected")
            pairs.append(Example(source=row[0], target=row[1]))
    return pairs
