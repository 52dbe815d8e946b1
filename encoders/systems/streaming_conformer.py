"""A Conformer of limited context that runs in chunks with caches (Noroozi et al. 2024, ICASSP, arXiv 2312.17279)."""
# B batch, L frames, P states, T of a chunk, S cached ones, K kernel size - 1, F cached frames, N blocks, W windows

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Encoder, InputSpec, Sequences, States, check_length
from encoders.systems.conformer_parts import ConformerBlock, Subsampling, halved, latest, visible


class Cache(NamedTuple):
    """What a stream has to keep: constant in its length."""

    frames: Tensor  # (B, F, channels) the last factor + 1
    heard: Tensor  # (B, F) bool, the real ones of them
    attended: Tensor  # (B, N, S, D) inputs of the blocks' attentions, of the last `left` states
    known: Tensor  # (B, S) bool, those of them that there were
    convolved: Tensor  # (B, N, K, D) inputs of the blocks' depthwise convolutions


class StreamingConformer(Encoder):
    """A state for each `factor` frames; official code: NVIDIA/NeMo@8cfedd7, asr/modules/conformer_encoder.py.

    State j is seen by state i, of chunks of c = R + 1 states for a look-ahead R,

    - style `chunked`: iff 0 <= floor(i / c) - floor(j / c) <= left / c: the look-ahead does not grow with depth;
    - style `regular`: iff i - left <= j <= i + R: it adds up to depth * R;
    - style `full`: always.

    All else is causal, so that the same network may be trained in each way. In training R is one of `look_aheads`,
    drawn for each batch; `look_ahead` is R in evaluation (null: the first of them), `inference` how it is computed
    there: `whole` rows under the mask; `cached`, for chunked, by `step`, chunk after chunk with equal states;
    `buffered`, for full: windows of `left` states, a chunk of (R + 1) // 2 and what remains of R + 1 to the right, each
    computed anew, of which the chunk is kept. Dropout stands after each part, in the feed-forwards and on attention
    weights; NeMo's SpecAugment is not part of it. O(P^2 D) time.

    ValueError for heads that don't divide `dim`, an odd `dim`, a factor that is no power of 2, chunks that don't divide
    `left`, a style that does not run as `inference` says, ids, and a source beyond `spec.max_length`.
    """

    family: ClassVar[str] = "encoder-only"
    test_only: ClassVar[Mapping[str, Any]] = MappingProxyType({"look_ahead": None, "inference": "whole"})

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(gt=0, multiple_of=2)],
        depth: Annotated[int, Field(gt=0)],
        heads: Annotated[int, Field(gt=0)],
        hidden: Annotated[int, Field(gt=0)],
        dropout: Annotated[float, Field(ge=0, lt=1)],
        factor: Literal[2, 4, 8],
        channels: Annotated[int, Field(gt=0)],
        kernel: Annotated[int, Field(gt=0)],
        style: Literal["chunked", "regular", "full"],
        left: Annotated[int, Field(ge=0)],
        look_aheads: list[int],
        look_ahead: Annotated[int, Field(ge=0)] | None,
        inference: Literal["whole", "cached", "buffered"],
        spec: InputSpec,
    ) -> None:
        super().__init__()
        if spec.channels is None:
            raise ValueError("the streaming Conformer reads frames of channels; this task feeds ids; use fsdd")
        if not look_aheads or min(look_aheads) < 0:
            raise ValueError(f"look_aheads: {look_aheads}; one state or more, each 0 or more")
        self.trained, self.tested = look_aheads, look_aheads[0] if look_ahead is None else look_ahead
        unfit = [R for R in (*look_aheads, self.tested) if left % (R + 1)]
        if style == "chunked" and unfit:
            fit = math.lcm(*(R + 1 for R in (*look_aheads, self.tested)))
            told = f"{left} states are no whole number of chunks of {unfit[0] + 1} (look-ahead + 1)"
            raise ValueError(f"left: {told}; use a multiple of {fit}")
        needed = {"whole": style, "cached": "chunked", "buffered": "full"}[inference]
        if style != needed:
            raise ValueError(f"inference: {inference} is for style {needed}, not {style}")
        self.dim, self.spec, self.factor, self.kernel = dim, spec, factor, kernel
        self.left, self.style, self.inference = left, style, inference
        self.causal = style != "full" and not any((*look_aheads, self.tested))
        self.stages = factor.bit_length() - 1
        self.subsample = Subsampling(bands=spec.channels, channels=channels, stages=self.stages, dim=dim)
        reach = max(self.num_states(spec.max_length), left + self.tested + 1)
        self.blocks = nn.ModuleList(
            ConformerBlock(dim=dim, heads=heads, hidden=hidden, kernel=kernel, dropout=dropout, reach=reach)
            for _ in range(depth)
        )
        self.dropout = nn.Dropout(dropout)

    def num_states(self, length: int) -> int:
        """State j is of frames up to factor * j."""
        return halved(length, self.stages)

    def forward(self, source: Sequences) -> States:
        """States of the source: in training under the mask of a drawn look-ahead, else as `inference` says."""
        check_length(source, self.spec)
        if self.training:
            drawn = int(torch.randint(len(self.trained), ())) if len(self.trained) > 1 else 0
            return self.whole(source, self.trained[drawn])
        if self.inference == "cached":
            return self.cached(source, self.tested)
        return (self.buffered if self.inference == "buffered" else self.whole)(source, self.tested)

    def whole(self, source: Sequences, look_ahead: int) -> States:
        """All states at once, under the mask."""
        x_BPD, mask_BP = self.subsample(source.values, source.mask)
        number, device = mask_BP.shape[1], mask_BP.device
        seen_PP = visible(number, style=self.style, left=self.left, look_ahead=look_ahead, device=device)
        seen_BPP = seen_PP & mask_BP[:, None, :] | torch.eye(number, dtype=torch.bool, device=device)
        x_BPD = self.dropout(x_BPD * math.sqrt(self.dim))
        for block in self.blocks:
            x_BPD, _, _ = block(x_BPD, seen_BPP, None, None)
        return States(values=x_BPD, mask=mask_BP)

    def cached(self, source: Sequences, look_ahead: int) -> States:
        """The same states, by `step` after `step`."""
        number, start = self.num_states(source.mask.shape[1]), 0
        chunks: list[States] = []
        cache: Cache | None = None
        while len(chunks) * (look_ahead + 1) < number:
            stop = start + self.frames(look_ahead, first=cache is None)
            chunk = Sequences(values=source.values[:, start:stop], mask=source.mask[:, start:stop])
            states = self.step(chunk, cache, look_ahead)
            chunks.append(states)
            start, cache = stop, states.cache
        values_BPD = torch.cat([states.values for states in chunks], 1)[:, :number]
        return States(values=values_BPD, mask=torch.cat([states.mask for states in chunks], 1)[:, :number])

    def frames(self, look_ahead: int, *, first: bool) -> int:
        """Frames of a chunk."""
        return self.factor * look_ahead + 1 if first else self.factor * (look_ahead + 1)

    def step(self, chunk: Sequences, cache: Cache | None, look_ahead: int) -> States:
        """The look_ahead + 1 states of a chunk of frames, final as they are, and the cache for the next; None: a start.

        A row that ends has a chunk of fewer frames, or none, by its mask; states beyond its end are masked.
        """
        states, rows = look_ahead + 1, len(chunk.values)
        fill = self.frames(look_ahead, first=cache is None) - chunk.mask.shape[1]
        values_BLC, mask_BL = F.pad(chunk.values, (0, 0, 0, fill)), F.pad(chunk.mask, (0, fill))
        if cache is None:
            x_BTD, real_BT = self.subsample(values_BLC, mask_BL)
            attended = x_BTD.new_zeros(rows, len(self.blocks), self.left, self.dim)
            convolved = x_BTD.new_zeros(rows, len(self.blocks), self.kernel - 1, self.dim)
            known_BS = mask_BL.new_zeros(rows, self.left)
        else:
            values_BLC = torch.cat((cache.frames, values_BLC), 1)
            mask_BL = torch.cat((cache.heard, mask_BL), 1)
            x_BTD, real_BT = self.subsample(values_BLC, mask_BL)
            x_BTD, real_BT = x_BTD[:, 2:], real_BT[:, 2:]  # two states that only the cached frames are behind
            _, _, attended, known_BS, convolved = cache
        x_BTD, real_BT = x_BTD[:, :states] * math.sqrt(self.dim), real_BT[:, :states]
        known_BS = torch.cat((known_BS, real_BT), 1)
        own_TS = F.pad(torch.eye(states, dtype=torch.bool, device=x_BTD.device), (self.left, 0))
        seen_BTS = known_BS[:, None, :] | own_TS
        kept = []
        for i, block in enumerate(self.blocks):
            x_BTD, new_BTD, last_BKD = block(x_BTD, seen_BTS, attended[:, i], convolved[:, i])
            kept.append((torch.cat((attended[:, i], new_BTD), 1)[:, states:], last_BKD))
        after = Cache(
            frames=latest(values_BLC, self.factor + 1),
            heard=latest(mask_BL, self.factor + 1),
            attended=torch.stack([attended_BSD for attended_BSD, _ in kept], 1),
            known=known_BS[:, states:],
            convolved=torch.stack([convolved_BKD for _, convolved_BKD in kept], 1),
        )
        return States(values=x_BTD, mask=real_BT, cache=after)

    def buffered(self, source: Sequences, look_ahead: int) -> States:
        """What windows that overlap give, of which each is a source of its own."""
        rows, length = source.mask.shape
        number, chunk = self.num_states(length), max(1, (look_ahead + 1) // 2)
        device = source.mask.device
        kept_W = torch.arange(0, number, chunk, device=device)  # first state that is kept of each window
        start_W = (kept_W - self.left).clamp_min(0)
        end_W = kept_W + look_ahead + 1
        frame_WL = self.factor * start_W[:, None] + torch.arange(
            self.factor * (self.left + look_ahead) + 1, device=device
        )
        inside_WL = (frame_WL <= self.factor * (end_W[:, None] - 1)) & (frame_WL < length)
        frame_WL = frame_WL.clamp_max(length - 1)
        window = Sequences(
            values=source.values[:, frame_WL].flatten(0, 1), mask=(source.mask[:, frame_WL] & inside_WL).flatten(0, 1)
        )
        states = self.whole(window, look_ahead)
        place_WT = (kept_W - start_W)[:, None] + torch.arange(chunk, device=device)
        every_W1 = torch.arange(len(kept_W), device=device)[:, None]

        def kept(x: Tensor) -> Tensor:
            """(B, P, ...) of what the rows' windows have, (B * W, states of a window, ...)."""
            return x.view(rows, len(kept_W), *x.shape[1:])[:, every_W1, place_WT].flatten(1, 2)[:, :number]

        return States(values=kept(states.values), mask=kept(states.mask))
