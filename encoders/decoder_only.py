"""Decoder-only Transformer: every state sees itself and the past (Radford et al. 2019, GPT-2)."""
# B batch, L source positions, T target positions, S past and present positions, D width

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
from torch import Tensor

from encoders.base import Decoder, InputSpec, OfSource, Sequences, States
from encoders.blocks.segments import pack, segments_of, unpack, unpack_pairs
from encoders.blocks.stack import initialise_tables
from encoders.blocks.transformer import Arguments, embedding_of, stack_of


class DecoderOnly(Decoder):
    """Embedding, then one causal stack. GPT-2 and Llama are settings of it (configs/encoder/gpt2.yaml, llama.yaml).

    A target continues its source as one sequence (prefix concatenation): it is counted on from the row's last real
    position, whatever the padding between, and sees the real source and the target so far through a cache of keys and
    values. O(L^2 D) time a layer, O((L + T) D) for each decoded position. Raises ValueError for widths that heads
    don't divide, for a source beyond `spec.max_length` and a target beyond `spec.target_length`.
    """

    family: ClassVar[str] = "decoder-only"
    packs: ClassVar[bool] = True

    def __init__(self, *, spec: InputSpec, **block: Unpack[Arguments]) -> None:
        super().__init__()
        self.dim, self.causal = block["dim"], True
        self.embed = embedding_of(block, spec)
        initialise_tables(self.embed, block["stem"])
        length = self.embed.num_states(spec.max_length) + spec.target_length
        self.stack = stack_of(block, length=length, causal=True, cross=False)

    def forward(self, source: Sequences) -> States:
        """States of the source, each of the positions up to its own."""
        x_BLD, mask_BL = self.embed(source)
        rows = segments_of(mask_BL, packed=self.packed)
        x_BLD, _ = self.stack(pack(x_BLD, rows), mask_BL, segments=rows, keep=False)
        return States(values=unpack(x_BLD, rows), mask=mask_BL)

    def prefill(self, source: Sequences) -> States:
        """As forward, with the keys and values of every layer."""
        x_BLD, mask_BL = self.embed(source)
        rows = segments_of(mask_BL, packed=self.packed)
        x_BLD, past = self.stack(pack(x_BLD, rows), mask_BL, segments=rows)
        cache = {"past": unpack_pairs(past, rows), "source_mask": OfSource(mask_BL), "target_mask": mask_BL[:, :0]}
        return States(values=unpack(x_BLD, rows), mask=mask_BL, cache=cache)

    def decode(self, target: Sequences, before: States) -> States:
        """States of the target, which follows the source and the target so far."""
        x_BTD, target_mask = self.embed.continues(target, before.cache["target_mask"])
        mask_BS = torch.cat((before.cache["source_mask"].each(), target_mask), dim=1)
        rows = segments_of(target.mask, packed=self.packed)
        x_BTD, past = self.stack(pack(x_BTD, rows), mask_BS, past=before.cache["past"], segments=rows)
        cache = {**before.cache, "past": past, "target_mask": target_mask}
        return States(values=unpack(x_BTD, rows), mask=target.mask, cache=cache)

    def num_states(self, length: int) -> int:
        """Number of states for a source of `length` positions."""
        return self.embed.num_states(length)

    @property
    def token_embedding(self) -> Tensor | None:
        """The (V, D) table of ids; None for channels."""
        return None if self.embed.table is None else self.embed.table.weight
