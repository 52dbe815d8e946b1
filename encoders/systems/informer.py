"""Informer: sparse attention, a distilling encoder, a decoder of one pass (Zhou et al. 2021, arXiv 2012.07436)."""
# B batch, L positions, T known + horizon, C channels, D width, H heads, E head width

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Encoder, InputSpec, Sequences, States, check_length
from encoders.blocks.attention import AttentionOptions, CrossAttention
from encoders.blocks.convolution import normed
from encoders.blocks.feed_forward import FeedForward, FeedForwardOptions
from encoders.blocks.masks import Sight
from encoders.systems.informer_embedding import Embedding
from encoders.systems.prob_sparse import Full, ProbSparse


class Informer(Encoder):
    """Encoder and generative decoder; its states are those of the `spec.target_length` positions after the source.

    `attention: full` puts canonical attention in place of ProbSparse (the paper's Informer-dagger), with the same
    weights. `distil` halves the length between the layers of the encoder. The decoder reads the last `start` known
    values, then zeros, in one pass (section 3, "generative inference"); its cross-attention is full, as in the official
    code. `mix`: heads and positions of its self-attention are shuffled together, as there. `stacks`: so many encoders,
    each a layer less deep, on the last L, L/2, L/4 ... positions (InformerStack: 3), their outputs one after another.
    `lazy`: what a query that is not active gets in the decoder: `sum` of the values so far (official code), or their
    `mean`. A stream `time` (calendar features of source and horizon) is added where a task feeds it.

    O(L log L D) time and memory. Rows of one length are worked on together, so nothing is padded; the batch
    normalisation of distilling has the statistics of such a group. On CUDA sums so far have no deterministic kernel:
    there use `deterministic=false`. Raises ValueError for ids, for a task that asks for nothing after the source, for
    an odd `dim` and for a source beyond `spec.max_length`.
    """

    family: ClassVar[str] = "encoder-decoder"
    reads: ClassVar[frozenset[str]] = frozenset({"time"})
    ahead: ClassVar[bool] = True
    depths: ClassVar[tuple[str, ...]] = ("depth", "decoder_depth")
    causal = False

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(gt=0)],
        depth: Annotated[int, Field(gt=0)],
        decoder_depth: Annotated[int, Field(gt=0)],
        heads: Annotated[int, Field(gt=0)],
        hidden: Annotated[int, Field(gt=0)],
        dropout: Annotated[float, Field(ge=0, lt=1)],
        start: Annotated[int, Field(gt=0)],
        attention: Literal["prob", "full"],
        factor: Annotated[int, Field(gt=0)],
        lazy: Literal["sum", "mean"],
        distil: bool,
        mix: bool,
        stacks: Annotated[int, Field(gt=0)],
        spec: InputSpec,
    ) -> None:
        super().__init__()
        if spec.channels is None or not spec.target_length:
            fed = "ids" if spec.channels is None else "no rows after the source"
            raise ValueError(f"encoder: Informer forecasts rows of float channels; this task has {fed}; use waves")
        if stacks > depth:
            raise ValueError(
                f"stacks: {stacks} encoders, each a layer less deep, need a depth of {stacks}; got {depth}"
            )
        self.dim, self.start, self.horizon, self.spec = dim, start, spec.target_length, spec

        def layer(length: int, *, cross: bool = False) -> Layer:
            core: ProbSparse | Full = Full(causal=cross, dropout=dropout)
            if attention == "prob":
                core = ProbSparse(length=length, factor=factor, causal=cross, running_mean=lazy == "mean")
            return Layer(core, dim=dim, heads=heads, hidden=hidden, dropout=dropout, mix=mix and cross, cross=cross)

        self.embed = Embedding(dim=dim, length=spec.max_length, dropout=dropout, spec=spec)
        self.encoders = nn.ModuleList(
            Tower([layer(spec.max_length) for _ in range(depth - i)], distil=distil, dim=dim) for i in range(stacks)
        )
        length = start + self.horizon
        self.decoder_embed = Embedding(dim=dim, length=length, dropout=dropout, spec=spec)
        self.decoder = nn.ModuleList(layer(length, cross=True) for _ in range(decoder_depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, source: Sequences) -> States:
        """States (B, horizon, D) of what follows, rows of equal length together."""
        check_length(source, self.spec)
        lengths_B = source.mask.sum(1)
        groups = [(n, (lengths_B == n).nonzero().squeeze(1)) for n in torch.unique(lengths_B).tolist()]
        if not groups:
            return States(
                values=source.values.new_zeros(0, self.horizon, self.dim), mask=source.mask.new_ones(0, self.horizon)
            )
        found = torch.cat([self._equally_long(source, rows, n) for n, rows in groups])
        order = torch.cat([rows for _, rows in groups]).argsort()
        return States(values=found[order], mask=source.mask.new_ones(len(order), self.horizon))

    def _equally_long(self, source: Sequences, rows: Tensor, length: int) -> Tensor:
        """The paper's figure 2, for rows without padding."""
        values_BLC, known = source.values[rows, :length], min(self.start, length)
        zeros_BHC = values_BLC.new_zeros(len(rows), self.horizon, values_BLC.shape[2])
        start_BTC = torch.cat([values_BLC[:, length - known :], zeros_BHC], 1)
        time = source.streams.get("time")
        x_BLD = self.embed(values_BLC, time, rows, 0)
        memory_BSD = torch.cat([tower(x_BLD[:, -max(1, length >> i) :]) for i, tower in enumerate(self.encoders)], 1)
        y_BTD = self.decoder_embed(start_BTC, time, rows, length - known)
        for layer in self.decoder:
            y_BTD = layer(y_BTD, memory_BSD)
        states_BTD: Tensor = self.norm(y_BTD)
        return states_BTD[:, known:]

    def num_states(self, length: int) -> int:
        """The horizon, whatever the source."""
        return self.horizon


class Tower(nn.Module):
    """Layers of an encoder, between any two of which `distil` halves the length, and a norm."""

    def __init__(self, layers: list[Layer], *, distil: bool, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.between = nn.ModuleList(Distil(dim) if distil else nn.Identity() for _ in layers[1:])
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """States of the source, (B, L', D)."""
        x_BLD = self.layers[0](x_BLD, None)
        for between, layer in zip(self.between, self.layers[1:], strict=True):
            x_BLD = layer(between(x_BLD), None)
        states_BLD: Tensor = self.norm(x_BLD)
        return states_BLD


class Distil(nn.Module):
    """MaxPool(ELU(BN(Conv(x)))), L -> ceil(L / 2) (equation 5; batch normalisation as in the official code)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(dim, dim, 3, padding=1, padding_mode="circular")
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """(B, ceil(L / 2), D)."""
        y_BDL = F.elu(normed(self.norm, self.convolution(x_BLD.transpose(1, 2))))
        return F.max_pool1d(y_BDL, 3, stride=2, padding=1).transpose(1, 2)


class Layer(nn.Module):
    """Self-attention, cross-attention (if `cross`), feed-forward; a norm after each of them."""

    def __init__(
        self, core: ProbSparse | Full, *, dim: int, heads: int, hidden: int, dropout: float, mix: bool, cross: bool
    ) -> None:
        super().__init__()
        options = AttentionOptions(kv_heads=None, head_dim=None, bias=True, scaled=True, dropout=dropout)
        self.head_dim, self.mix, self.core = options.width(dim, heads), mix, core
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.cross = CrossAttention(dim=dim, heads=heads, options=options) if cross else None
        inner = FeedForwardOptions(activation="gelu", gated=False, bias=True, dropout=dropout)
        self.feed_forward = FeedForward(dim=dim, hidden=hidden, options=inner)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3 if cross else 2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, memory_BSD: Tensor | None) -> Tensor:
        """States (B, L, D)."""
        first, *middle, last = self.norms
        x_BLD = first(x_BLD + self.dropout(self._attend(x_BLD)))
        if self.cross is not None:
            assert memory_BSD is not None
            y_BLD = self.cross(x_BLD, Sight(None, False), self.cross.project(memory_BSD))
            x_BLD = middle[0](x_BLD + self.dropout(y_BLD))
        states_BLD: Tensor = last(x_BLD + self.dropout(self.feed_forward(x_BLD)))
        return states_BLD

    def _attend(self, x_BLD: Tensor) -> Tensor:
        qkv_BHLE = (part.unflatten(2, (-1, self.head_dim)).transpose(1, 2) for part in self.qkv(x_BLD).chunk(3, -1))
        y_BHLE = self.core(*qkv_BHLE)
        y_BLHE = y_BHLE if self.mix else y_BHLE.transpose(1, 2)  # mixed: as it lies, heads and positions exchanged
        y_BLD: Tensor = self.out(y_BLHE.reshape(x_BLD.shape))
        return y_BLD
