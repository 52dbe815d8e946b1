"""How well regions of an image fit: Dice score, and the 95 % Hausdorff distance of their edges."""
# N images, H W sides of an image

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.metrics.base import Mean, Statistics

Region = NDArray[np.bool_]  # (H, W)


class Dice(Mean):
    """2 |A and B| / (|A| + |B|), a mean over classes, and then over images.

    Classes are those that any reference has, 0, the background, aside. Of a class that is in neither the prediction
    nor the reference of an image it is 1, of one that is in one of them 0. (TransUNet's official evaluation has 1 for a
    class that is predicted and absent, and 0 for one in neither: mistakes that reward false positives.)
    """

    name, best = "dice", "max"

    def statistics(self, predictions: Sequence[Any], references: Sequence[Any]) -> Statistics:
        """`value` (N,): the score of each image."""
        return {"value": _by_class(predictions, references, dice, self.name)}


class Hausdorff95(Mean):
    """95th percentile of the distances from each edge to the other, in pixels, a mean over classes, then over images.

    The edge of a region are its pixels with one of their four neighbours, or the image's outside, not in it; distances
    of both directions are taken together, as medpy's hd95 does, which TransUNet was measured with. Classes as Dice's: 0
    of one that is in neither; of one that is in one of them alone, where it is not defined, the image's diagonal.
    """

    name, best, bounds, unit = "hausdorff95", "min", (0.0, float("inf")), "px"

    def statistics(self, predictions: Sequence[Any], references: Sequence[Any]) -> Statistics:
        """`value` (N,): the distance of each image."""
        return {"value": _by_class(predictions, references, hausdorff95, self.name)}


def dice(one: Region, other: Region) -> float:
    """Of two regions; 1 if both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0


def hausdorff95(one: Region, other: Region) -> float:
    """Of two regions, in pixels; 0 if both are empty, the diagonal of the image if one is."""
    from scipy.ndimage import distance_transform_edt

    if not one.any() or not other.any():
        return math.hypot(*one.shape) if one.any() or other.any() else 0.0
    a, b = _edge(one), _edge(other)
    return float(np.percentile(np.concatenate([distance_transform_edt(~b)[a], distance_transform_edt(~a)[b]]), 95))


def _edge(region: Region) -> Region:
    from scipy.ndimage import binary_erosion

    inner: Region = binary_erosion(region)  # outside of the image there is none of it
    return region & ~inner


def _by_class(
    predictions: Sequence[Any], references: Sequence[Any], of: Callable[[Region, Region], float], name: str
) -> NDArray[np.float64]:
    if len(predictions) != len(references):
        raise ValueError(f"{name}: {len(predictions)} predictions for {len(references)} references")
    gold = [np.asarray(reference) for reference in references]
    classes = sorted({number for image in gold for number in np.unique(image).tolist()} - {0}) or [1]
    values = np.empty(len(gold), dtype=np.float64)
    for row, (prediction, reference) in enumerate(zip(predictions, gold, strict=True)):
        predicted = np.asarray(prediction)
        if predicted.shape != reference.shape or predicted.ndim != 2:
            raise ValueError(f"{name}: row {row} predicts {predicted.shape}, its reference is {reference.shape}")
        values[row] = np.mean([of(predicted == number, reference == number) for number in classes])
    return values
