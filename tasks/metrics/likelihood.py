"""How well a text is predicted: bits per character, perplexity per token."""
# N examples (windows of text)

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from tasks.metrics.base import Metric, Statistics


class _Likelihood(Metric):
    """Predictions are (nats, tokens, characters), and the same three again of a window's end where data name one;
    references the same with 0 nats, the best there is.
    """

    best: ClassVar[Literal["max", "min"]] = "min"
    of_end: ClassVar[bool] = False  # True: it is of the end alone

    def statistics(self, predictions: Sequence[Any], references: Sequence[Any]) -> Statistics:
        """`nats`, `tokens`, `characters`. Raises ValueError where a prediction is not over the text of its row."""
        part = slice(3, 6) if self.of_end else slice(0, 3)
        columns = np.array([tuple(p)[part] for p in predictions], dtype=np.float64).reshape(-1, 3)
        expected = np.array([tuple(r)[part] for r in references], dtype=np.float64).reshape(-1, 3)
        wrong = np.flatnonzero((columns[:, 1:] != expected[:, 1:]).any(1))
        if len(wrong):
            raise ValueError(
                f"row {wrong[0]}: predicted {columns[wrong[0], 1:]} of {expected[wrong[0], 1:]} tokens, characters"
            )
        return {"nats": columns[:, 0], "tokens": columns[:, 1], "characters": columns[:, 2]}


class BitsPerCharacter(_Likelihood):
    """Sum of -log2 p over characters of the text.

    Comparable between tokenisers as far as their ids tell the text: a model of ids that give it back to the letter is a
    model of the text, and splitting one prediction into several loses nothing. One that reads many words as the same
    unknown piece, lower-cases them or drops white space predicts less than the text, so LanguageModelling refuses it.
    """

    name: ClassVar[str] = "bits_per_character"
    unit: ClassVar[str] = "bits"
    whole_text: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def aggregate(self, statistics: Statistics) -> float:
        """Ratio of the sums."""
        characters = statistics["characters"].sum()
        return float(statistics["nats"].sum() / math.log(2) / characters) if characters else float("nan")


class EndBitsPerCharacter(BitsPerCharacter):
    """Bits per character of the ends alone, which all that comes before stands ahead of."""

    name: ClassVar[str] = "end_bits_per_character"
    of_end: ClassVar[bool] = True


class Perplexity(_Likelihood):
    """exp of the mean -log p over tokens; comparable for one tokeniser only."""

    name: ClassVar[str] = "perplexity"
    bounds: ClassVar[tuple[float, float]] = (1.0, math.inf)

    def aggregate(self, statistics: Statistics) -> float:
        """exp of the ratio of the sums; infinite beyond what a float holds."""
        tokens = statistics["tokens"].sum()
        if not tokens:
            return float("nan")
        with np.errstate(over="ignore"):
            return float(np.exp(statistics["nats"].sum() / tokens))
