"""Keys and values of the positions so far, with room for those to come: a step of generation copies none of them."""
# B batch, G heads of keys and values, N = 2 G: keys, then values, S positions, C capacity, E width of a head

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from encoders.base import CachePart, Moves

ROOM = 64  # positions that a buffer is made longer by


class Past(CachePart):
    """The first `length` positions of a buffer (B, C, N, E), of keys and values.

    A position of a row lies in one piece, so that writing and moving one is a copy of 2 G E numbers.

    What follows is written behind them, once: a second continuation of the same past gets a buffer of its own, so no
    past is changed by what continues it. Without gradients alone, which would need each step's tensors as they were.
    """

    def __init__(self, buffer_BCNE: Tensor, length: int, filled: list[int]) -> None:
        self.buffer_BCNE, self.length = buffer_BCNE, length
        self.filled = filled  # one number, shared by all pasts in the same buffer: positions that are written

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """Keys and values, each (B, G, S, E), views."""
        keys_BGSE, values_BGSE = self.buffer_BCNE.narrow(1, 0, self.length).transpose(1, 2).chunk(2, dim=1)
        return keys_BGSE, values_BGSE

    def append(self, k_BGTE: Tensor, v_BGTE: Tensor) -> Past:
        """The past with T further positions."""
        length = self.length + k_BGTE.shape[2]
        if self.filled[0] != self.length or length > self.buffer_BCNE.shape[1]:
            return extended(self.pair, k_BGTE, v_BGTE)
        self.filled[0] = length
        _write(self.buffer_BCNE, self.length, k_BGTE, v_BGTE)
        return Past(self.buffer_BCNE, length, self.filled)

    def select(self, rows: Tensor, *, moves: Moves | None) -> Past:
        """The rows, in a buffer of their own; with `moves` in this one, where nothing else was written behind."""
        if moves is None or self.filled[0] != self.length:
            return Past(self.buffer_BCNE.index_select(0, rows), self.length, [self.length])
        capacity = self.buffer_BCNE.shape[1]
        position_N = self.length - moves.back
        places = self.buffer_BCNE.flatten(0, 1)
        moved = places.index_select(0, moves.of * capacity + position_N)
        places.index_copy_(0, moves.to * capacity + position_N, moved)
        return self


def extended(past: tuple[Tensor, Tensor], k_BGTE: Tensor, v_BGTE: Tensor) -> Past:
    """A past (two of (B, G, S, E)) and T further positions, copied to where there is room for more."""
    rows, heads, known, width = past[0].shape
    length = known + k_BGTE.shape[2]
    buffer_BCNE = k_BGTE.new_empty(rows, length + ROOM, 2 * heads, width)
    _write(buffer_BCNE, 0, *past)
    _write(buffer_BCNE, known, k_BGTE, v_BGTE)
    return Past(buffer_BCNE, length, [length])


def _write(buffer_BCNE: Tensor, place: int, k_BGTE: Tensor, v_BGTE: Tensor) -> None:
    """Put keys and values at the positions from `place` on."""
    new_BTNE = buffer_BCNE.narrow(1, place, k_BGTE.shape[2])
    for part_BTGE, x_BGTE in zip(new_BTNE.chunk(2, dim=2), (k_BGTE, v_BGTE), strict=True):
        part_BTGE.copy_(x_BGTE.transpose(1, 2))


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
    both_BSNE = torch.cat(list(pair), dim=1).transpose(1, 2).contiguous()
    return Past(both_BSNE, both_BSNE.shape[1], [both_BSNE.shape[1]])


KeyValues = tuple[Tensor, Tensor] | Past  # keys and values, each (B, G, S, E): what a cache holds of a layer
pytree.register_pytree_node(Past, lambda past: (list(past.pair), None), _again)
