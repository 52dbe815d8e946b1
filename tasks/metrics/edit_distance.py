"""How far a sequence of symbols is from the right one: wrong or not, and by how many edits."""
# N examples

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from tasks.metrics.base import Mean, Metric, Statistics


class WordErrorRate(Mean):
    """Share of words whose transcription has any symbol wrong, as the SIGMORPHON shared tasks define it for G2P.

    Not the error rate of speech recognition, which counts edits of words in a sentence: that is SymbolErrorRate over
    words.
    """

    name: ClassVar[str] = "word_error_rate"
    best: ClassVar[Literal["max", "min"]] = "min"

    def statistics(self, predictions: Sequence[Any], references: Sequence[Any]) -> Statistics:
        """`value`: 1.0 for a wrong one."""
        return {
            "value": np.array([float(_symbols(p) != _symbols(r)) for p, r in zip(predictions, references, strict=True)])
        }


class SymbolErrorRate(Metric):
    """Insertions, deletions and substitutions (Levenshtein 1966) over symbols of the references; may pass 1.

    Over phones it is the phone error rate, over words of a sentence the word error rate of speech recognition.
    """

    name: ClassVar[str] = "symbol_error_rate"
    best: ClassVar[Literal["max", "min"]] = "min"
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def statistics(self, predictions: Sequence[Any], references: Sequence[Any]) -> Statistics:
        """`edits`, `symbols`."""
        pairs = [(_symbols(p), _symbols(r)) for p, r in zip(predictions, references, strict=True)]
        return {
            "edits": np.array([edits(p, r) for p, r in pairs], dtype=np.float64),
            "symbols": np.array([len(r) for _, r in pairs], dtype=np.float64),
        }

    def aggregate(self, statistics: Statistics) -> float:
        """Ratio of the sums."""
        symbols = statistics["symbols"].sum()
        return float(statistics["edits"].sum() / symbols) if symbols else float("nan")


def edits(left: Sequence[Any], right: Sequence[Any]) -> int:
    """Least number of insertions, deletions and substitutions that make one of the other, by dynamic programming."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        above, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (a != b))
    return row[-1]


def _symbols(sequence: Any) -> list[Any]:
    return sequence.split() if isinstance(sequence, str) else list(sequence)
