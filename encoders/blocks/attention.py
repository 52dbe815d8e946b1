"""Scaled dot-product attention over heads: of a sequence to itself, and to another (Vaswani et al. 2017, eq. 1)."""
# B batch, L positions, T queries, S keys, D width, H heads, G heads of keys and values, E width of a head

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from encoders.blocks.masks import Sight
from encoders.blocks.packed_attention import PackedSight, packed_attention
from encoders.blocks.past import KeyValues, join, pair_of
from encoders.blocks.positions import Rotation


def head_width(dim: int, heads: int) -> int:
    """Width of each of the heads. Raises ValueError when `dim` can't be divided by them."""
    if dim % heads:
        raise ValueError(
            f"heads: dim {dim} can't be divided by {heads} heads; use heads {nearest_divisor(dim, heads)}, "
            f"or dim {max(1, round(dim / heads)) * heads}"
        )
    return dim // heads


class AttentionOptions:
    """The attention of a stack, apart from its width and number of heads.

    kv_heads: heads of keys and values, each shared by heads / kv_heads queries (Ainslie et al. 2023, arXiv 2305.13245);
    null: as many as heads. head_dim: null: dim / heads. scaled: scores over sqrt(head_dim); T5 has them bare.
    """

    def __init__(
        self,
        *,
        kv_heads: Annotated[int, Field(gt=0)] | None,
        head_dim: Annotated[int, Field(gt=0)] | None,
        bias: bool,
        scaled: bool,
        dropout: Annotated[float, Field(ge=0, lt=1)],
    ) -> None:
        self.kv_heads, self.head_dim = kv_heads, head_dim
        self.bias, self.scaled, self.dropout = bias, scaled, dropout

    def width(self, dim: int, heads: int) -> int:
        """Width of a head. Raises ValueError as head_width."""
        return head_width(dim, heads) if self.head_dim is None else self.head_dim

    def groups(self, heads: int) -> int:
        """Heads of keys and values. Raises ValueError when `heads` can't be divided by them."""
        groups = heads if self.kv_heads is None else self.kv_heads
        if heads % groups:
            raise ValueError(
                f"layer.attention.kv_heads: {heads} heads can't share {groups} of keys and values; "
                f"use {nearest_divisor(heads, groups)}"
            )
        return groups


