"""Rows of unequal length in one array, and batches of them padded on the right."""
# N rows, B batch, L positions, C channels

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from encoders.base import Sequences
from tasks.mapped import shared

LARGE = 32 * 2**20  # bytes, from which on rows are memory-mapped


class Ragged:
    """N arrays (L_i, ...) end to end: no padding is kept, and a worker process shares it without copying objects.

    LARGE ones are memory-mapped and read-only, so that all processes of a machine that hold the same rows share them.
    """

    def __init__(self, rows: Iterable[Any], dtype: DTypeLike) -> None:
        arrays = [np.asarray(row, dtype=dtype) for row in rows]
        self.lengths: NDArray[np.int64] = np.array([len(row) for row in arrays], dtype=np.int64)
        self.offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)])
        self.values: NDArray[Any] = np.concatenate(arrays) if arrays else np.zeros(0, dtype)
        if self.values.nbytes >= LARGE:
            self.values = shared(self.values)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> NDArray[Any]:
        """Row `row`, (L_i, ...), a view."""
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def pad(self, rows: NDArray[np.int64], fill: float = 0) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The rows as (B, L, ...), filled up with `fill` to the longest of them (L >= 1), and their mask (B, L)."""
        lengths = self.lengths[rows]
        places_L = np.arange(max(1, int(lengths.max(initial=0))))
        mask_BL = places_L < lengths[:, None]
        padded = np.full((*mask_BL.shape, *self.values.shape[1:]), fill, dtype=self.values.dtype)
        padded[mask_BL] = self.values[(self.offsets[rows][:, None] + places_L)[mask_BL]]
        return padded, mask_BL

    def sequences(self, rows: NDArray[np.int64]) -> Sequences:
        """The rows as what an encoder reads."""
        values, mask = self.pad(rows)
        return Sequences(values=torch.from_numpy(values), mask=torch.from_numpy(mask))

    def tensor(self, rows: NDArray[np.int64], fill: float = 0) -> Tensor:
        """The rows as a tensor (B, L, ...), filled up with `fill`: labels, starts of words, targets."""
        return torch.from_numpy(self.pad(rows, fill)[0])


class Repeated:
    """Rows many of which are the same object: each is kept once, in `distinct`; row i is the one of number which[i]."""

    def __init__(self, rows: Sequence[Any], make: Callable[[Any, int], NDArray[Any]], dtype: DTypeLike) -> None:
        """`make(row, i)` gives the array of the i-th row, and is asked once for rows that are one object."""
        numbers: dict[int, int] = {}
        arrays: list[NDArray[Any]] = []
        self.which = np.empty(len(rows), dtype=np.int64)
        for i, row in enumerate(rows):
            if id(row) not in numbers:
                numbers[id(row)] = len(arrays)
                arrays.append(make(row, i))
            self.which[i] = numbers[id(row)]
        self.distinct = Ragged(arrays, dtype)

    def sequences(self, rows: NDArray[np.int64]) -> Sequences:
        """The rows as what an encoder reads."""
        return self.distinct.sequences(self.which[rows])


def pad(rows: Iterable[NDArray[Any]], dtype: DTypeLike = np.int64) -> Sequences:
    """Arrays (L_i,) of ids, or (L_i, C) of channels with dtype float32, as one padded batch."""
    ragged = Ragged(rows, dtype)
    return ragged.sequences(np.arange(len(ragged)))
