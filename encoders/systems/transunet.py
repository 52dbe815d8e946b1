"""TransUNet: a Transformer over the coarsest map of a CNN, and a decoder that takes the CNN's finer maps in again."""
# B batch, L positions (squares of pixels), P patches of 16 x 16 pixels, D width, C channels, h w sides of a map

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Encoder, InputSpec, Sequences, States, check_length
from encoders.blocks.attention import AttentionOptions, SelfAttention
from encoders.blocks.convolution import normed
from encoders.blocks.feed_forward import FeedForward, FeedForwardOptions
from encoders.blocks.masks import Sight
from encoders.systems.transunet_stem import Stem

SIDE = 16  # pixels of a patch


class TransUNet(Encoder):
    """Chen et al. 2021, arXiv 2102.04306, figure 1, as in the official code (Beckschen/TransUNet at 02ef001).

    CNN -> 1x1 convolution of its map at 1/16 -> `depth` Transformer layers over its places -> cascaded upsampler, which
    joins the CNN's maps at 1/8, 1/4 and 1/2 (the first `skips` of them) to its own. A state is a pixel.

    What the paper compares are switches: `depth` 0 is the U-Net, R50-U-Net (a last norm stays); `skips` 0 R50-ViT-CUP;
    `stem` patches, with `skips` 0, ViT-CUP, a Transformer over 16 x 16 pixels each (Dosovitskiy et al. 2021); `decoder`
    none the plain Transformer, whose states are patches, upsampled by the task. Positions begin at a normal with
    `position_std`; the official ones at 0, which learns slowly from scratch. Batch norms, after the paper, make a
    training step depend on all its rows. What is missing of an image is zeros. O(P^2 D) time beside the convolutions'.

    Raises ValueError for ids and for channels that are no image, for squares that are no multiple of 16 pixels, and for
    skips of what has no maps or takes none.
    """

    family: ClassVar[str] = "hybrid"

    def __init__(
        self,
        *,
        stem: Literal["cnn", "patches"],
        stem_width: Annotated[int, Field(gt=0)],
        units: list[int],
        dim: Annotated[int, Field(gt=0)],
        depth: Annotated[int, Field(ge=0)],
        heads: Annotated[int, Field(gt=0)],
        hidden: Annotated[int, Field(gt=0)],
        dropout: Annotated[float, Field(ge=0, lt=1)],
        attention_dropout: Annotated[float, Field(ge=0, lt=1)],
        position_std: Annotated[float, Field(ge=0)],
        decoder: Literal["cup", "none"],
        decoder_channels: list[int],
        skips: Annotated[int, Field(ge=0, le=3)],
        spec: InputSpec,
    ) -> None:
        super().__init__()
        if spec.grid is None or spec.channels is None:
            raise ValueError("this encoder reads images alone, and the task feeds none; use a segmentation task")
        if spec.grid.patch % SIDE:
            raise ValueError(
                f"squares of {spec.grid.patch} pixels a side; set task.patch to {SIDE}, task.crop to a multiple"
            )
        if skips and (stem == "patches" or decoder == "none"):
            raise ValueError(f"skips: {skips}, with stem {stem} and decoder {decoder}; use skips=0")
        self.spec, self.grid, self.skips, self.causal = spec, spec.grid, skips, False
        inputs = spec.channels // spec.grid.patch**2
        self.grey = inputs == 1  # repeated three times, as the official code does for what was trained on colours
        inputs = 3 if self.grey else inputs
        self.stem = Stem(inputs=inputs, width=stem_width, units=units) if stem == "cnn" else None
        side, inputs = (1, 16 * stem_width) if stem == "cnn" else (SIDE, inputs)
        self.embed = nn.Conv2d(inputs, dim, side, stride=side)
        self.position = nn.Parameter(torch.zeros(spec.max_length * (spec.grid.patch // SIDE) ** 2, dim))
        nn.init.normal_(self.position, std=position_std)
        self.dropout = nn.Dropout(dropout)
        attention = AttentionOptions(kv_heads=None, head_dim=None, bias=True, scaled=True, dropout=attention_dropout)
        self.layers = nn.ModuleList(
            Layer(dim=dim, heads=heads, hidden=hidden, dropout=dropout, attention=attention) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.decoder: Cup | None = None
        if decoder == "cup":
            joined = [8 * stem_width, 4 * stem_width, stem_width][:skips]
            self.decoder = Cup(dim=dim, channels=decoder_channels, skips=joined)
        self.dim = decoder_channels[-1] if decoder == "cup" else dim

    def forward(self, source: Sequences) -> States:
        """States of the image, a pixel each (a patch without decoder), square by square."""
        check_length(source, self.spec)
        rows, length = source.mask.shape
        values_BLC = F.pad(source.values * source.mask.unsqueeze(-1), (0, 0, 0, self.spec.max_length - length))
        x_BChw = self.grid.lay_out(values_BLC.reshape(rows, values_BLC.shape[1] * self.grid.patch**2, -1))
        skips: list[Tensor] = []
        if self.grey:
            x_BChw = x_BChw.expand(-1, 3, -1, -1)
        if self.stem is not None:
            x_BChw, skips = self.stem(x_BChw)
        x_BDhw = self.embed(x_BChw)
        x_BPD = self.dropout(x_BDhw.flatten(2).transpose(1, 2) + self.position)
        for layer in self.layers:
            x_BPD = layer(x_BPD)
        x_BDhw = self.norm(x_BPD).transpose(1, 2).unflatten(2, x_BDhw.shape[2:])
        if self.decoder is not None:
            x_BDhw = self.decoder(x_BDhw, skips[: self.skips])
        cells = self.num_states(1)
        states_BND = self.grid.line_up(x_BDhw)[:, : length * cells]
        return States(values=states_BND, mask=source.mask.repeat_interleave(cells, dim=1))

    def num_states(self, length: int) -> int:
        """Pixels, or patches, of `length` squares."""
        return length * (self.grid.patch if self.decoder is not None else self.grid.patch // SIDE) ** 2


class Layer(nn.Module):
    """A layer of the Vision Transformer: x + attention(norm(x)), then x + feed-forward(norm(x)).

    Dropout is within and after the feed-forward alone. The feed-forward begins with Xavier's weights and biases near 0.
    """

    def __init__(self, *, dim: int, heads: int, hidden: int, dropout: float, attention: AttentionOptions) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, eps=1e-6)
        self.attention = SelfAttention(dim=dim, heads=heads, options=attention)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        options = FeedForwardOptions(activation="gelu", gated=False, bias=True, dropout=dropout)
        self.feed_forward = FeedForward(dim=dim, hidden=hidden, options=options)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.feed_forward.up, self.feed_forward.down):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.normal_(linear.bias, std=1e-6)

    def forward(self, x_BPD: Tensor) -> Tensor:
        """States (B, P, D)."""
        f_BPD, _ = self.attention(self.attention_norm(x_BPD), Sight(None, False), None, None)
        x_BPD = x_BPD + f_BPD
        f_BPD = self.feed_forward(self.norm(x_BPD))
        out_BPD: Tensor = x_BPD + self.dropout(f_BPD)
        return out_BPD


class Cup(nn.Module):
    """Cascaded upsampler: map (B, D, h, w) -> (B, channels[-1], 16 h, 16 w).

    A convolution to channels[0]; then four times: twice the size (bilinear, corners aligned), joined with a skip where
    there is one, two convolutions. Each is 3x3 with batch norm and ReLU.
    """

    def __init__(self, *, dim: int, channels: list[int], skips: list[int]) -> None:
        super().__init__()
        if len(channels) != 5 or min(channels) < 1:
            raise ValueError(f"decoder_channels: {channels}; give five, of the first map and of each size after it")
        self.first = Convolved(dim, channels[0])
        joined = [*skips, 0, 0, 0, 0]
        self.blocks = nn.ModuleList(
            nn.Sequential(Convolved(before + more, after), Convolved(after, after))
            for before, more, after in zip(channels, joined, channels[1:], strict=False)
        )

    def forward(self, x_BDhw: Tensor, skips: list[Tensor]) -> Tensor:
        """The map at the image's size, of the skips that it was made for, coarsest first."""
        x_BDhw = self.first(x_BDhw)
        for i, block in enumerate(self.blocks):
            x_BDhw = F.interpolate(x_BDhw, scale_factor=2, mode="bilinear", align_corners=True)
            x_BDhw = block(torch.cat((x_BDhw, *skips[i : i + 1]), dim=1))
        return x_BDhw


class Convolved(nn.Sequential):
    """ReLU(BN(conv(x))), the convolution 3x3; parts by number, as in the official code."""

    def __init__(self, inputs: int, outputs: int) -> None:
        conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))

    def forward(self, x_BChw: Tensor) -> Tensor:
        """The map, (B, outputs, h, w)."""
        conv, norm, relu = self
        activated_BChw: Tensor = relu(normed(norm, conv(x_BChw)))
        return activated_BChw
