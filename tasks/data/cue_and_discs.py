"""Discs at one side of an image, whose segmentation depends on where a square lies at the other side."""
# n examples, S side of an image

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.data.base import SPLITS, DataSet, Example, FileFact
from tasks.data.draws import Draws

SIDE = 128
BACKGROUND, NOISE, DISC, CUE = 0.3, 0.1, 0.6, 0.9  # brightness; NOISE is the deviation of all pixels
RING, HALF = 3, 12  # pixels: width of a ring; half of a square, its middle not counted


class CueAndDiscs(DataSet):
    """Images of 128 x 128 that need far context: locally, disc and ring are alike in both kinds.

    Three to five discs of radius 4 to 6, centres in rows 10-117 and columns 118-120; a bright square of 25 x 25 in
    columns 1-25, its middle in row 14-49 (above) or 78-113 (below). Above: class 1 are the discs; below: the ring of 3
    pixels around each, what is disc of another aside. Where the square lies decides, not that it is there: norms over
    the image would tell that. Background 0.3, noise of deviation 0.1 everywhere, 8 bits. Source: (128, 128, 1) float32
    in [0, 1]; target: (128, 128) uint8. Image i of a split is a function of (seed, split, i).
    """

    modality = "synthetic"

    def __init__(
        self,
        *,
        train: Annotated[int, Field(gt=0)],
        valid: Annotated[int, Field(gt=0)],
        test: Annotated[int, Field(gt=0)],
        seed: Annotated[int, Field(ge=0)],
    ) -> None:
        self.sizes = {"train": train, "valid": valid, "test": test}
        self.seed = seed

    def identity(self) -> list[FileFact]:
        """Generated: arguments and version say all."""
        return []

    def check(self) -> None:
        """Nothing to check."""

    def read(self, split: str) -> list[Example]:
        """Images, drawn one by one."""
        return [self._draw(Draws(self.seed, SPLITS.index(split), i)) for i in range(self.sizes[split])]

    def _draw(self, draws: Draws) -> Example:
        number, above = 3 + int(draws.integers(3, 1)[0]), draws.integers(2, 1)[0] == 0
        middle = (14 if above else 78) + int(draws.integers(36, 1)[0])
        row_n, column_n = 10 + draws.integers(108, number, 1, 1), 118 + draws.integers(3, number, 1, 1)
        radius_n = 4 + draws.integers(3, number, 1, 1)
        y, x = np.mgrid[:SIDE, :SIDE]
        apart_nSS = np.hypot(y - row_n, x - column_n) - radius_n
        disc, wide = (apart_nSS <= 0).any(0), (apart_nSS <= RING).any(0)
        image = np.where(disc, DISC, BACKGROUND)
        image[middle - HALF : middle + HALF + 1, 1 : 2 * HALF + 2] = CUE
        image = image + NOISE * _normal(draws, SIDE, SIDE)
        grey = np.clip(np.round(255 * image), 0, 255).astype(np.float32) / np.float32(255)
        return Example(source=grey[:, :, None], target=(disc if above else wide & ~disc).astype(np.uint8))


def _normal(draws: Draws, *shape: int) -> NDArray[np.float64]:
    """Normal numbers by the Box-Muller transform."""
    radius = np.sqrt(-2 * np.log1p(-draws.uniform(*shape)))
    normal: NDArray[np.float64] = radius * np.cos(2 * np.pi * draws.uniform(*shape))
    return normal
