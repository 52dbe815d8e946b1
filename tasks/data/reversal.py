"""Words backwards: a target as long as its source, where nothing is to be gained by reading first (a control)."""
# N examples, L words

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from tasks.data.base import SPLITS, DataSet, Example, FileFact
from tasks.data.draws import Draws


class Reversal(DataSet):
    """Source: `length` words, drawn from so many `symbols` with repetition; target: the same, last one first."""

    version: ClassVar[int] = 1
    modality = "synthetic"

    def __init__(
        self,
        *,
        symbols: Annotated[int, Field(gt=1)],
        length: Annotated[int, Field(gt=0)],
        train: Annotated[int, Field(gt=0)],
        valid: Annotated[int, Field(gt=0)],
        test: Annotated[int, Field(gt=0)],
        seed: Annotated[int, Field(ge=0)],
    ) -> None:
        self.symbols, self.length, self.seed = symbols, length, seed
        self.sizes = dict(zip(SPLITS, (train, valid, test), strict=True))

    def identity(self) -> list[FileFact]:
        """Generated: arguments and version say all."""
        return []

    def check(self) -> None:
        """Nothing to check."""

    def read(self, split: str) -> list[Example]:
        """Lists of words."""
        rows_NL = Draws(self.seed, SPLITS.index(split)).integers(self.symbols, self.sizes[split], self.length)
        rows = [[f"s{word}" for word in row] for row in rows_NL]
        return [Example(source=row, target=row[::-1]) for row in rows]
