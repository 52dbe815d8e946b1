"""A labelling task that only a look to the right solves: does an encoder see the token after the one it labels?"""
# N examples, L positions

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tasks.data.base import SPLITS, DataSet, Example, FileFact
from tasks.data.draws import Draws


class LookRight(DataSet):
    """Tokens drawn evenly from 0 .. V - 1; the label at t is (c_t + 2 c_{t+1}) mod K, with c = token mod K.

    c past the end is 0, so that the last label is c_L. An encoder that sees nothing to the right of t can do no better
    than to guess everywhere but at the end: ((L - 1) / K + 1) / L where K is odd, 0.2333 at K = 5, L = 24.
    """

    version: ClassVar[int] = 1
    modality = "synthetic"

    def __init__(
        self,
        *,
        vocab_size: Annotated[int, Field(ge=2)],
        classes: Annotated[int, Field(ge=2)],
        length: Annotated[int, Field(ge=2)],
        train: Annotated[int, Field(gt=0)],
        valid: Annotated[int, Field(gt=0)],
        test: Annotated[int, Field(gt=0)],
        seed: Annotated[int, Field(ge=0)],
    ) -> None:
        if vocab_size % classes:
            raise ValueError(f"vocab_size: {vocab_size}; a multiple of classes {classes}, so that labels are even")
        self.vocab_size, self.classes, self.length, self.seed = vocab_size, classes, length, seed
        self.sizes = dict(zip(SPLITS, (train, valid, test), strict=True))

    def identity(self) -> list[FileFact]:
        """Generated: arguments and version say all."""
        return []

    def check(self) -> None:
        """Nothing to check."""

    def read(self, split: str) -> list[Example]:
        """Sources (L,) and targets (L,), both int64."""
        draws = Draws(self.seed, SPLITS.index(split))
        source_NL = draws.integers(self.vocab_size, self.sizes[split], self.length)
        c_NL = source_NL % self.classes
        after_NL = np.pad(c_NL[:, 1:], ((0, 0), (0, 1)))
        target_NL = (c_NL + 2 * after_NL) % self.classes
        return [Example(source=s, target=t) for s, t in zip(source_NL, target_NL, strict=True)]
