"""Attention of packed rows: each segment by itself, by the kernel that suits the device."""
# B batch, N real positions of all rows, T queries and S keys of a row, H heads, E width of a head

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.blocks.masks import Sight
from encoders.blocks.segments import Segments


class PackedSight(NamedTuple):
    """What packed queries see."""

    queries: Segments
    inner: Sight  # of keys in the same segments: for a row of the greatest length, padding not considered; else of all
    same: bool  # keys and values are packed as the queries are; else padded, (B, H, S, E)


def packed_attention(
    q_1HNE: Tensor, k: Tensor, v: Tensor, seen: PackedSight, *, dropout: float, scale: float | None
) -> Tensor:
    """Softmax of the scores times the values, (1, H, N, E), no query seeing another segment.

    `k`, `v`: (1, H, N, E) where `seen.same`, else (B, H, S, E). Equal to attention of the padded rows, whichever kernel
    is taken: on a CPU blocks of equally long segments (0.2 to 1.0 of the padded kernel's time where it was tried,
    nested tensors 1.2 to 9 times it); on CUDA flash attention where it knows all that is asked; and else the
    padded kernel, within attention alone.
    """
    if not q_1HNE.shape[2]:
        return q_1HNE
    if seen.same and q_1HNE.device.type == "cpu":
        return _by_blocks(q_1HNE, k, v, seen, dropout, scale)
    if seen.same and _flash_knows(q_1HNE, seen, dropout):
        return _flash(q_1HNE, k, v, seen, scale)
    return _padded(q_1HNE, k, v, seen, dropout, scale)


def _by_blocks(
    q_1HNE: Tensor, k_1HNE: Tensor, v_1HNE: Tensor, seen: PackedSight, dropout: float, scale: float | None
) -> Tensor:
    """Segments of equal length are a batch without padding, and a block of the packed row: no mask, no copy."""
    blocks = seen.queries.blocks
    sizes = [rows * length for rows, length in blocks]
    parts = zip(blocks, *(torch.split(x_1HNE, sizes, dim=2) for x_1HNE in (q_1HNE, k_1HNE, v_1HNE)), strict=True)
    mask = seen.inner.mask
    found = []
    for (rows, length), *qkv in parts:
        # the packed positions lie outermost in memory, whatever the order of the axes
        q, k, v = (x.squeeze(0).unflatten(1, (rows, length)).transpose(0, 1) for x in qkv)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if mask is None else mask[..., :length, :length].to(q.dtype),
            dropout_p=dropout,
            is_causal=seen.inner.causal,
            scale=scale,
        )
        found.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(found).transpose(0, 1).unsqueeze(0)


def _flash_knows(q_1HNE: Tensor, seen: PackedSight, dropout: float) -> bool:
    """Whether torch's variable-length flash attention can do it: half precision on CUDA, no bias, no dropout."""
    return (
        q_1HNE.is_cuda
        and q_1HNE.dtype in (torch.float16, torch.bfloat16)
        and torch.cuda.get_device_capability(q_1HNE.device) >= (8, 0)
        and seen.inner.mask is None
        and dropout == 0
        and q_1HNE.shape[3] % 8 == 0
        and q_1HNE.shape[3] <= 256
    )


def _flash(q_1HNE: Tensor, k_1HNE: Tensor, v_1HNE: Tensor, seen: PackedSight, scale: float | None) -> Tensor:
    """Flash attention over segments (Dao 2023, arXiv 2307.08691), which wants (N, H, E) and the segments' bounds."""
    from torch.nn.attention.varlen import varlen_attn

    bounds, longest = seen.queries.bounds, seen.queries.mask_BL.shape[1]
    q_NHE, k_NHE, v_NHE = (x.squeeze(0).transpose(0, 1) for x in (q_1HNE, k_1HNE, v_1HNE))
    window = (-1, 0) if seen.inner.causal else (-1, -1)
    out_NHE = varlen_attn(q_NHE, k_NHE, v_NHE, bounds, bounds, longest, longest, scale=scale, window_size=window)
    assert isinstance(out_NHE, Tensor)
    return out_NHE.transpose(0, 1).unsqueeze(0)


def _padded(q_1HNE: Tensor, k: Tensor, v: Tensor, seen: PackedSight, dropout: float, scale: float | None) -> Tensor:
    """Queries (and keys and values, where they are packed) with padding, for as long as the product takes."""
    segments, (mask, causal) = seen.queries, seen.inner
    if seen.same:
        k, v = segments.unpack_heads(k), segments.unpack_heads(v)
        if not causal:  # of causal ones no real query sees padding, which comes after it
            real_B11L = segments.mask_BL[:, None, None, :]
            real_B11L = real_B11L | ~segments.mask_BL.any(1).view(-1, 1, 1, 1)  # a row of nothing sees all its zeros
            mask = real_B11L if mask is None else mask.masked_fill(~real_B11L, float("-inf"))
    out_BHTE = F.scaled_dot_product_attention(
        segments.unpack_heads(q_1HNE),
        k,
        v,
        attn_mask=mask if mask is None or mask.dtype == torch.bool else mask.to(q_1HNE.dtype),
        dropout_p=dropout,
        is_causal=causal,
        scale=scale,
    )
    return segments.pack(out_BHTE.transpose(1, 2)).transpose(1, 2)
