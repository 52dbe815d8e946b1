"""ISBI 2012: electron microscopy of neurons, cell or membrane for each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.data.base import DataError, Example
from tasks.data.pinned_set import PinnedSet

SLICES, SIDE = 30, 512


class ISBI2012EM(PinnedSet):
    """30 slices of one stack, 512 x 512 grey (Cardona et al. 2010; Arganda-Carreras et al. 2015), in order.

    Source: (512, 512, 1) float32 in [0, 1]. Target: (512, 512) uint8, 1 membrane (22 % of the pixels), 0 cell. Slices
    before `valid_from` train, those from `test_from` on test: in one piece each, since neighbours are nearly alike.
    """

    pinned = "isbi2012-em"
    modality = "image"

    def __init__(
        self, *, valid_from: Annotated[int, Field(gt=0, lt=SLICES)], test_from: Annotated[int, Field(gt=0, lt=SLICES)]
    ) -> None:
        if valid_from >= test_from:
            raise ValueError(f"valid_from: {valid_from} must be below test_from {test_from}; set them as 20 and 24")
        self.parts = {
            "train": range(valid_from),
            "valid": range(valid_from, test_from),
            "test": range(test_from, SLICES),
        }

    def read(self, split: str) -> Sequence[Example]:
        """Slices of the split, from above."""
        paths = self.located()
        return [
            Example(
                source=(read_grey(paths[f"image_{i:02}.png"]) / np.float32(255))[:, :, None],
                target=(read_labels(paths[f"label_{i:02}.png"]) == 0).astype(np.uint8),
                where=f"image_{i:02}.png",
            )
            for i in self.parts[split]
        ]


def read_grey(path: Path) -> NDArray[np.uint8]:
    """The pixels (512, 512) of an 8-bit grey image. Raises DataError for any other file."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            mode, pixels = image.mode, np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # PIL has the last for a broken PNG
        raise DataError(f"isbi2012-em: {path.name} can't be read as an image ({error})") from None
    if mode != "L" or pixels.shape != (SIDE, SIDE):
        raise DataError(f"isbi2012-em: {path.name} is {pixels.shape} {mode}; ({SIDE}, {SIDE}) L, 8-bit grey, is right")
    return pixels


def read_labels(path: Path) -> NDArray[np.uint8]:
    """The pixels of a label image, 0 or 255. Raises DataError for others."""
    pixels = read_grey(path)
    if not np.isin(pixels, (0, 255)).all():
        raise DataError(f"isbi2012-em: {path.name} holds other values than 0 (membrane) and 255 (cell)")
    return pixels
