"""Facts and a question: a choice that needs tokens of the context matched with those of the candidates."""
# N examples, F facts, P pairs

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.data.base import SPLITS, DataSet, Example, FileFact
from tasks.data.draws import Draws


class FactLookup(DataSet):
    """`facts` facts, "name3 colour1 number40", and a question, "ask name3"; the answer is "colour1 number40".

    Names, colours and numbers of a context are drawn without repetition from so many. The other candidates put
    together a colour and a number of the same context that are not both of the name asked for; where these F^2 - 1 are
    too few, any two. So the bag of a context's words does not tell the answer. One turn a context; the answer stands
    first. `test_candidates`: of a test row, null: as many as in training; runs that differ in it alone share one
    training, and more candidates are those of fewer and others. Raises ValueError where there are not as many.
    """

    version: ClassVar[int] = 1
    test_only = MappingProxyType({"test_candidates": None})
    modality = "synthetic"

    def __init__(
        self,
        *,
        names: Annotated[int, Field(gt=0)],
        colours: Annotated[int, Field(gt=0)],
        numbers: Annotated[int, Field(gt=0)],
        facts: Annotated[int, Field(gt=0)],
        candidates: Annotated[int, Field(ge=2)],
        test_candidates: Annotated[int, Field(ge=2)] | None,
        train: Annotated[int, Field(gt=0)],
        valid: Annotated[int, Field(gt=0)],
        test: Annotated[int, Field(gt=0)],
        seed: Annotated[int, Field(ge=0)],
    ) -> None:
        if facts > min(names, colours, numbers):
            raise ValueError(f"facts: {facts}, each with words of its own; at most {min(names, colours, numbers)}")
        most = max(candidates, test_candidates or 0)
        if most > colours * numbers:
            raise ValueError(f"candidates: {most}; colours and numbers make {colours * numbers} pairs")
        self.names, self.colours, self.numbers, self.facts, self.seed = names, colours, numbers, facts, seed
        self.candidates, self.test_candidates = candidates, test_candidates
        self.sizes = dict(zip(SPLITS, (train, valid, test), strict=True))

    def identity(self) -> list[FileFact]:
        """Generated: arguments and version say all."""
        return []

    def check(self) -> None:
        """Nothing to check."""

    def read(self, split: str) -> list[Example]:
        """Sources ([context], candidates) and targets, as text."""
        size, number, facts = self.sizes[split], self.candidates, self.facts
        if split == "test" and self.test_candidates is not None:
            number = self.test_candidates
        draws = Draws(self.seed, SPLITS.index(split), 0)
        name_NF, colour_NF, number_NF = (
            np.argsort(draws.uniform(size, of), axis=1, kind="stable")[:, :facts]
            for of in (self.names, self.colours, self.numbers)
        )
        asked_N = draws.integers(facts, size)
        inner_NP = colour_NF[:, :, None] * self.numbers + number_NF[:, None, :]
        rows_N = np.arange(size)
        gold_N = inner_NP[rows_N, asked_N, asked_N]
        wrong_NP = self._order(inner_NP.reshape(size, -1), gold_N, Draws(self.seed, SPLITS.index(split), 1))
        if number > wrong_NP.shape[1] + 1:
            wrong_NP = self._filled(wrong_NP, gold_N, number - 1, Draws(self.seed, SPLITS.index(split), 2))
        examples = []
        for row in range(size):
            words = zip(name_NF[row], colour_NF[row], number_NF[row], strict=True)
            told = " ".join(f"name{n} {self._pair(c * self.numbers + k)}" for n, c, k in words)
            answers = [self._pair(pair) for pair in (gold_N[row], *wrong_NP[row, : number - 1])]
            context = f"{told} ask name{name_NF[row, asked_N[row]]}"
            examples.append(Example(source=([context], answers), target=answers[0]))
        return examples

    @staticmethod
    def _order(pairs_NP: NDArray[np.int64], gold_N: NDArray[np.int64], draws: Draws) -> NDArray[np.int64]:
        """The pairs but the gold ones, (N, P - 1), in random order."""
        place_NP = draws.uniform(*pairs_NP.shape)
        place_NP[pairs_NP == gold_N[:, None]] = 2.0
        return np.take_along_axis(pairs_NP, np.argsort(place_NP, axis=1, kind="stable"), axis=1)[:, :-1]

    def _filled(
        self, wrong_NP: NDArray[np.int64], gold_N: NDArray[np.int64], number: int, draws: Draws
    ) -> NDArray[np.int64]:
        """With other pairs behind, (N, number), none of them twice."""
        filled = []
        for wrong, gold in zip(wrong_NP, gold_N, strict=True):
            order = draws.permutation(self.colours * self.numbers)
            left = order[~np.isin(order, [*wrong, gold])]
            filled.append(np.concatenate([wrong, left])[:number])
        return np.stack(filled)

    def _pair(self, pair: int) -> str:
        return f"colour{pair // self.numbers} number{pair % self.numbers}"
