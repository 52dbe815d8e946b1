"""Positions, as parts: what tells an attention where a state stands."""
# B batch (or 1, where all rows share their positions), L positions, T queries, S keys, D width, H heads, E head width

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from encoders.base import LossPart

Rotation = tuple[Tensor, Tensor]  # cosine and sine, each (B, L, 1, E / 2)


class PositionModule(LossPart):
    """The three ways in which positions enter a stack; each kind takes one of them, and leaves the others be.

    Positions that are learnt may have losses, and steps of training in which a row stands elsewhere.
    """

    def places(self, positions_BL: Tensor, rows: int) -> Tensor:
        """Where these stand in this pass of a batch of so many rows, (1 or rows, L); in evaluation as they are."""
        return positions_BL

    def add(self, x_BLD: Tensor, positions_BL: Tensor) -> Tensor:
        """Embeddings with their positions added."""
        return x_BLD

    def rotation(self, positions_BL: Tensor) -> Rotation | None:
        """What queries and keys are turned by, or None."""
        return None

    def bias(self, query_BT: Tensor, key_BS: Tensor) -> Tensor | None:
        """What is added to the scores, (B, H, T, S), or None."""
        return None


class Position(ABC):
    """A choice of positions: hyperparameters alone. `make` gives the module, once the stack's sizes are known."""

    @abstractmethod
    def make(self, *, dim: int, heads: int, head_dim: int, length: int, causal: bool) -> PositionModule:
        """The module for positions 0 .. length - 1."""


class NoPosition(Position):
    """No positions: a set, or an order that causality alone tells (Kazemnejad et al. 2023, arXiv 2305.19466)."""

    def __init__(self) -> None:
        pass

    def make(self, *, dim: int, heads: int, head_dim: int, length: int, causal: bool) -> PositionModule:
        """The module: nothing."""
        return PositionModule()


class Learned(Position):
    """One learnt vector a position, added to the embedding (BERT, GPT-2, BART)."""

    def __init__(self) -> None:
        pass

    def make(self, *, dim: int, heads: int, head_dim: int, length: int, causal: bool) -> PositionModule:
        """The module: a table (length, dim)."""
        return _Table(nn.Embedding(length, dim))


class Sinusoidal(Position):
    """Sines and cosines of geometric wavelengths, added to the embedding (Vaswani et al. 2017, section 3.5).

    Channel 2i is sin(p / base^(2i/D)), channel 2i+1 the cosine.
    """

    def __init__(self, *, base: Annotated[float, Field(gt=1)]) -> None:
        self.base = base

    def make(self, *, dim: int, heads: int, head_dim: int, length: int, causal: bool) -> PositionModule:
        """The module: a fixed table (length, dim). Raises ValueError for an odd `dim`."""
        if dim % 2:
            raise ValueError(f"position: Sinusoidal pairs channels, so dim must be even; got {dim}, use {dim + 1}")
        return _Sinusoid(_angles(dim, length, self.base))


class Rotary(Position):
    """Queries and keys turned by angles that grow with their position (Su et al. 2021, arXiv 2104.09864, eq. 34).

    Channel i is paired with i + E/2, as Llama's weights have it, not with i + 1 as in the paper: the same up to a fixed
    permutation of the channels.
    """

    def __init__(self, *, base: Annotated[float, Field(gt=1)]) -> None:
        self.base = base

    def make(self, *, dim: int, heads: int, head_dim: int, length: int, causal: bool) -> PositionModule:
        """The module. Raises ValueError for an odd head width."""
        if head_dim % 2:
            raise ValueError(
                f"position: Rotary turns pairs of channels, so a head must be even; got {head_dim} (dim {dim}, "
                f"heads {heads})"
            )
        return _Rotation(_angles(head_dim, length, self.base))


class ALiBi(Position):
    """Scores lowered by the distance, with a slope of its own for each head (Press et al. 2022, arXiv 2108.12409).

    Slopes 2^(-8h/H) for h = 1 .. H; where H is no power of two, those of the power below and every second one of the
    power above, as the official code does. Without causality the distance is taken both ways.
    """

    def __init__(self) -> None:
        pass

    def make(self, *, dim: int, heads: int, head_dim: int, length: int, causal: bool) -> PositionModule:
        """The module: fixed slopes (H,)."""
        return _Slopes(torch.tensor(_slopes(heads)))


