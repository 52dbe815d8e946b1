"""Another data set with fewer training examples: what is learnt from a tenth of the labels?"""
# N training examples

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from tasks.data.base import DataSet, Example
from tasks.data.derived import Derived


class Fewer(Derived):
    """Another data set, of whose training examples a `share` is left; validation and test are as they are.

    Of the N of each class (text, whole number, true or false; of all together where targets are no such) round(share N)
    stay, one at least, in their order: the first by a hash of their row and `draw`. So a smaller share is part of a
    larger one of the same draw, and another draw leaves others.
    """

    def __init__(
        self, *, data: DataSet, share: Annotated[float, Field(gt=0, le=1)], draw: Annotated[int, Field(ge=0)]
    ) -> None:
        super().__init__(data)
        self.share, self.draw = share, draw

    def read(self, split: str) -> Sequence[Example]:
        """Examples of the other one; of the training split those that are left."""
        examples = self.data.read(split)
        if split != "train" or self.share == 1:
            return examples
        classes: dict[object, list[int]] = {}
        for row, example in enumerate(examples):
            one = example.target if isinstance(example.target, str | int) else None
            classes.setdefault(one, []).append(row)
        kept: set[int] = set()
        for rows in classes.values():
            kept.update(sorted(rows, key=self._place)[: max(1, round(self.share * len(rows)))])
        return [example for row, example in enumerate(examples) if row in kept]

    def _place(self, row: int) -> str:
        return hashlib.sha256(f"{self.draw} {row}".encode()).hexdigest()
