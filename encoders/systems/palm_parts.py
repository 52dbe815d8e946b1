"""Parts of PALM: what its partial attention reads, and how much of a joint softmax falls on the source."""
# B batch, L source positions, T target positions, S positions that are seen, D width, H heads, G of keys, E head width

from __future__ import annotations

import torch
from torch import Tensor, nn

from encoders.blocks.attention import SelfAttention
from encoders.blocks.feed_forward import ACTIVATIONS
from encoders.blocks.layer import Layer
from encoders.blocks.masks import Sight
from encoders.blocks.past import KeyValues, pair_of
from encoders.blocks.positions import Rotation
from encoders.blocks.stack import Stack


def layers_of(stack: Stack) -> list[Layer]:
    """The layers of a stack, by their type."""
    return [layer for layer in stack.layers if isinstance(layer, Layer)]


class SourceMap(nn.Module):
    """F_p, what a layer's partial attention reads of its source states: P1 = f(W1 s), P1 + W2 P1, dropout of each."""

    def __init__(self, *, dim: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.activation = ACTIVATIONS[activation]
        self.first_dropout, self.second_dropout = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, s_BLD: Tensor) -> Tensor:
        """P, (B, L, D)."""
        first_BLD: Tensor = self.first_dropout(self.activation(self.first(s_BLD)))
        second_BLD: Tensor = self.second_dropout(self.second(first_BLD))
        return first_BLD + second_BLD


def share_of_first(
    attention: SelfAttention, x_BTD: Tensor, seen: Sight, rotation: Rotation | None, past: KeyValues, first: int
) -> Tensor:
    """Share of each query's weights that falls on the `first` keys, mean over heads, (B, T)."""
    q_BHTE, k_BGTE, _ = attention.project(x_BTD, rotation)
    k_BGSE = torch.cat((pair_of(past)[0], k_BGTE), dim=2)
    k_BHSE = k_BGSE.repeat_interleave(attention.heads // attention.groups, dim=1)
    scale = q_BHTE.shape[3] ** -0.5 if attention.scale is None else attention.scale
    scores_BHTS = scale * q_BHTE @ k_BHSE.transpose(2, 3)
    if seen.mask is not None:
        which = seen.mask.dtype == torch.bool
        scores_BHTS = scores_BHTS.masked_fill(~seen.mask, -torch.inf) if which else scores_BHTS + seen.mask
    return scores_BHTS.softmax(-1)[..., :first].sum(-1).mean(1)
