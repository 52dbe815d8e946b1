"""Parts of SurfaceFusion: attention on embeddings, a feed-forward for both streams, the fusion of two softmaxes."""
# B batch (or R rows of a source, each read by as many that follow one another), L source positions, T queries, D width

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from encoders.blocks.masks import Sight


class SurfaceAttention(nn.Module):
    """softmax(q k^T / sqrt(D)) v through an output map, one head, four maps with bias: 4 (D^2 + D) parameters."""

    def __init__(self, *, dim: int, dropout: float) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.value, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.dropout = dropout

    def project(self, key_BLD: Tensor, value_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a source, each (B, L, D)."""
        return self.key(key_BLD), self.value(value_BLD)

    def forward(self, x_BTD: Tensor, k_RLD: Tensor, v_RLD: Tensor, seen: Sight) -> Tensor:
        """What the queries find, (B, T, D)."""
        rows, length, dim = x_BTD.shape
        q_R1QD = self.query(x_BTD).reshape(len(k_RLD), 1, rows // max(1, len(k_RLD)) * length, dim)
        dropout = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(
            q_R1QD, k_RLD.unsqueeze(1), v_RLD.unsqueeze(1), attn_mask=seen.mask, dropout_p=dropout
        )
        out_BTD: Tensor = self.out(found.reshape(x_BTD.shape))
        return out_BTD


class ResidualFeedForward(nn.Module):
    """x + W2 relu(W1 x), dropout after each map, no norm: 2 D F + F + D parameters."""

    def __init__(self, *, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.up_dropout, self.down_dropout = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The states after it."""
        hidden_BTF = self.up_dropout(F.relu(self.up(x_BTD)))
        y_BTD: Tensor = x_BTD + self.down_dropout(self.down(hidden_BTF))
        return y_BTD


def fused(t_V: Tensor, s_V: Tensor, *, mode: str, gate: float | Tensor | None, temperature: float) -> Tensor:
    """Log p of two logits (..., V). `hard` is not renormalised: its probabilities add up to at most 1 (Hoelder)."""
    if mode == "hard":
        assert gate is not None
        return gate * t_V.log_softmax(-1) + (1 - gate) * s_V.log_softmax(-1)
    surface_V = (temperature * s_V).log_softmax(-1)
    return ((t_V.log_softmax(-1) if mode == "postnorm" else t_V) + surface_V).log_softmax(-1)
