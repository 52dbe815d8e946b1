"""Items that a user has not had: drawn beside each label in training, and once a row to be ranked with its target."""
# B rows, S items of a history, P positions, K negatives, N rows of a split, I items, W draws at a time

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.padding import Ragged

NONE = -1  # where a row has fewer negatives than were asked for
CHUNK = 2048  # rows that are drawn for together


def draw_unseen(history_BS: Tensor, positions: int, number: int, num_items: int) -> Tensor:
    """Places of items (B, P, K) int64, drawn evenly from those that are not in the row's history, with repetition.

    `history_BS` int64 holds each row's different places, sorted, filled up with `num_items`; some item is left over.
    The j-th of those that are not in it is j + (how many of its s_0 < s_1 < ... have s_i - i <= j): no draw is wasted.
    """
    places_S = torch.arange(history_BS.shape[1], device=history_BS.device)
    real_BS = history_BS < num_items
    before_BS = torch.where(real_BS, history_BS - places_S, num_items)  # items between the first and s_i, not of it
    free_B1 = num_items - real_BS.sum(1, keepdim=True)
    shape = (len(history_BS), positions * number)
    draw_BN = (torch.rand(shape, device=history_BS.device) * free_B1).long().minimum(free_B1 - 1)
    place_BN = draw_BN + torch.searchsorted(before_BS, draw_BN, right=True)
    return place_BN.view(len(history_BS), positions, number)


def negatives_of(items: Ragged, *, weights: NDArray[np.float64], number: int, seed: list[int]) -> NDArray[np.int64]:
    """Places of items (N, number) to rank beside each row's target: none of the row's own, none twice.

    `items` holds rows of item numbers, from 1; `weights` (I,) are what an item is drawn in proportion to, one after the
    other without replacement, 0: never. A row that has fewer has NONE in the last places. A row's draws depend on the
    seed, the weights, its number and its own items, on no other row.
    """
    num_items = len(weights)
    cumulative = np.cumsum(weights) / weights.sum()
    width = 2 * number
    found = np.full((len(items), number), NONE, dtype=np.int64)
    for start in range(0, len(items), CHUNK):
        rows = range(start, min(start + CHUNK, len(items)))
        generator = np.random.default_rng([*seed, start])
        drawn_BW = np.searchsorted(cumulative, generator.random((len(rows), width)), side="right")
        drawn_BW = np.minimum(drawn_BW, num_items - 1)
        own = np.concatenate([i * num_items + items[row] - 1 for i, row in enumerate(rows)])
        new_BW = ~np.isin(drawn_BW + np.arange(len(rows))[:, None] * num_items, own) & ~_repeated(drawn_BW)
        new_BW &= new_BW.cumsum(1) <= number
        counts_B = new_BW.sum(1)
        found[start : rows.stop][np.arange(number) < counts_B[:, None]] = drawn_BW[new_BW]
        for i in np.flatnonzero(counts_B < number).tolist():  # long histories, few items
            left = weights.astype(np.float64, copy=True)
            left[items[rows[i]] - 1] = 0
            left[found[rows[i], : counts_B[i]]] = 0
            more = min(number - int(counts_B[i]), int((left > 0).sum()))
            if more:
                own_draws = np.random.default_rng([*seed, start, i])
                rest = own_draws.choice(num_items, size=more, replace=False, p=left / left.sum())
                found[rows[i], counts_B[i] : counts_B[i] + more] = rest
    return found


def _repeated(drawn_BW: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a draw stands in its row before."""
    order = drawn_BW.argsort(axis=1, kind="stable")
    ordered = np.take_along_axis(drawn_BW, order, axis=1)
    again = np.zeros(drawn_BW.shape, dtype=np.bool_)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    repeated = np.empty_like(again)
    np.put_along_axis(repeated, order, again, axis=1)
    return repeated
