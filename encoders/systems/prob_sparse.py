"""ProbSparse self-attention: few queries attend, the others take a mean (Zhou et al. 2021, 2012.07436, section 3)."""
# B batch, L positions, H heads, E head width, U sampled keys or active queries

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GATHERED = 2**29  # sampled keys' numbers in memory at once: 2 GiB in float32


def sparse_number(length: int, factor: int) -> int:
    """Queries that are active, and keys that are sampled for each: factor * ceil(ln L), within 1 and L."""
    return max(1, min(length, factor * math.ceil(math.log(length))))


def prob_sparse(
    q_BHLE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor, sample_LU: Tensor, *, number: int, causal: bool, running_mean: bool
) -> Tensor:
    """The `number` queries of the largest sparsity attend to all keys, the others take a mean of the values.

    Sparsity of a query (equation 4): the largest of its products with the sampled keys, `sample_LU` int64, the same of
    all rows and heads, less their sum over L. (The sum goes over U keys; the official code divides it by L all the
    same, and so weighs the mean less than the paper.) Active queries are scaled after they were chosen. `causal`: they
    see the keys up to their own, and the others get the sum of the values so far, as in the official code, or their
    mean (`running_mean`). Who is active depends on later keys all the same. (B, H, L, E); O(L U E) time and memory a
    head; of many rows the keys are sampled in pieces.
    """
    length = q_BHLE.shape[2]
    with torch.no_grad():  # a choice has no gradient
        size = _together(k_BHLE, sample_LU)
        pieces = [slice(i, i + size) for i in range(0, max(1, len(q_BHLE)), size)]
        products_BHLU = torch.cat(
            [torch.einsum("bhlue,bhle->bhlu", k_BHLE[rows][:, :, sample_LU], q_BHLE[rows]) for rows in pieces]
        )
        sparsity_BHL = products_BHLU.amax(-1) - products_BHLU.sum(-1) / length
        active_BHU = sparsity_BHL.topk(number).indices.sort().values
    index_BHUE = active_BHU.unsqueeze(-1).expand(-1, -1, -1, q_BHLE.shape[3])
    seen = active_BHU.unsqueeze(-1) >= torch.arange(length, device=q_BHLE.device) if causal else None
    attended_BHUE = F.scaled_dot_product_attention(q_BHLE.gather(2, index_BHUE), k_BHLE, v_BHLE, attn_mask=seen)
    if not causal:
        lazy_BHLE = v_BHLE.mean(2, keepdim=True).expand_as(v_BHLE)
    else:
        lazy_BHLE = v_BHLE.cumsum(2)
        if running_mean:
            lazy_BHLE = lazy_BHLE / torch.arange(1, length + 1, device=v_BHLE.device).unsqueeze(1)
    return lazy_BHLE.scatter(2, index_BHUE, attended_BHUE.to(lazy_BHLE.dtype))


def _together(k_BHLE: Tensor, sample_LU: Tensor) -> int:
    """Rows whose sampled keys are gathered at once, GATHERED numbers at most, but one row at least."""
    return max(1, GATHERED // max(1, k_BHLE[:1].numel() * sample_LU.shape[1]))


class ProbSparse(nn.Module):
    """ProbSparse attention with its sample: drawn anew at each call in training, and always the same in evaluation.

    (The official code draws in evaluation, too, so that a forecast is by chance.) `length`: positions at most.
    """

    draws_LU: Tensor

    def __init__(self, *, length: int, factor: int, causal: bool, running_mean: bool) -> None:
        super().__init__()
        self.factor, self.causal, self.running_mean = factor, causal, running_mean
        fixed = torch.Generator("cpu").manual_seed(0)
        draws_LU = torch.rand(length, sparse_number(length, factor), generator=fixed, device="cpu")
        self.register_buffer("draws_LU", draws_LU.to(torch.get_default_device()), persistent=False)

    def forward(self, q_BHLE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor) -> Tensor:
        """(B, H, L, E)."""
        length = q_BHLE.shape[2]
        number = sparse_number(length, self.factor)
        draws_LU = self.draws_LU[:length, :number]
        if self.training:
            draws_LU = torch.rand_like(draws_LU)
        sample_LU = (draws_LU * length).long().clamp_max(length - 1)
        return prob_sparse(
            q_BHLE, k_BHLE, v_BHLE, sample_LU, number=number, causal=self.causal, running_mean=self.running_mean
        )


class Full(nn.Module):
    """Canonical attention, with dropout of its weights. O(L^2 E) time a head; without dropout O(L E) memory."""

    def __init__(self, *, causal: bool, dropout: float) -> None:
        super().__init__()
        self.causal, self.dropout = causal, dropout

    def forward(self, q_BHLE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor) -> Tensor:
        """(B, H, L, E)."""
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(q_BHLE, k_BHLE, v_BHLE, dropout_p=dropout, is_causal=self.causal)
