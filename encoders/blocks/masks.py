"""Which positions an attention sees, made once a forward from the masks of the contract (True = real)."""
# B batch (or 1), L positions, T queries, S keys, H heads

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Sight(NamedTuple):
    """What queries see of keys: the two mask arguments of scaled_dot_product_attention, of which one is set at most."""

    mask: Tensor | None  # broadcasts to (B, H, T, S): bool, True = seen, or float, added to the scores
    causal: bool  # query t sees keys 0 .. t, with no mask needed


def see_real(mask_BS: Tensor) -> Tensor | None:
    """Every query sees the real keys: (B, 1, 1, S) bool, or None where all are real.

    A row without any real key sees its first one, so that its softmax is finite. That all are real is only looked up
    on the CPU: on a GPU the answer would have to be waited for.
    """
    if mask_BS.device.type == "cpu" and not torch.compiler.is_compiling() and bool(mask_BS.all()):
        return None
    seen_BS = mask_BS.clone()
    seen_BS[:, :1] |= ~mask_BS.any(1, keepdim=True)
    return seen_BS[:, None, None, :]


def see_past(mask_BS: Tensor, queries: int) -> Tensor | None:
    """Query t, the last but (queries - 1 - t) of the S positions, sees itself and what is real before: (B, 1, T, S).

    None where that is all, for a single query, as see_real.
    """
    keys = mask_BS.shape[1]
    looks = mask_BS.device.type == "cpu" and not torch.compiler.is_compiling()
    if queries == 1 and looks and bool(mask_BS[:, :-1].all()):
        return None
    index_S = torch.arange(keys, device=mask_BS.device)
    index_T1 = index_S[keys - queries :, None]
    seen_BTS = (mask_BS[:, None, :] & (index_S < index_T1)) | (index_S == index_T1)
    return seen_BTS[:, None]


def sight(seen: Tensor | None, bias: Tensor | None, *, causal: bool, queries: int) -> Sight:
    """Join what is seen and what is added to the scores.

    `causal`: the keys are those of the queries, each sees itself and what is before; `seen` is None then.
    """
    if bias is None:
        return Sight(seen, causal)
    if causal:
        seen = torch.ones(queries, queries, dtype=torch.bool, device=bias.device).tril()
    return Sight(bias if seen is None else bias.masked_fill(~seen, float("-inf")), False)
