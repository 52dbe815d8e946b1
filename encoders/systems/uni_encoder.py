"""Uni-Encoder: a context and all of its candidates in one pass (Song et al. 2023, arXiv 2106.01263)."""
# B batch, L positions of a context and its candidates, D width

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal, Unpack

import torch
from torch import Tensor, nn

from encoders.base import Encoder, InputSpec, Sequences, States, check_length
from encoders.blocks.masks import see_real
from encoders.blocks.stack import Layout, initialise_tables
from encoders.blocks.transformer import Arguments, embedding_of, stack_of

Attention = Literal["arrow", "square", "diag"]


class UniEncoder(Encoder):
    """BERT over [context, candidate 1, ..., candidate N], told apart by the stream "part": 0 and 1 .. N.

    h0 = E[x] + T[part > 0] + P[position]. Every candidate's positions begin where the context's end
    (`same_positions`; else they run on), and in every layer and head, with `attention`

      arrow   the context sees all, candidate i sees the context and itself (the proposed one);
      square  all see all;
      diag    each part sees itself: a bi-encoder in one pass.

    So with `same_positions` no state depends on the order of the candidates, and with one candidate arrow and square
    are BERT on the pair. The paper's abstract says that candidates do not see each other; through the context they do,
    from the second layer on. Parts may stand in any order and be interleaved. Without the stream all is context: BERT.
    As the code, dll-wu/Uni-Encoder@3c8186c, has it (the paper's text was not seen). O(L^2 D) time a layer: what is
    not seen is worked on, too. Pooling and scores are the task's.

    A source may be longer than `spec.max_length`: that is the number of positions, which candidates share. Raises
    ValueError where one would stand beyond it.
    """

    family: ClassVar[str] = "encoder-only"
    reads: ClassVar[frozenset[str]] = frozenset({"part"})

    def __init__(
        self,
        *,
        attention: Attention,
        same_positions: bool,
        spec: InputSpec,
        **block: Unpack[Arguments],
    ) -> None:
        super().__init__()
        if block["patch"] != 1 and "part" in spec.streams:
            raise ValueError(f"patch: {block['patch']} positions are merged, of whatever part they are; use 1")
        self.dim, self.causal = block["dim"], False
        self.attention, self.same_positions, self.spec = attention, same_positions, spec
        self.embed = embedding_of(block, replace(spec, streams={}))
        self.token_type = nn.Embedding(2, self.dim)
        initialise_tables(self, block["stem"])
        self.stack = stack_of(block, length=self.embed.num_states(spec.max_length), causal=False, cross=False)

    def forward(self, source: Sequences) -> States:
        """States of the source, one a position, whatever part it is of."""
        part = source.streams.get("part")
        length, most = source.values.shape[1], self.spec.max_length
        if part is not None and not self.same_positions and length > most:
            raise ValueError(
                f"same_positions: false, so candidates run on to {length} positions; this encoder was made for at most "
                f"{most}; use true, or a larger task.max_length"
            )
        if part is None or length <= most:
            check_length(source, self.spec)
        x_BLD, mask_BL = self.embed.embed(source)
        part_BL = torch.zeros_like(source.mask, dtype=torch.int64) if part is None else part.values * mask_BL
        x_BLD = x_BLD + self.token_type(part_BL.clamp_max(1))[:, : x_BLD.shape[1]]
        layout = None if part is None else self._layout(part_BL, mask_BL)
        x_BLD, _ = self.stack(x_BLD, mask_BL, layout=layout, keep=False)
        return States(values=x_BLD, mask=mask_BL)

    def _layout(self, part_BL: Tensor, mask_BL: Tensor) -> Layout:
        """Where positions stand and what they see."""
        own_BLL = part_BL[:, :, None] == part_BL[:, None, :]
        seen = see_parts(part_BL, own_BLL, mask_BL, self.attention)
        length = mask_BL.shape[1]
        if not self.same_positions:
            return Layout(torch.arange(length, device=mask_BL.device).expand_as(part_BL), seen)
        positions_BL = part_positions(part_BL, own_BLL, mask_BL)
        if length > self.spec.max_length and int(positions_BL.max()) >= self.spec.max_length:
            raise ValueError(
                f"a context and a candidate of {int(positions_BL.max()) + 1} positions; this encoder was made for at "
                f"most {self.spec.max_length}"
            )
        return Layout(positions_BL, seen)

    def num_states(self, length: int) -> int:
        """Number of states for a source of `length` positions."""
        return self.embed.num_states(length)

    @property
    def token_embedding(self) -> Tensor | None:
        """The (V, D) table of ids; None for channels."""
        return None if self.embed.table is None else self.embed.table.weight


def part_positions(part_BL: Tensor, own_BLL: Tensor, mask_BL: Tensor) -> Tensor:
    """Positions (B, L) int64: of the context from 0, of every candidate from where the context ends; 0 at padding."""
    before_LL = torch.ones(own_BLL.shape[1:], dtype=torch.bool, device=mask_BL.device).tril(-1)
    within_BL = (own_BLL & before_LL).sum(2)  # padding is before no real position
    context_B1 = ((part_BL == 0) & mask_BL).sum(1, keepdim=True)
    return (within_BL + context_B1 * (part_BL > 0)) * mask_BL


def see_parts(part_BL: Tensor, own_BLL: Tensor, mask_BL: Tensor, attention: Attention) -> Tensor | None:
    """What each query sees of the real keys, (B, 1, L, L) bool; padding sees all of them, so that it is finite.

    None, or (B, 1, 1, L), where that is all of them: also of arrow with one candidate, which is looked up on a CPU.
    """
    one = mask_BL.device.type == "cpu" and not torch.compiler.is_compiling() and int(part_BL.max()) <= 1
    if attention == "square" or (attention == "arrow" and one):
        return see_real(mask_BL)
    seen_BLL = own_BLL | ~mask_BL[:, :, None]
    if attention == "arrow":
        seen_BLL = seen_BLL | (part_BL == 0)[:, :, None] | (part_BL == 0)[:, None, :]
    real_B11L = see_real(mask_BL)
    return seen_BLL[:, None] if real_B11L is None else seen_BLL[:, None] & real_B11L
