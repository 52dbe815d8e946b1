"""A decoder-only stack whose causal mask is taken off group of layers by group (Dukić and Šnajder 2024, 2401.14556)."""
# B batch, L positions, P patches, D width

from __future__ import annotations

from typing import ClassVar, Unpack

from torch import Tensor

from encoders.base import Encoder, InputSpec, Sequences, States
from encoders.blocks.segments import pack, segments_of, unpack
from encoders.blocks.stack import initialise_tables
from encoders.blocks.transformer import Arguments, embedding_of, stack_of


class UnmaskedLayers(Encoder):
    """`depth` layers in len(`unmasked`) equal groups, the first bit being the group next to the input.

    In a layer of a group with bit g, A = softmax(Q K^T / sqrt(E) + P + (1 - g) C) with the padding mask P and the
    causal mask C (section 3 of the paper); nothing else changes, so all 2^m settings have the same weights. "0000" is a
    decoder-only model that can be trained as a language model first (`pretrain`), "1111" an encoder-only one. One bit
    that is set, in whatever group, and every state depends on the whole row. Raises ValueError for bits other than 0
    and 1, and for a depth that is no multiple of their number.

    All weights are trained, as in the paper's own four-layer models; QLoRA (rank 64 on queries and values), by which
    its 7B models are tuned, is not here. Nor is the dropout of 0.1 before its head, which is the task's.
    """

    family: ClassVar[str] = "decoder-only"
    packs: ClassVar[bool] = True

    def __init__(
        self,
        *,
        unmasked: str,
        spec: InputSpec,
        **block: Unpack[Arguments],
    ) -> None:
        super().__init__()
        depth = block["depth"]
        if not unmasked or set(unmasked) - {"0", "1"} or depth % len(unmasked):
            raise ValueError(
                f'unmasked: {unmasked!r}; a string of 0 and 1, one for each group of layers, as "0001", '
                f"whose number divides depth {depth}"
            )
        layers = depth // len(unmasked)
        causal = tuple(bit == "0" for bit in unmasked for _ in range(layers))
        self.dim, self.causal = block["dim"], all(causal)
        self.embed = embedding_of(block, spec)
        initialise_tables(self.embed, block["stem"])
        self.stack = stack_of(block, length=self.embed.num_states(spec.max_length), causal=causal, cross=False)

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
