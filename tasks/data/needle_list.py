"""A list of keys with their values, and a key: a long source, a short target (after Return of the Encoder's tasks)."""
# N examples, P pairs, K symbols of a value

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tasks.data.base import SPLITS, DataSet, Example, FileFact
from tasks.data.draws import Draws


class NeedleList(DataSet):
    """Source: `pairs` times a key and its value of `value` symbols, then "?" and one of the keys; target: its value.

    Keys of a list are different ones of `symbols` symbols, values are drawn with repetition from the same symbols; so
    which symbol is a key its place alone tells. A source has pairs (1 + value) + 2 words. Raises ValueError for more
    pairs than symbols.
    """

    version: ClassVar[int] = 1
    modality = "synthetic"

    def __init__(
        self,
        *,
        symbols: Annotated[int, Field(gt=1)],
        pairs: Annotated[int, Field(gt=0)],
        value: Annotated[int, Field(gt=0)],
        train: Annotated[int, Field(gt=0)],
        valid: Annotated[int, Field(gt=0)],
        test: Annotated[int, Field(gt=0)],
        seed: Annotated[int, Field(ge=0)],
    ) -> None:
        if pairs > symbols:
            raise ValueError(f"pairs: {pairs}, each with a key of its own; symbols are {symbols}")
        self.symbols, self.pairs, self.value, self.seed = symbols, pairs, value, seed
        self.sizes = dict(zip(SPLITS, (train, valid, test), strict=True))

    def identity(self) -> list[FileFact]:
        """Generated: arguments and version say all."""
        return []

    def check(self) -> None:
        """Nothing to check."""

    def read(self, split: str) -> list[Example]:
        """Lists of words."""
        size, draws = self.sizes[split], Draws(self.seed, SPLITS.index(split))
        key_NP = np.argsort(draws.uniform(size, self.symbols), axis=1, kind="stable")[:, : self.pairs]
        value_NPK = draws.integers(self.symbols, size, self.pairs, self.value)
        asked_N = draws.integers(self.pairs, size)
        examples = []
        for keys, values, asked in zip(key_NP, value_NPK, asked_N, strict=True):
            told = [f"s{word}" for key, value in zip(keys, values, strict=True) for word in (key, *value)]
            target = [f"s{word}" for word in values[asked]]
            examples.append(Example(source=[*told, "?", f"s{keys[asked]}"], target=target))
        return examples
