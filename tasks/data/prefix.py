"""The beginnings of another data set's test sources: how early does a model that is trained on whole ones know?"""
# L positions

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field

from tasks.data.base import DataError, DataSet, Example
from tasks.data.derived import Derived


class Prefix(Derived):
    """Another data set; of each test source the first `share` of its positions (rounded up), and all for training.

    `limit` positions are a whole source where it is longer (a task's `max_length`, which cuts it anyway); null: none.
    With `of=limit` the share is of these, whatever a source's length, as for a model that hears a window of fixed size:
    shorter ones are whole then. Positions of text are its words, parted by white space. So a run for each share shows
    what a model knows after it, with the weights of one training (`test_only`). Raises ValueError for data with
    streams, DataError for pairs.
    """

    test_only = MappingProxyType({"share": 1.0, "of": "source"})

    def __init__(
        self,
        *,
        data: DataSet,
        share: Annotated[float, Field(gt=0, le=1)],
        of: Literal["source", "limit"],
        limit: Annotated[int, Field(gt=0)] | None,
    ) -> None:
        if of == "limit" and limit is None:
            raise ValueError("of: limit, with limit null; give the number of positions that a whole source has")
        if data.streams:
            raise ValueError(f"data: its streams ({', '.join(sorted(data.streams))}) can't be cut with the source")
        super().__init__(data)
        self.share, self.of, self.limit = share, of, limit

    def read(self, split: str) -> Sequence[Example]:
        """Examples of the other one; those of the test split cut."""
        examples = self.data.read(split)
        if split != "test" or (self.share == 1 and self.limit is None):
            return examples
        return [
            replace(example, source=self._cut(example.source, example.place(split, row)))
            for row, example in enumerate(examples)
        ]

    def _cut(self, source: Any, place: str) -> Any:
        if isinstance(source, tuple):
            raise DataError(f"{place}: a pair has no beginning; tasks.data.prefix.Prefix takes single sources")
        if isinstance(source, str):
            words = source.split()
            return " ".join(words[: self._kept(len(words))]) if self._kept(len(words)) < len(words) else source
        return source[: self._kept(len(source))]

    def _kept(self, length: int) -> int:
        """At least 1, but of nothing; exact where the share of a whole number is one (0.7 of 10)."""
        whole = length if self.limit is None else min(length, self.limit)
        of = self.limit if self.of == "limit" and self.limit is not None else whole
        return min(whole, math.ceil(round(self.share * of, 9)))
