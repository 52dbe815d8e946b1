"""Errors of real-valued predictions: squared, its root and absolute, numbers or arrays; share of variance explained."""
# N examples

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.metrics.base import Mean, Metric, Statistics


class MSE(Mean):
    """Mean squared error. A prediction is a number or an array; an array counts by the mean over its entries.

    With arrays of equal shape, as the windows of a forecast are, the mean over examples is the mean over all entries,
    which is how the long-horizon literature reports it (Zeng et al. 2023, arXiv 2205.13504). In the units of the
    references, squared. ValueError where a prediction and its reference differ in shape.
    """

    name, best, bounds = "mse", "min", (0.0, float("inf"))

    def statistics(self, predictions: Sequence[Any], references: Sequence[Any]) -> Statistics:
        """`value` (N,): the mean squared error of each example."""
        return {"value": _per_example(predictions, references, np.square, self.name)}


class MAE(Mean):
    """Mean absolute error, in the units of the references; as MSE otherwise."""

    name, best, bounds = "mae", "min", (0.0, float("inf"))

    def statistics(self, predictions: Sequence[Any], references: Sequence[Any]) -> Statistics:
        """`value` (N,): the mean absolute error of each example."""
        return {"value": _per_example(predictions, references, np.abs, self.name)}


class RMSE(MSE):
    """Root of the mean squared error, in the units of the references; `value` is squared, so that it adds up."""

    name = "rmse"

    def aggregate(self, statistics: Statistics) -> float:
        """Root of the mean over the rows given."""
        return math.sqrt(super().aggregate(statistics))


class R2(Metric):
    """Share of variance that numbers explain, 1 - sum (y - p)^2 / sum (y - mean y)^2, the mean being of these rows.

    0 for the mean of the rows themselves, below for worse. NaN where references are all equal, and of no rows.
    """

    name, best, bounds = "r2", "max", (-float("inf"), 1.0)

    def statistics(self, predictions: Sequence[Any], references: Sequence[Any]) -> Statistics:
        """`squared` error and `reference`, each (N,)."""
        squared = _per_example(predictions, references, np.square, self.name)
        return {"squared": squared, "reference": np.asarray(references, dtype=np.float64).reshape(len(references))}

    def aggregate(self, statistics: Statistics) -> float:
        """Of the rows given."""
        true = statistics["reference"]
        if not len(true) or (true == true[0]).all():
            return float("nan")
        return float(1 - statistics["squared"].sum() / ((true - true.mean()) ** 2).sum())


def _per_example(predictions: Sequence[Any], references: Sequence[Any], of: Any, name: str) -> NDArray[np.float64]:
    if len(predictions) != len(references):
        raise ValueError(f"{name}: {len(predictions)} predictions for {len(references)} references")
    values = np.empty(len(references), dtype=np.float64)
    for row, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        predicted, true = np.asarray(prediction, dtype=np.float64), np.asarray(reference, dtype=np.float64)
        if predicted.shape != true.shape:
            raise ValueError(f"{name}: row {row} predicts shape {predicted.shape}, its reference has {true.shape}")
        values[row] = of(predicted - true).mean()
    return values
