"""How well binary frames are predicted: nats a frame."""
# N examples (pieces)

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from tasks.metrics.base import Metric, Statistics


class FrameNLL(Metric):
    """Mean of -log p over frames, the channels of a frame summed (Boulanger-Lewandowski et al. 2012, arXiv 1206.6392).

    Predictions are (nats, frames); references the same with 0 nats, the best there is.
    """

    name: ClassVar[str] = "nll"
    best: ClassVar[Literal["max", "min"]] = "min"
    unit: ClassVar[str] = "nats"
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def statistics(self, predictions: Sequence[Any], references: Sequence[Any]) -> Statistics:
        """`nats`, `frames`. Raises ValueError where a prediction is not over the frames of its row."""
        columns = np.array([tuple(p) for p in predictions], dtype=np.float64).reshape(-1, 2)
        expected = np.array([tuple(r) for r in references], dtype=np.float64).reshape(-1, 2)
        wrong = np.flatnonzero(columns[:, 1] != expected[:, 1])
        if len(wrong):
            raise ValueError(f"row {wrong[0]}: {columns[wrong[0], 1]:g} frames of {expected[wrong[0], 1]:g}")
        return {"nats": columns[:, 0], "frames": columns[:, 1]}

    def aggregate(self, statistics: Statistics) -> float:
        """Ratio of the sums."""
        frames = statistics["frames"].sum()
        return float(statistics["nats"].sum() / frames) if frames else float("nan")
