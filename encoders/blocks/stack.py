"""A stack: positions, layers and the last norm, from embeddings to states. The families are arrangements of it."""
# B batch, T positions of this call, S positions seen (past ones too), N real positions of all rows, D width

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from encoders.base import positions_of
from encoders.blocks.layer import Layer, LayerOptions
from encoders.blocks.masks import Sight, see_past, see_real, sight
from encoders.blocks.packed_attention import PackedSight
from encoders.blocks.past import KeyValues, pair_of
from encoders.blocks.positions import Position
from encoders.blocks.segments import Segments

# what a thread takes through the layers at once, by measurement: fewer positions cost more in wide matrix products, and
# more numbers, of the feed-forward's hidden states, more in the cache
GROUP_POSITIONS, GROUP_NUMBERS = 2048, 2**20


def initial_std(dim: int) -> float:
    """Standard deviation of initial weights: the 0.02 of BERT and GPT-2 at their width of 768, and at other widths what
    gives a projection's outputs the same size.
    """
    return 0.02 * math.sqrt(768 / dim)


class StemOptions:
    """What becomes of embeddings before the first layer: times sqrt(dim) if `scaled` (Vaswani et al. 2017, section
    3.4), positions added, a norm if `norm` (BERT, BART).
    """

    def __init__(self, *, scaled: bool, norm: bool) -> None:
        self.scaled, self.norm = scaled, norm


class Layout(NamedTuple):
    """Where the positions of whole rows stand, and what each sees, where that is not what their order says."""

    positions: Tensor  # (B, T) int64, of each position
    seen: Tensor | None  # (B, 1, T or 1, T) bool, True: the query sees the key, each one at least; None: all

    def of(self, rows: slice) -> Layout:
        """That of some rows."""
        return Layout(self.positions[rows], None if self.seen is None else self.seen[rows])