class _Attention(nn.Module):
    """What both attentions share: sizes, the product, the way out."""

    def __init__(self, *, dim: int, heads: int, options: AttentionOptions) -> None:
        super().__init__()
        self.heads, self.groups = heads, options.groups(heads)
        self.head_dim = options.width(dim, heads)
        self.scale = None if options.scaled else 1.0  # None: 1 / sqrt(E)
        self.dropout = options.dropout
        self.out = nn.Linear(heads * self.head_dim, dim, bias=options.bias)

    def attend(self, q_BHTE: Tensor, keys_values: KeyValues, seen: Sight | PackedSight) -> Tensor:
        """Softmax of the scores times the values, through the output projection: (B, T, D)."""
        k_BGSE, v_BGSE = pair_of(keys_values)
        if self.groups != self.heads:
            k_BGSE, v_BGSE = self._share(k_BGSE), self._share(v_BGSE)
        dropout = self.dropout if self.training else 0.0
        if isinstance(seen, PackedSight):
            out_BHTE = packed_attention(q_BHTE, k_BGSE, v_BGSE, seen, dropout=dropout, scale=self.scale)
        else:
            mask = seen.mask
            if mask is not None and mask.dtype != torch.bool:
                mask = mask.to(q_BHTE.dtype)
            out_BHTE = F.scaled_dot_product_attention(
                q_BHTE,
                k_BGSE,
                v_BGSE,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=seen.causal,
                scale=self.scale,
            )
        out_BTD: Tensor = self.out(out_BHTE.transpose(1, 2).flatten(2))
        return out_BTD

    def weights(self, q_BHTE: Tensor, k_BGSE: Tensor, seen: Sight) -> Tensor:
        """What each query gives to each key, (B, H, T, S), before dropout: for who looks at attention."""
        k_BHSE = k_BGSE.repeat_interleave(self.heads // self.groups, dim=1)
        scale = self.head_dim**-0.5 if self.scale is None else self.scale
        scores_BHTS = (scale * q_BHTE) @ k_BHSE.transpose(2, 3)
        if seen.mask is not None and seen.mask.dtype == torch.bool:
            scores_BHTS = scores_BHTS.masked_fill(~seen.mask, float("-inf"))
        elif seen.mask is not None:
            scores_BHTS = scores_BHTS + seen.mask.to(scores_BHTS.dtype)
        return scores_BHTS.softmax(3)

    def by_head(self, x_BLD: Tensor) -> Tensor:
        """A projection (B, L, N * E) cut into its N heads, (B, L, N, E)."""
        return x_BLD.view(*x_BLD.shape[:-1], x_BLD.shape[-1] // self.head_dim, self.head_dim)

    def _share(self, x_BGSE: Tensor) -> Tensor:
        """Each head of keys or values repeated for the queries that share it: (B, H, S, E)."""
        return x_BGSE.unsqueeze(2).expand(-1, -1, self.heads // self.groups, -1, -1).flatten(1, 2)


class SelfAttention(_Attention):
    """Attention of a sequence to itself and to its cached past. O(T S D) time. One projection for q, k and v."""

    def __init__(self, *, dim: int, heads: int, options: AttentionOptions) -> None:
        super().__init__(dim=dim, heads=heads, options=options)
        self.qkv = nn.Linear(dim, (heads + 2 * self.groups) * self.head_dim, bias=options.bias)

    def project(self, x_BTD: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, E), keys and values (B, G, T, E), turned by their positions."""
        qkv_BTNE = self.by_head(self.qkv(x_BTD))
        if rotation is None:
            q_BTHE, k_BTGE, v_BTGE = torch.split(qkv_BTNE, [self.heads, self.groups, self.groups], dim=2)
        else:
            qk_BTNE, v_BTGE = torch.split(qkv_BTNE, [self.heads + self.groups, self.groups], dim=2)
            q_BTHE, k_BTGE = torch.split(rotate(qk_BTNE, rotation), [self.heads, self.groups], dim=2)
        return q_BTHE.transpose(1, 2), k_BTGE.transpose(1, 2), v_BTGE.transpose(1, 2)

    def forward(
        self, x_BTD: Tensor, seen: Sight | PackedSight, rotation: Rotation | None, past: KeyValues | None
    ) -> tuple[Tensor, KeyValues]:
        """States (B, T, D), and the keys and values of the past and of these positions.

        Packed, without a past, both are packed; the past is never, and what follows it neither.
        """
        q_BHTE, k_BGSE, v_BGSE = self.project(x_BTD, rotation)
        if past is not None:
            if isinstance(seen, PackedSight):
                k_BGSE, v_BGSE = seen.queries.unpack_heads(k_BGSE), seen.queries.unpack_heads(v_BGSE)
            both = join(past, k_BGSE, v_BGSE)
            return self.attend(q_BHTE, both, seen), both
        return self.attend(q_BHTE, (k_BGSE, v_BGSE), seen), (k_BGSE, v_BGSE)


class CrossAttention(_Attention):
    """Attention of a sequence to another's states, whose keys and values are made once by `project`."""

    def __init__(self, *, dim: int, heads: int, options: AttentionOptions) -> None:
        super().__init__(dim=dim, heads=heads, options=options)
        self.query = nn.Linear(dim, heads * self.head_dim, bias=options.bias)
        self.key_value = nn.Linear(dim, 2 * self.groups * self.head_dim, bias=options.bias)

    def project(self, memory_BSD: Tensor) -> KeyValues:
        """Keys and values of the other sequence."""
        kv_BNSE = self.by_head(self.key_value(memory_BSD)).transpose(1, 2)
        k_BGSE, v_BGSE = kv_BNSE.chunk(2, dim=1)
        return k_BGSE, v_BGSE

    def forward(self, x_BTD: Tensor, seen: Sight | PackedSight, memory: KeyValues) -> Tensor:
        """States (B, T, D). A memory of fewer rows: each is read by as many of x, which follow one another."""
        q_BTHE = self.by_head(self.query(x_BTD))
        if isinstance(seen, PackedSight) or len(x_BTD) == len(pair_of(memory)[0]):
            return self.attend(q_BTHE.transpose(1, 2), memory, seen)
        q_MQHE = q_BTHE.reshape(len(pair_of(memory)[0]), -1, *q_BTHE.shape[2:])  # M rows with all their queries
        return self.attend(q_MQHE.transpose(1, 2), memory, seen).view_as(x_BTD)


def rotate(x_BLNE: Tensor, rotation: Rotation) -> Tensor:
    """Turn channel pairs (i, i + E/2) by their angles, given as cosine and sine (B, L, 1, E/2)."""
    cos, sin = (part.to(x_BLNE.dtype) for part in rotation)
    first, second = x_BLNE.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def nearest_divisor(number: int, wish: int) -> int:
    """The divisor of `number` nearest to `wish`, the smaller of two."""
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: (abs(d - wish), d))
