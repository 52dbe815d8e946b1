"""The contract of metrics: statistics per example, and one number from any set of them."""
# N examples

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Statistics = Mapping[str, NDArray[np.float64]]


class Metric(ABC):
    """A score that is a function of statistics kept per example.

    Everything that uncertainty needs follows: a board resamples rows of the statistics and aggregates again, with no
    model and no data. `aggregate(statistics(p, r))` is the score of the whole split. Constructors take no arguments.
    """

    name: ClassVar[str]  # as the board shows it: accuracy, f1, bleu, mse
    best: ClassVar[Literal["max", "min"]]
    unit: ClassVar[str] = ""  # "%", "bits", ... ; "" where the field gives none
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    whole_text: ClassVar[bool] = False  # True: means nothing where a tokeniser leaves out a part of the text

    @abstractmethod
    def statistics(self, predictions: Sequence[Any], references: Sequence[Any]) -> Statistics:
        """Columns of (N,) float64, one row an example: a 0/1 hit, (tp, predicted, gold), n-gram counts, ..."""

    @abstractmethod
    def aggregate(self, statistics: Statistics) -> float:
        """The score of the rows given. NaN where it is not defined (no rows, no variance)."""

    def along(self, statistics: Statistics) -> list[float]:
        """The score of each part of a sequence, from its beginning on, NaN as above; [] of what has no parts."""
        return []

    def score(self, predictions: Sequence[Any], references: Sequence[Any]) -> float:
        """Both steps in one."""
        return self.aggregate(self.statistics(predictions, references))


class Mean(Metric):
    """A metric whose score is the mean of one statistic, named `value`."""

    def aggregate(self, statistics: Statistics) -> float:
        """Mean of the rows."""
        values = statistics["value"]
        return float(values.mean()) if len(values) else float("nan")
