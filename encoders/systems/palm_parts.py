"""Parts of PALM: what its partial attention reads, and how much of a joint softmax falls on the source."""
# B batch, L source positions, T target positions, S positions that are seen, D width, H heads, G of keys, E head width

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.base import Sequences
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
    return attention.weights(q_BHTE, k_BGSE, seen)[..., :first].sum(-1).mean(1)


def layer_over_source(
    layer: Layer, x_BLD: Tensor, own: Sight, rotation: Rotation | None, seen: Sight, source_map: nn.Module | None
) -> tuple[Tensor, KeyValues, list[KeyValues]]:
    """A layer of the source pass: its states, its keys and values, and those of its partial attention, if it has one.

    The partial attention reads what self-attention has left, so it can't be given to the layer from without.
    """
    f_BLD, keys_values = layer.attention(layer.attention_residual.enter(x_BLD), own, rotation, None)
    x_BLD = layer.attention_residual.leave(x_BLD, f_BLD)
    memory: list[KeyValues] = []
    if source_map is not None:
        assert layer.cross is not None
        s_BLD = layer.cross_residual.enter(x_BLD)
        memory = [layer.cross.project(source_map(s_BLD))]
        x_BLD = layer.cross_residual.leave(x_BLD, layer.cross(s_BLD, seen, memory[0]))
    f_BLD = layer.feed_forward(layer.feed_forward_residual.enter(x_BLD))
    return layer.feed_forward_residual.leave(x_BLD, f_BLD), keys_values, memory


def next_tokens(top_BLD: Tensor, source: Sequences, table_VD: Tensor) -> Tensor:
    """Mean cross-entropy of each source id after the first, in nats, given those before it; 0 where there is none."""
    real = source.mask[:, 1:]
    logits_MV = F.linear(top_BLD[:, :-1][real], table_VD).float()
    return F.cross_entropy(logits_MV, source.values[:, 1:][real], reduction="sum") / max(1, len(logits_MV))
