"""Splits of pairs: new pairs of parts that training has, parts of one side that it has not, or of both."""
# N pairs

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Unseen = Literal["neither", "left", "right", "both"]
TENTHS = 10  # of the test fold f of 5 are two, of validation the next one, of training seven


def places(left: Sequence[str], right: Sequence[str], unseen: Unseen, fold: int) -> dict[str, NDArray[np.int64]]:
    """Rows of each split, in order, of pairs whose parts are known by their content.

    With `left` a left part of a test pair is in no pair of training or validation (and so for `right`); with `both`
    neither part is, and pairs of an unseen with a seen one are in no split. `neither` parts the pairs: what is the same
    twice stays together. The parts are shuffled once, the same for all folds: each is tested in one of the five.
    """
    units: list[Sequence[str]] = [left] if unseen == "left" else [right] if unseen == "right" else [left, right]
    if unseen == "neither":
        units = [[f"{a}|{b}" for a, b in zip(left, right, strict=True)]]
    split_SN = [_splits(side, fold) for side in units]
    return {
        split: np.flatnonzero(np.all([side == number for side in split_SN], axis=0))
        for number, split in enumerate(("train", "valid", "test"))
    }


def _splits(parts: Sequence[str], fold: int) -> NDArray[np.int64]:
    """0, 1 or 2 for each pair: training, validation, test."""
    kinds, of = np.unique(np.asarray(parts), return_inverse=True)  # by the alphabet, not the order of a file
    tenth = np.empty(len(kinds), dtype=np.int64)
    tenth[np.random.default_rng(0).permutation(len(kinds))] = np.arange(len(kinds)) * TENTHS // len(kinds)
    ahead = (tenth - 2 * fold) % TENTHS
    split: NDArray[np.int64] = np.select([ahead < 2, ahead == 2], [2, 1], 0)[of]
    return split
