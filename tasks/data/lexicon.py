"""Translation by a lexicon: word for word, some neighbours changing places; most words are rare."""
# N examples, L words of a sentence, V words of a language

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.data.base import SPLITS, DataSet, Example, FileFact
from tasks.data.draws import Draws


class Lexicon(DataSet):
    """Source: `shortest` to `longest` words "s17" by Zipf's law, word k in proportion to 1 / (k + 1)^`zipf`.

    Target: of each source word its one translation "t4", a random permutation; from left to right a word whose number
    `swap` divides changes places with the next one, which stays there. Both are lists of words. Training sets of other
    sizes are beginnings of one another, and valid and test the same beside all. Raises ValueError for a longest
    sentence below the shortest.
    """

    version: ClassVar[int] = 1
    modality = "synthetic"

    def __init__(
        self,
        *,
        types: Annotated[int, Field(gt=1)],
        zipf: Annotated[float, Field(ge=0)],
        swap: Annotated[int, Field(gt=0)],
        shortest: Annotated[int, Field(gt=0)],
        longest: Annotated[int, Field(gt=0)],
        train: Annotated[int, Field(gt=0)],
        valid: Annotated[int, Field(gt=0)],
        test: Annotated[int, Field(gt=0)],
        seed: Annotated[int, Field(ge=0)],
    ) -> None:
        if longest < shortest:
            raise ValueError(f"longest: {longest} words, of sentences of {shortest} (shortest) at least")
        self.types, self.zipf, self.swap = types, zipf, swap
        self.shortest, self.longest, self.seed = shortest, longest, seed
        self.sizes = dict(zip(SPLITS, (train, valid, test), strict=True))

    @property
    def translations(self) -> NDArray[np.int64]:
        """Number of the target word of each source word, (V,)."""
        return Draws(self.seed, len(SPLITS)).permutation(self.types)

    def identity(self) -> list[FileFact]:
        """Generated: arguments and version say all."""
        return []

    def check(self) -> None:
        """Nothing to check."""

    def read(self, split: str) -> list[Example]:
        """Sources and targets, as lists of words."""
        size, number = self.sizes[split], SPLITS.index(split)
        weight_V = 1.0 / np.arange(1, self.types + 1) ** self.zipf
        upto_V = weight_V.cumsum() / weight_V.sum()
        place_NL = Draws(self.seed, number, 0).uniform(size, self.longest)
        word_NL = np.minimum(np.searchsorted(upto_V, place_NL, side="right"), self.types - 1)
        length_N = self.shortest + Draws(self.seed, number, 1).integers(self.longest - self.shortest + 1, size)
        translations = self.translations
        examples = []
        for words, length in zip(word_NL, length_N, strict=True):
            source = words[:length].tolist()
            order = self._order(source)
            target = [f"t{translations[source[i]]}" for i in order]
            examples.append(Example(source=[f"s{word}" for word in source], target=target))
        return examples

    def _order(self, source: list[int]) -> list[int]:
        """Which source word each target word is of."""
        order, i = list(range(len(source))), 0
        while i + 1 < len(source):
            if source[i] % self.swap == 0:
                order[i], order[i + 1] = i + 1, i
                i += 1
            i += 1
        return order
