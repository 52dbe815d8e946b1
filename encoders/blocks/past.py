"""Keys and values of the positions so far, with room for those to come: a step of generation copies none of them."""
# B batch, G heads of keys and values, S positions, C capacity, E width of a head

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from encoders.base import CachePart

ROOM = 32  # positions that a buffer is made longer by


class Past(CachePart):
    """The first `length` positions of two buffers (B, G, C, E), of keys and of values.

    What follows is written behind them, once: a second continuation of the same past gets buffers of its own, so no
    past is changed by what continues it. Without gradients alone, which would need each step's tensors as they were.
    """

    def __init__(self, keys_BGCE: Tensor, values_BGCE: Tensor, length: int, filled: list[int]) -> None:
        self.keys_BGCE, self.values_BGCE, self.length = keys_BGCE, values_BGCE, length
        self.filled = filled  # one number, shared by all pasts in the same buffers: positions that are written

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """Keys and values, each (B, G, S, E), views."""
        return self.keys_BGCE[:, :, : self.length], self.values_BGCE[:, :, : self.length]

    def append(self, k_BGTE: Tensor, v_BGTE: Tensor) -> Past:
        """The past with T further positions."""
        length = self.length + k_BGTE.shape[2]
        if self.filled[0] != self.length or length > self.keys_BGCE.shape[2]:
            return extended(self.pair, k_BGTE, v_BGTE)
        self.filled[0] = length
        self.keys_BGCE[:, :, self.length : length] = k_BGTE
        self.values_BGCE[:, :, self.length : length] = v_BGTE
        return Past(self.keys_BGCE, self.values_BGCE, length, self.filled)

    def select(self, rows: Tensor, *, recent: int | None) -> Past:
        """The rows, in buffers of their own; with `recent` in these, where nothing else was written behind."""
        if recent is None or self.filled[0] != self.length:
            keys, values = self.keys_BGCE.index_select(0, rows), self.values_BGCE.index_select(0, rows)
            return Past(keys, values, self.length, [self.length])
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero().squeeze(1)
        for buffer_BGCE in (self.keys_BGCE, self.values_BGCE):
            recent_BGTE = buffer_BGCE[:, :, self.length - recent : self.length]
            if 2 * len(moved) > len(rows):  # all of them are the faster copy
                recent_BGTE.copy_(recent_BGTE.index_select(0, rows))
            else:
                recent_BGTE.index_copy_(0, moved, recent_BGTE.index_select(0, rows[moved]))
        return self


def extended(past: tuple[Tensor, Tensor], k_BGTE: Tensor, v_BGTE: Tensor) -> Past:
    """A past (two of (B, G, S, E)) and T further positions, copied to where there is room for more."""
    made = []
    length = past[0].shape[2] + k_BGTE.shape[2]
    for old_BGSE, new_BGTE in zip(past, (k_BGTE, v_BGTE), strict=True):
        rows, heads, known, width = old_BGSE.shape
        buffer_BGCE = new_BGTE.new_empty(rows, heads, length + ROOM, width)
        buffer_BGCE[:, :, :known] = old_BGSE
        buffer_BGCE[:, :, known:length] = new_BGTE
        made.append(buffer_BGCE)
    return Past(made[0], made[1], length, [length])


def join(past: KeyValues, k_BGTE: Tensor, v_BGTE: Tensor) -> KeyValues:
    """What is behind and what is new; a pair of new tensors where gradients are wanted."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        keys_BGSE, values_BGSE = pair_of(past)
        return torch.cat((keys_BGSE, k_BGTE), dim=2), torch.cat((values_BGSE, v_BGTE), dim=2)
    return past.append(k_BGTE, v_BGTE) if isinstance(past, Past) else extended(past, k_BGTE, v_BGTE)


def pair_of(past: KeyValues) -> tuple[Tensor, Tensor]:
    """Keys and values, each (B, G, S, E)."""
    return past.pair if isinstance(past, Past) else past


def _again(pair: Iterable[Tensor], context: object) -> Past:
    keys_BGSE, values_BGSE = pair
    return Past(keys_BGSE, values_BGSE, keys_BGSE.shape[2], [keys_BGSE.shape[2]])


KeyValues = tuple[Tensor, Tensor] | Past  # keys and values, each (B, G, S, E): what a cache holds of a layer
pytree.register_pytree_node(Past, lambda past: (list(past.pair), None), _again)