class RelativeBias(Position):
    """A learnt number for each head and bucket of the distance, added to the scores (Raffel et al. 2020, T5).

    Half of the buckets are single distances, the others grow logarithmically up to `max_distance`; without causality
    the two directions share the buckets evenly. One table for all layers of a stack.
    """

    def __init__(self, *, buckets: Annotated[int, Field(ge=4)], max_distance: Annotated[int, Field(gt=1)]) -> None:
        self.buckets, self.max_distance = buckets, max_distance

    def make(self, *, dim: int, heads: int, head_dim: int, length: int, causal: bool) -> PositionModule:
        """The module: a table (buckets, heads). Raises ValueError for a `max_distance` that has a bucket of its own."""
        single = (self.buckets if causal else self.buckets // 2) // 2
        if self.max_distance <= single:
            raise ValueError(
                f"position.max_distance: {self.max_distance} must be beyond the {single} distances that have a bucket "
                f"of their own (buckets {self.buckets})"
            )
        distance = torch.arange(1 - length, length)  # key minus query
        bucket = relative_bucket(distance, buckets=self.buckets, max_distance=self.max_distance, causal=causal)
        return _Buckets(nn.Embedding(self.buckets, heads), bucket)


def relative_bucket(distance: Tensor, *, buckets: int, max_distance: int, causal: bool) -> Tensor:
    """T5's bucket of each distance (key position minus query position), int64 of the same shape, in [0, buckets)."""
    first = torch.zeros_like(distance)
    if causal:
        distance = (-distance).clamp_min(0)
    else:
        buckets //= 2
        first = (distance > 0) * buckets
        distance = distance.abs()
    single = buckets // 2
    ratio = torch.log(distance.float().clamp_min(1) / single) / math.log(max_distance / single)
    wide = (single + (ratio * (buckets - single)).to(torch.int64)).clamp_max(buckets - 1)
    return first + torch.where(distance < single, distance, wide)


class _Table(PositionModule):
    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.table = table

    def add(self, x_BLD: Tensor, positions_BL: Tensor) -> Tensor:
        added_BLD: Tensor = self.table(positions_BL)
        return x_BLD + added_BLD


class _Sinusoid(PositionModule):
    table_LD: Tensor

    def __init__(self, angles_LF: Tensor) -> None:
        super().__init__()
        table_LD = torch.stack((angles_LF.sin(), angles_LF.cos()), dim=-1).flatten(1)
        self.register_buffer("table_LD", table_LD, persistent=False)

    def add(self, x_BLD: Tensor, positions_BL: Tensor) -> Tensor:
        return x_BLD + self.table_LD[positions_BL]


class _Rotation(PositionModule):
    cos_LF: Tensor
    sin_LF: Tensor

    def __init__(self, angles_LF: Tensor) -> None:
        super().__init__()
        self.register_buffer("cos_LF", angles_LF.cos(), persistent=False)
        self.register_buffer("sin_LF", angles_LF.sin(), persistent=False)

    def rotation(self, positions_BL: Tensor) -> Rotation:
        return self.cos_LF[positions_BL].unsqueeze(2), self.sin_LF[positions_BL].unsqueeze(2)


class _Slopes(PositionModule):
    slopes_H: Tensor

    def __init__(self, slopes_H: Tensor) -> None:
        super().__init__()
        self.register_buffer("slopes_H", slopes_H, persistent=False)

    def bias(self, query_BT: Tensor, key_BS: Tensor) -> Tensor:
        distance_BTS = (key_BS.unsqueeze(1) - query_BT.unsqueeze(2)).abs()
        return -self.slopes_H.view(1, -1, 1, 1) * distance_BTS.unsqueeze(1)


class _Buckets(PositionModule):
    bucket: Tensor

    def __init__(self, table: nn.Embedding, bucket: Tensor) -> None:
        super().__init__()
        self.table = table
        self.register_buffer(
            "bucket", bucket, persistent=False
        )  # (2 * length - 1,): of each distance, most negative first

    def bias(self, query_BT: Tensor, key_BS: Tensor) -> Tensor:
        distance_BTS = key_BS.unsqueeze(1) - query_BT.unsqueeze(2)
        bucket_BTS = self.bucket[distance_BTS + self.bucket.shape[0] // 2]
        bias_BTSH: Tensor = self.table(bucket_BTS)
        return bias_BTSH.permute(0, 3, 1, 2)


def _angles(dim: int, length: int, base: float) -> Tensor:
    """Position times frequency, (length, dim / 2) float32."""
    frequency = 1.0 / base ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    return torch.outer(torch.arange(length, dtype=torch.float32), frequency)


def _slopes(heads: int) -> list[float]:
    below = 2 ** int(math.log2(heads))
    slopes = [2.0 ** (-8 * (h + 1) / below) for h in range(below)]
    between = [2.0 ** (-4 * (h + 1) / below) for h in range(0, 2 * below, 2)]
    return slopes + between[: heads - below]
