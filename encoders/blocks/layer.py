"""One layer of a Transformer: self-attention, cross-attention (where there is a memory), feed-forward, as residuals."""
# B batch, T positions, D width

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from encoders.blocks.attention import AttentionOptions, CrossAttention, SelfAttention
from encoders.blocks.feed_forward import FeedForward, FeedForwardOptions
from encoders.blocks.masks import Sight
from encoders.blocks.norms import Norm
from encoders.blocks.packed_attention import PackedSight
from encoders.blocks.past import KeyValues
from encoders.blocks.positions import Rotation


class LayerOptions:
    """What all layers of a stack share, apart from their widths.

    placement: pre: x + f(norm(x)), and a norm after the last layer (Xiong et al. 2020, arXiv 2002.04745);
    post: norm(x + f(x)), as Vaswani et al. 2017. dropout: of each f(x), and of the embedding.
    """

    def __init__(
        self,
        *,
        placement: Literal["pre", "post"],
        norm: Norm,
        attention: AttentionOptions,
        feed_forward: FeedForwardOptions,
    ) -> None:
        self.placement, self.norm = placement, norm
        self.attention, self.feed_forward = attention, feed_forward


class Residual(nn.Module):
    """The norm and the dropout around a block f, in either placement."""

    def __init__(self, *, dim: int, options: LayerOptions, dropout: Annotated[float, Field(ge=0, lt=1)]) -> None:
        super().__init__()
        self.pre = options.placement == "pre"
        self.norm = options.norm.make(dim)
        self.dropout = nn.Dropout(dropout)

    def enter(self, x_BTD: Tensor) -> Tensor:
        """What f reads."""
        return self.norm(x_BTD) if self.pre else x_BTD

    def leave(self, x_BTD: Tensor, f_BTD: Tensor) -> Tensor:
        """The states after f."""
        x_BTD = x_BTD + (self.dropout(f_BTD) if self.training else f_BTD)  # to call what does nothing takes time
        return x_BTD if self.pre else self.norm(x_BTD)


class Layer(nn.Module):
    """Self-attention, cross-attention (if `cross`), feed-forward."""

    def __init__(
        self, *, dim: int, heads: int, hidden: int, dropout: float, options: LayerOptions, cross: bool
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(dim=dim, heads=heads, options=options.attention)
        self.attention_residual = Residual(dim=dim, options=options, dropout=dropout)
        self.cross: CrossAttention | None = None
        if cross:
            self.cross = CrossAttention(dim=dim, heads=heads, options=options.attention)
            self.cross_residual = Residual(dim=dim, options=options, dropout=dropout)
        self.feed_forward = FeedForward(dim=dim, hidden=hidden, options=options.feed_forward)
        self.feed_forward_residual = Residual(dim=dim, options=options, dropout=dropout)

    def forward(
        self,
        x_BTD: Tensor,
        seen: Sight | PackedSight,
        rotation: Rotation | None,
        past: KeyValues | None,
        memory: KeyValues | None,
        memory_seen: Sight | PackedSight,
    ) -> tuple[Tensor, KeyValues]:
        """States (B, T, D), and the keys and values that the next positions will see."""
        f_BTD, keys_values = self.attention(self.attention_residual.enter(x_BTD), seen, rotation, past)
        x_BTD = self.attention_residual.leave(x_BTD, f_BTD)
        if self.cross is not None:
            assert memory is not None
            f_BTD = self.cross(self.cross_residual.enter(x_BTD), memory_seen, memory)
            x_BTD = self.cross_residual.leave(x_BTD, f_BTD)
        f_BTD = self.feed_forward(self.feed_forward_residual.enter(x_BTD))
        return self.feed_forward_residual.leave(x_BTD, f_BTD), keys_values
