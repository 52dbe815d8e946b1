"""Encoder-only Transformer: every state sees every position (Devlin et al. 2019, BERT, arXiv 1810.04805)."""
# B batch, L positions, P patches, D width

from __future__ import annotations

from typing import ClassVar, Unpack

from torch import Tensor

from encoders.base import Encoder, InputSpec, Sequences, States
from encoders.blocks.segments import pack, segments_of, unpack
from encoders.blocks.stack import initialise_tables
from encoders.blocks.transformer import Arguments, embedding_of, stack_of


class EncoderOnly(Encoder):
    """Embedding, then one bidirectional stack. BERT and RoBERTa are settings of it (configs/encoder/bert.yaml).

    Reads the stream "type" (BERT's token types): added to the embedding before positions and norm. O(L^2 D) time a
    layer. Raises ValueError for widths that heads don't divide, and for a source beyond `spec.max_length`.
    """

    family: ClassVar[str] = "encoder-only"
    reads: ClassVar[frozenset[str]] = frozenset({"type"})
    packs: ClassVar[bool] = True

    def __init__(self, *, spec: InputSpec, **block: Unpack[Arguments]) -> None:
        super().__init__()
        self.dim, self.causal = block["dim"], False
        self.embed = embedding_of(block, spec)
        initialise_tables(self.embed, block["stem"])
        self.stack = stack_of(block, length=self.embed.num_states(spec.max_length), causal=False, cross=False)

    def forward(self, source: Sequences) -> States:
        """States of the source, one a position (or patch)."""
        x_BPD, mask_BP = self.embed(source)
        rows = segments_of(mask_BP, packed=self.packed)
        x_BPD, _ = self.stack(pack(x_BPD, rows), mask_BP, segments=rows, keep=False)
        return States(values=unpack(x_BPD, rows), mask=mask_BP)

    def num_states(self, length: int) -> int:
        """Number of states for a source of `length` positions."""
        return self.embed.num_states(length)

    @property
    def token_embedding(self) -> Tensor | None:
        """The (V, D) table of ids; None for channels."""
        return None if self.embed.table is None else self.embed.table.weight
