"""Pairs read out in an order: a long target, every word of which is looked up in the source."""
# N examples, P pairs, S words of a source without fillers

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tasks.data.base import SPLITS, DataSet, Example, FileFact
from tasks.data.draws import Draws


class KeyValues(DataSet):
    """Source: `pairs` keys in an order, "key3 key7", then the pairs in another one, "key7 value1 key3 value9".

    Target: the values in the order of the keys that stand first, "value9 value1", `rounds` times; with `told=pairs`
    "key3 value9 key7 value1", so that a place is one look at the source and not two. Keys are drawn without repetition
    from so many, values with. Fillers ("filler2", of 16) stand anywhere but within a pair, as many on average as make
    `filler` of the source, none to twice that in a row; so sources differ in length. Both source and target are lists
    of words. Raises ValueError for more pairs than keys.
    """

    version: ClassVar[int] = 1
    modality = "synthetic"

    def __init__(
        self,
        *,
        pairs: Annotated[int, Field(gt=0)],
        keys: Annotated[int, Field(gt=0)],
        values: Annotated[int, Field(gt=0)],
        rounds: Annotated[int, Field(gt=0)],
        told: Literal["values", "pairs"],
        filler: Annotated[float, Field(ge=0, lt=1)],
        train: Annotated[int, Field(gt=0)],
        valid: Annotated[int, Field(gt=0)],
        test: Annotated[int, Field(gt=0)],
        seed: Annotated[int, Field(ge=0)],
    ) -> None:
        if pairs > keys:
            raise ValueError(f"pairs: {pairs}, each with a key of its own; at most {keys} (keys)")
        self.pairs, self.keys, self.values, self.rounds, self.filler = pairs, keys, values, rounds, filler
        self.told = told
        self.sizes = dict(zip(SPLITS, (train, valid, test), strict=True))
        self.seed = seed

    @property
    def longest(self) -> int:
        """Words of the longest source."""
        return 3 * self.pairs + 2 * self._fillers

    @property
    def _fillers(self) -> int:
        """Of a source, on average."""
        return round(3 * self.pairs * self.filler / (1 - self.filler))

    def identity(self) -> list[FileFact]:
        """Generated: arguments and version say all."""
        return []

    def check(self) -> None:
        """Nothing to check."""

    def read(self, split: str) -> list[Example]:
        """Sources and targets, as lists of words."""
        size, pairs = self.sizes[split], self.pairs
        draws = Draws(self.seed, SPLITS.index(split))
        key_NP = np.argsort(draws.uniform(size, self.keys), axis=1, kind="stable")[:, :pairs]
        value_NP = draws.integers(self.values, size, pairs)
        order_NP = np.argsort(draws.uniform(size, pairs), axis=1, kind="stable")
        number_N = draws.integers(2 * self._fillers + 1, size)
        filler_NF = draws.integers(16, size, 2 * self._fillers)
        place_NF = draws.uniform(size, 2 * self._fillers)
        examples = []
        for row in range(size):
            keys = [f"key{key}" for key in key_NP[row]]
            values = [f"value{value}" for value in value_NP[row]]
            told = keys + [f"{keys[i]} {values[i]}" for i in order_NP[row]]
            source = [*zip(np.arange(len(told)) + 0.5, told, strict=True)]
            source += [
                (len(told) * place, f"filler{word}")
                for place, word in zip(place_NF[row, : number_N[row]], filler_NF[row], strict=False)
            ]
            words = " ".join(word for _, word in sorted(source, key=lambda part: part[0])).split()
            pair = [word for both in zip(keys, values, strict=True) for word in both]
            examples.append(Example(source=words, target=(values if self.told == "values" else pair) * self.rounds))
        return examples
