"""Tiles of an image: where those begin that cover it, and one drawn anywhere, turned or mirrored."""
# H W sides of an image

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 20  # degrees of a small turn


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An image and the classes of its pixels."""

    pixels: NDArray[np.float32]  # (H, W, colours)
    label: NDArray[np.uint8]  # (H, W)


def tile_starts(side: int, tile: int) -> list[int]:
    """First pixels of tiles that cover a side, one after the other; the last one is moved back to end with it."""
    return [*range(0, side - tile, tile), side - tile]


def crop(image: Image, side: int, draws: Sequence[float], *, turn: bool) -> Image:
    """A tile (side, side) by six draws on [0, 1): its row and column, and with `turn` what becomes of it.

    Half of the tiles are turned by quarters and mirrored on one axis, half of the others turned by -20 to 19 degrees
    (Chen et al. 2021, official code). Pixels are the nearest ones, what lies outside of the image is its mirror image.
    """
    height, width = image.label.shape
    top, left = int(draws[0] * (height - side + 1)), int(draws[1] * (width - side + 1))
    if not turn or (draws[2] >= 0.5 and draws[3] >= 0.5):
        part = np.s_[top : top + side, left : left + side]
        return Image(pixels=image.pixels[part], label=image.label[part])
    if draws[2] < 0.5:
        cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][int(draws[4] * 4)]
        mirror = (-1, 1) if draws[5] < 0.5 else (1, -1)
        matrix = np.array([[cos, -sin], [sin, cos]], dtype=np.float64) * mirror
    else:
        angle = math.radians(int(draws[4] * 2 * LARGEST) - LARGEST)
        matrix = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    from_centre = np.arange(side) - (side - 1) / 2
    down, right = np.meshgrid(from_centre, from_centre, indexing="ij")
    y = matrix[0, 0] * down + matrix[0, 1] * right + top + (side - 1) / 2
    x = matrix[1, 0] * down + matrix[1, 1] * right + left + (side - 1) / 2
    place = _mirrored(y, height), _mirrored(x, width)
    return Image(pixels=image.pixels[place], label=image.label[place])


def _mirrored(places: NDArray[Any], side: int) -> NDArray[np.int64]:
    """The nearest pixels 0 .. side - 1, counted back from either end."""
    nearest = np.floor(places + 0.5).astype(np.int64) % (2 * side)
    return np.minimum(nearest, 2 * side - 1 - nearest)
