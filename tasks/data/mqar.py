"""Multi-query associative recall: pairs of key and value, then keys again, whose values are asked for."""
# N examples, L positions, P pairs

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.data.base import SPLITS, DataError, DataSet, Example, FileFact
from tasks.data.draws import Draws

IGNORE = -100  # a position that asks for nothing


class MQAR(DataSet):
    """MQAR of Zoology (Arora et al. 2023, arXiv 2312.04927, section 3.2; HazyResearch/zoology, multiquery_ar).

    First P pairs `key value`, then each key once more as a query, at even distances from the pairs drawn without
    replacement with weights a * d^(a - 1), d = 1 .. (L - 2P) / 2; all other places hold random tokens, any but the
    example's own keys. Keys are 1 .. V/2 - 1, values V/2 .. V - 1, different within an example. The target at a query
    is its key's value; it never stands after the query except as random filling, one time in V - P. Targets elsewhere
    are -100.

    A split is a list of parts `{length, pairs, examples}`: a test split can be longer, or have more pairs, than
    training. Differences from Zoology: there filling is any token of V = 8192; with few tokens it would often say a key
    once more before its query, with another token after it, and the question would have two answers (15 % of queries at
    V = 64, L = 64, 8 pairs). One random stream of our own; there V must be above L, here it need not.
    """

    version: ClassVar[int] = 2
    modality = "synthetic"

    def __init__(
        self,
        *,
        vocab_size: Annotated[int, Field(ge=8)],
        power_a: Annotated[float, Field(gt=0)],
        train: list[dict[str, int]],
        valid: list[dict[str, int]],
        test: list[dict[str, int]],
        seed: Annotated[int, Field(ge=0)],
    ) -> None:
        self.vocab_size, self.power_a, self.seed = vocab_size, power_a, seed
        self.parts = dict(zip(SPLITS, (train, valid, test), strict=True))
        for split, parts in self.parts.items():
            for part in parts:
                self._check_part(split, part)

    def _check_part(self, split: str, part: dict[str, int]) -> None:
        if set(part) != {"length", "pairs", "examples"}:
            raise ValueError(f"{split}: a part has the keys length, pairs, examples; got {sorted(part)}")
        length, pairs = part["length"], part["pairs"]
        if min(part.values()) < 1 or length % 2 or length < 4 * pairs:
            raise ValueError(f"{split}: length {length} must be even and at least 4 * pairs ({pairs}); numbers >= 1")
        if pairs > self.vocab_size // 2 - 1:
            raise ValueError(f"{split}: {pairs} pairs need a vocab_size of at least {2 * pairs + 2}")

    def identity(self) -> list[FileFact]:
        """Generated: arguments and version say all."""
        return []

    def check(self) -> None:
        """Nothing to check."""

    def read(self, split: str) -> list[Example]:
        """Sources (L,) and targets (L,), both int64."""
        examples: list[Example] = []
        for number, part in enumerate(self.parts[split]):
            draws = Draws(self.seed, SPLITS.index(split), number)
            source_NL, target_NL = self._generate(draws, part["examples"], part["length"], part["pairs"])
            examples += [Example(source=s, target=t) for s, t in zip(source_NL, target_NL, strict=True)]
        if not examples:
            raise DataError(f"mqar: the {split} split has no parts")
        return examples

    def _generate(self, draws: Draws, rows: int, length: int, pairs: int) -> tuple[NDArray[Any], NDArray[Any]]:
        half, context = self.vocab_size // 2, 2 * pairs
        keys_NP = 1 + draws.choose(np.ones(half - 1), rows, pairs)
        values_NP = half + draws.choose(np.ones(self.vocab_size - half), rows, pairs)
        distance = np.arange(1, (length - context) // 2 + 1)
        gaps_NP = draws.choose(self.power_a * distance ** (self.power_a - 1.0), rows, pairs)
        source_NL = draws.integers(self.vocab_size - pairs, rows, length)  # the how-manieth of the tokens but the keys
        for key_N in np.sort(keys_NP, axis=1).T:
            source_NL += source_NL >= key_N[:, None]
        source_NL[:, 0:context:2], source_NL[:, 1:context:2] = keys_NP, values_NP
        target_NL = np.full((rows, length), IGNORE, dtype=np.int64)
        np.put_along_axis(source_NL, context + 2 * gaps_NP, keys_NP, axis=1)
        np.put_along_axis(target_NL, context + 2 * gaps_NP, values_NP, axis=1)
        return source_NL, target_NL
