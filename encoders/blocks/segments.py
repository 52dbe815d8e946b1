"""Rows without padding: the real positions of a batch end to end, as one row of segments."""
# B batch, L positions of the longest row, N real positions of all rows, H heads, E width of a head

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from encoders.blocks.past import KeyValues, pair_of


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Where the real positions of a (B, L) batch stand in one packed row of N.

    On a CPU segments are sorted by length, so that those of equal length are one block that attention can take as it
    is (encoders/blocks/packed_attention.py); on other devices they keep the order of the rows, and what is not needed
    there is not waited for: making them waits for the device once, to learn N.
    """

    mask_BL: Tensor  # (B, L) bool, True at a real position
    places_N: Tensor  # (N,) int64, of each in the flattened (B, L)
    lengths_B: Tensor  # (B,) int64, positions of each segment, in the order of the segments

    @classmethod
    def of(cls, mask_BL: Tensor) -> Segments:
        """The segments of a right-padded mask."""
        lengths_B = mask_BL.sum(1)
        if mask_BL.device.type != "cpu":
            return cls(mask_BL=mask_BL, places_N=mask_BL.flatten().nonzero().squeeze(1), lengths_B=lengths_B)
        lengths_B, order_B = lengths_B.sort(stable=True)
        rows, longest = mask_BL.shape
        places_BL = torch.arange(rows * longest).view(rows, longest)
        return cls(mask_BL=mask_BL, places_N=places_BL[order_B][mask_BL[order_B]], lengths_B=lengths_B)

    @cached_property
    def blocks(self) -> list[tuple[int, int]]:
        """(segments, length) of each run of equally long segments, in order; empty segments left out."""
        lengths, numbers = torch.unique_consecutive(self.lengths_B, return_counts=True)
        return [(n, length) for n, length in zip(numbers.tolist(), lengths.tolist(), strict=True) if length]

    @cached_property
    def bounds(self) -> Tensor:
        """Where segments begin and the last one ends, (B + 1,) int32: what variable-length kernels read."""
        return torch.nn.functional.pad(self.lengths_B.cumsum(0), (1, 0)).to(torch.int32)

    def pack(self, x_BL: Tensor) -> Tensor:
        """Real positions of (B, L, ...) as (1, N, ...)."""
        return x_BL.flatten(0, 1).index_select(0, self.places_N).unsqueeze(0)

    def unpack(self, x_1N: Tensor) -> Tensor:
        """(1, N, ...) back as (B, L, ...), zeros at padding."""
        x_N = x_1N.squeeze(0)
        flat = x_N.new_zeros((self.mask_BL.numel(), *x_N.shape[1:])).index_copy(0, self.places_N, x_N)
        return flat.view(*self.mask_BL.shape, *x_N.shape[1:])

    def unpack_heads(self, x_1HNE: Tensor) -> Tensor:
        """Queries, keys or values (1, H, N, E) back as (B, H, L, E)."""
        return self.unpack(x_1HNE.transpose(1, 2)).transpose(1, 2)


def segments_of(mask_BL: Tensor, *, packed: bool) -> Segments | None:
    """The segments of a right-padded mask; None where positions stay as they are.

    So do single ones, and where all are real, which on a CPU is looked up.
    """
    if not packed or mask_BL.shape[1] == 1 or (mask_BL.device.type == "cpu" and bool(mask_BL.all())):
        return None
    return Segments.of(mask_BL)


def pack(x_BL: Tensor, segments: Segments | None) -> Tensor:
    """Real positions alone, or all where there are no segments."""
    return x_BL if segments is None else segments.pack(x_BL)


def unpack(x_BL: Tensor, segments: Segments | None) -> Tensor:
    """The reverse of `pack`."""
    return x_BL if segments is None else segments.unpack(x_BL)


def unpack_pairs(pairs: list[KeyValues], segments: Segments | None) -> list[KeyValues]:
    """Keys and values of each layer as a cache keeps them, (B, H, L, E)."""
    if segments is None:
        return pairs
    return [(segments.unpack_heads(k), segments.unpack_heads(v)) for k, v in map(pair_of, pairs)]
