"""Skeleton sequences: joints as channels, brought to one place and one size."""
# L frames, N joints, C coordinates

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def normalised(
    joints_LNC: NDArray[np.float64], *, centre: tuple[int, ...], length: tuple[int, int]
) -> NDArray[np.float32]:
    """Frames (L, N * C) float32 about the mean of the joints `centre` in all frames, in units of the bone `length`.

    One shift and one scale, the bone's mean, for the whole clip, so that its movement stays. Raises ValueError for a
    bone of no length.
    """
    unit = np.linalg.norm(joints_LNC[:, length[0]] - joints_LNC[:, length[1]], axis=1).mean()
    if not unit > 0:
        raise ValueError(f"joints {length[0]} and {length[1]} lie in one place in all frames")
    moved = (joints_LNC - joints_LNC[:, list(centre)].mean(axis=(0, 1))) / unit
    frames: NDArray[np.float32] = moved.reshape(len(moved), -1).astype(np.float32)
    return frames


def filled(joints_LNC: NDArray[np.float64], lost_LN: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Lost joints between the frames that have them, by straight lines; before the first and after the last, as there.

    Raises ValueError for a joint that is lost in every frame.
    """
    whole = joints_LNC.copy()
    frames = np.arange(len(whole))
    for n in np.flatnonzero(lost_LN.any(axis=0)):
        seen = ~lost_LN[:, n]
        if not seen.any():
            raise ValueError(f"joint {n} is lost in every frame")
        for c in range(whole.shape[2]):
            whole[:, n, c] = np.interp(frames, frames[seen], whole[seen, n, c])
    return whole
