"""Scores along a sequence: of an output word by word, and what the network does at each place of it."""
# N examples, K parts of a sequence

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.metrics.base import Metric, Statistics

PARTS = 10


def part_of(length: int) -> NDArray[np.int64]:
    """Of each position of a sequence, which of its tenths it is in, (length,); a short one has none in some of them."""
    return np.arange(length) * PARTS // max(1, length)


class WordAccuracy(Metric):
    """Share of words of the references that stand at their place in the output; along: of each tenth of a reference."""

    name: ClassVar[str] = "word_accuracy"
    best: ClassVar[Literal["max", "min"]] = "max"
    parts: ClassVar[Sequence[int]] = range(PARTS)  # that count

    def statistics(self, predictions: Sequence[Any], references: Sequence[Any]) -> Statistics:
        """`hits_k` and `words_k` of each example, k the tenth, 0 to 9."""
        hits_NK, words_NK = np.zeros((len(references), PARTS)), np.zeros((len(references), PARTS))
        for row, (predicted, reference) in enumerate(zip(predictions, references, strict=True)):
            said, right = _words(predicted), _words(reference)
            hits = np.zeros(len(right))
            both = min(len(said), len(right))
            hits[:both] = [a == b for a, b in zip(said[:both], right[:both], strict=True)]
            hits_NK[row] = np.bincount(part_of(len(right)), hits, PARTS)
            words_NK[row] = np.bincount(part_of(len(right)), minlength=PARTS)
        return {
            f"{name}_{k}": x_NK[:, k] for k in self.parts for name, x_NK in (("hits", hits_NK), ("words", words_NK))
        }

    def aggregate(self, statistics: Statistics) -> float:
        """Ratio of the sums over the tenths that count."""
        return _ratio(*(sum(float(statistics[f"{name}_{k}"].sum()) for k in self.parts) for name in ("hits", "words")))

    def along(self, statistics: Statistics) -> list[float]:
        """The ratio of each of them."""
        return [_ratio(float(statistics[f"hits_{k}"].sum()), float(statistics[f"words_{k}"].sum())) for k in self.parts]


class FirstWordAccuracy(WordAccuracy):
    """Of the first tenth of each reference alone."""

    name = "first_word_accuracy"
    parts = (0,)


class LastWordAccuracy(WordAccuracy):
    """Of the last tenth of each reference alone."""

    name = "last_word_accuracy"
    parts = (PARTS - 1,)


class Kept(Metric):
    """How much of what a network does at the beginning of a target it does at its end: last tenth over first tenth.

    Of predictions that tell it (tasks/source_use.py), by the numbers that each has of its tenths, under `told`.
    """

    best: ClassVar[Literal["max", "min"]] = "max"
    bounds: ClassVar[tuple[float, float]] = (0.0, np.inf)
    told: ClassVar[str]

    def statistics(self, predictions: Sequence[Any], references: Sequence[Any]) -> Statistics:
        """`part_k` of each example and `told`, 1 where it has these numbers; else all are 0."""
        part_NK, told_N = np.zeros((len(predictions), PARTS)), np.zeros(len(predictions))
        for row, prediction in enumerate(predictions):
            found = prediction.get(self.told, []) if isinstance(prediction, Mapping) else []
            if len(found) == PARTS and np.isfinite(found).all():
                part_NK[row], told_N[row] = found, 1.0
        return {"told": told_N, **{f"part_{k}": part_NK[:, k] for k in range(PARTS)}}

    def aggregate(self, statistics: Statistics) -> float:
        """Ratio of the sums."""
        return _ratio(float(statistics[f"part_{PARTS - 1}"].sum()), float(statistics["part_0"].sum()))

    def along(self, statistics: Statistics) -> list[float]:
        """The mean of each tenth, no ratio."""
        told = float(statistics["told"].sum())
        return [_ratio(float(statistics[f"part_{k}"].sum()), told) for k in range(PARTS)]


class SourceShareKept(Kept):
    """Of attention: its share that falls on the source."""

    name = "source_share_kept"
    told = "share"


class SensitivityKept(Kept):
    """Of states: how far they follow the source, the Frobenius norm of their derivative."""

    name = "sensitivity_kept"
    told = "sensitivity"


def _words(text: Any) -> list[Any]:
    """Of an output: a text, a list, or what holds one beside other things (tasks/source_use.py)."""
    text = text["words"] if isinstance(text, Mapping) else text
    return text.split() if isinstance(text, str) else list(text)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