class Stack(nn.Module):
    """`depth` layers over embeddings, bidirectional or `causal` (all of them, or each by itself), with cross-attention
    to a memory if `cross`.

    Batches are right-padded (the contract), so in a causal stack no real position sees padding: it needs no mask until
    positions follow a cached past. O(depth (T S D + T D^2)) time.
    """

    def __init__(
        self,
        *,
        dim: int,
        depth: int,
        heads: int,
        hidden: int,
        dropout: float,
        position: Position,
        stem: StemOptions,
        layer: LayerOptions,
        length: int,
        causal: bool | tuple[bool, ...],
        cross: bool,
    ) -> None:
        super().__init__()
        self.causal = (causal,) * depth if isinstance(causal, bool) else causal
        if len(self.causal) != depth:
            raise ValueError(f"causal: {len(self.causal)} values for {depth} layers; one each, or one for all")
        causal = all(self.causal) if self.causal else bool(causal)
        self.position = position.make(
            dim=dim, heads=heads, head_dim=layer.attention.width(dim, heads), length=length, causal=causal
        )
        self.hidden = hidden
        self.scale = math.sqrt(dim) if stem.scaled else None
        self.stem_norm = layer.norm.make(dim) if stem.norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            Layer(dim=dim, heads=heads, hidden=hidden, dropout=dropout, options=layer, cross=cross)
            for _ in range(depth)
        )
        self.norm = layer.norm.make(dim) if layer.placement == "pre" else nn.Identity()
        self._initialise(initial_std(dim))

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of the residual stream, as ids have it from their table."""
        return next((weight.dtype for weight in self.parameters()), torch.float32)

    def remember(self, memory_BSD: Tensor) -> list[KeyValues]:
        """Keys and values of a memory for each layer's cross-attention, made once."""
        crosses = [layer.cross for layer in self.layers if isinstance(layer, Layer)]
        return [cross.project(memory_BSD) for cross in crosses if cross is not None]

    def forward(
        self,
        x_BTD: Tensor,
        mask_BS: Tensor,
        *,
        past: list[KeyValues] | None = None,
        memory: list[KeyValues] | None = None,
        memory_mask: Tensor | None = None,
        segments: Segments | None = None,
        layout: Layout | None = None,
        keep: bool = True,
    ) -> tuple[Tensor, list[KeyValues]]:
        """States (B, T, D) of the last T of the S positions of the mask, and each layer's keys and values of all S.

        The S - T positions before are in `past`. Causal stacks alone can have one.

        With `segments`, those of the last T positions, `x` is packed, (1, N, D), and so are the states, and the keys
        and values unless there is a past, which is not. A memory is packed in the same segments if it has no mask. One
        of positions as they are may have fewer rows, each read by as many rows of `x`, which follow one another.

        A `layout` says where positions stand and what each sees, in a bidirectional stack that has no past and no
        segments.

        Without `keep` no keys and values are given back; rows may then go through the layers group by group.
        """
        assert layout is None or not (any(self.causal) or past or segments), "a layout is of a whole bidirectional row"
        groups = self._groups(x_BTD) if segments is None and not past and not keep else []
        if len(groups) < 2:
            x_BTD, cache = self._layers(x_BTD, mask_BS, past, memory, memory_mask, segments, layout, keep)
            return self.norm(x_BTD), cache
        found = []
        for rows in groups:
            keys_values: list[KeyValues] | None = None
            if memory is not None:
                keys_values = [(k[rows], v[rows]) for k, v in map(pair_of, memory)]
            real = None if memory_mask is None else memory_mask[rows]
            own = None if layout is None else layout.of(rows)
            states, _ = self._layers(x_BTD[rows], mask_BS[rows], None, keys_values, real, None, own, keep)
            found.append(self.norm(states))
        return torch.cat(found), []

    def enter(self, x_BTD: Tensor, places_BT: Tensor) -> Tensor:
        """What the first layer reads, of embeddings (B, T, D) at these positions, (B or 1, T)."""
        x_BTD = x_BTD.to(self.dtype)  # a linear map of channels gives bfloat16 under autocast
        x_BTD = x_BTD if self.scale is None else x_BTD * self.scale
        entered_BTD: Tensor = self.dropout(self.stem_norm(self.position.add(x_BTD, places_BT)))
        return entered_BTD

    def _groups(self, x_BTD: Tensor) -> list[slice]:
        """Rows that go through the layers together.

        All of them, but in evaluation on a CPU so many that their states stay in the cache from one block to the
        next: those of a large batch are fetched from memory each time, or are even new pages of the system's.
        """
        rows, length = x_BTD.shape[:2]
        if x_BTD.device.type != "cpu" or self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return []
        positions = max(GROUP_POSITIONS, GROUP_NUMBERS // self.hidden) * torch.get_num_threads()
        size = max(1, positions // max(1, length))
        return [slice(i, i + size) for i in range(0, rows, size)]

    def _layers(
        self,
        x_BTD: Tensor,
        mask_BS: Tensor,
        past: list[KeyValues] | None,
        memory: list[KeyValues] | None,
        memory_mask: Tensor | None,
        segments: Segments | None,
        layout: Layout | None,
        keep: bool,
    ) -> tuple[Tensor, list[KeyValues]]:
        """As forward, all rows at once, before the last norm."""
        queries = x_BTD.shape[1] if segments is None else segments.mask_BL.shape[1]
        keys = mask_BS.shape[1]
        seen: Tensor | None = None
        if layout is not None:
            key_positions = query_positions = layout.positions
        elif queries == keys:  # nothing cached: right padding leaves positions as they are counted
            key_positions = query_positions = torch.arange(queries, device=x_BTD.device).unsqueeze(0)
            if self.training and not keep:  # what follows is counted on from where it is
                key_positions = query_positions = self.position.places(query_positions, len(mask_BS))
        else:
            key_positions = positions_of(mask_BS)
            query_positions = key_positions[:, keys - queries :]
            seen = see_past(mask_BS, queries)

        places = query_positions
        if segments is not None:
            places = segments.pack(query_positions.expand(segments.mask_BL.shape))
        x_BTD = self.enter(x_BTD, places)
        rotation = self.position.rotation(places)

        bias = self.position.bias(query_positions, key_positions)
        owns: dict[bool, Sight | PackedSight] = {}
        for causal in dict.fromkeys(self.causal):
            real = see_real(mask_BS) if queries == keys and not causal and segments is None else None
            real = real if layout is None else layout.seen
            own = sight(seen if queries < keys else real, bias, causal=causal and queries == keys, queries=queries)
            owns[causal] = own if segments is None else PackedSight(segments, own, queries == keys)
        whole = Sight(None if memory_mask is None else see_real(memory_mask), False)
        other = whole if segments is None else PackedSight(segments, whole, memory_mask is None)
        cache = []
        for i, layer in enumerate(self.layers):
            x_BTD, keys_values = layer(
                x_BTD,
                owns[self.causal[i]],
                rotation,
                past[i] if past else None,
                memory[i] if memory else None,
                other,
            )
            if keep:
                cache.append(keys_values)
        return x_BTD, cache

    @torch.no_grad()
    def _initialise(self, std: float) -> None:
        """Weights and tables normal with `std`, biases 0; projections into the residual stream smaller by the square
        root of their number, so that depth does not make states larger (Radford et al. 2019, GPT-2, section 2.3).
        """
        into = [linear for layer in self.layers for linear in _projections(layer)]
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for linear in into:
            nn.init.normal_(linear.weight, std=std / math.sqrt(len(into)))


def _projections(layer: nn.Module) -> list[nn.Linear]:
    """The linear maps of a layer that write into the residual stream."""
    assert isinstance(layer, Layer)
    cross = [] if layer.cross is None else [layer.cross.out]
    return [layer.attention.out, *cross, layer.feed_forward.down]


def initialise_tables(module: nn.Module, stem: StemOptions) -> None:
    """Input tables normal: with variance 1/D where the stem multiplies by sqrt(D), so that what enters the stack has
    unit variance and logits tied to the table have, too; else as a stack's weights. Unit variance matters: two layers
    of width 64 learnt associative recall (4 pairs, AdamW at 3e-3) in 100 steps with it, in 300 not without.
    Linear maps of channels keep torch's own start (over sqrt(D) where the stem multiplies), bias included: with one
    channel and no bias, the first norm would leave nothing of a value but its sign.
    """
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            dim = part.embedding_dim
            nn.init.normal_(part.weight, std=dim**-0.5 if stem.scaled else initial_std(dim))
        elif isinstance(part, nn.Linear) and stem.scaled:
            with torch.no_grad():
                for weight in part.parameters():
                    weight.mul_(part.out_features**-0.5)
