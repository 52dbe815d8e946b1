"""Encoder-decoder Transformer: a causal stack reads a bidirectional one by cross-attention (Vaswani et al. 2017)."""
# B batch, L source positions, T target positions, D width

from __future__ import annotations

from typing import Annotated, ClassVar, Unpack

from pydantic import Field
from torch import Tensor

from encoders.base import Decoder, InputSpec, OfSource, Sequences, States
from encoders.blocks.segments import pack, segments_of, unpack, unpack_pairs
from encoders.blocks.stack import initialise_tables
from encoders.blocks.transformer import Arguments, embedding_of, stack_of


class EncoderDecoder(Decoder):
    """One embedding, two stacks. T5 and BART are settings of it (configs/encoder/t5.yaml, bart.yaml).

    Source and target share the embedding. `forward`, for read-outs, feeds the source to the encoder and to the
    decoder, as BART does for classification (Lewis et al. 2020, arXiv 1910.13461, section 3), but not shifted: see
    there. First weights are a stack's for all settings (stack.py); BART's are normal with 0.02, every one.
    O(L^2 D) time a layer, O((L + T) D) for each decoded position. Raises ValueError for widths that heads don't divide,
    for a source beyond `spec.max_length` and a target beyond `spec.target_length`.
    """

    family: ClassVar[str] = "encoder-decoder"
    packs: ClassVar[bool] = True
    depths: ClassVar[tuple[str, ...]] = ("depth", "decoder_depth")

    def __init__(
        self, *, decoder_depth: Annotated[int, Field(gt=0)] | None, spec: InputSpec, **block: Unpack[Arguments]
    ) -> None:
        super().__init__()
        self.dim, self.causal = block["dim"], False
        self.embed = embedding_of(block, spec)
        initialise_tables(self.embed, block["stem"])
        length = self.embed.num_states(spec.max_length)
        self.encoder = stack_of(block, length=length, causal=False, cross=False)
        self.decoder = stack_of(
            block, length=max(length, spec.target_length), causal=True, cross=True, depth=decoder_depth
        )

    def forward(self, source: Sequences) -> States:
        """States of the decoder over the source itself; state t has seen all of the source, and its own position.

        BART's classifier shifts the decoder's input by one, as for generation. A read-out has no target to hide, and
        shifted, a state would have to find its own position through cross-attention, which knows no positions.
        """
        x_BLD, mask_BL = self.embed(source)
        rows = segments_of(mask_BL, packed=self.packed)
        x_BLD = pack(x_BLD, rows)
        memory_BLD, _ = self.encoder(x_BLD, mask_BL, segments=rows, keep=False)
        memory, memory_mask = self.decoder.remember(memory_BLD), mask_BL if rows is None else None
        y_BLD, _ = self.decoder(x_BLD, mask_BL, memory=memory, memory_mask=memory_mask, segments=rows, keep=False)
        return States(values=unpack(y_BLD, rows), mask=mask_BL)

    def prefill(self, source: Sequences) -> States:
        """States of the encoder alone, with their keys and values for the decoder's cross-attention."""
        x_BLD, mask_BL = self.embed(source)
        rows = segments_of(mask_BL, packed=self.packed)
        memory_BLD, _ = self.encoder(pack(x_BLD, rows), mask_BL, segments=rows, keep=False)
        memory = unpack_pairs(self.decoder.remember(memory_BLD), rows)
        cache = {"source": OfSource((memory, mask_BL)), "past": [], "target_mask": mask_BL[:, :0]}
        return States(values=unpack(memory_BLD, rows), mask=mask_BL, cache=cache)

    def decode(self, target: Sequences, before: States) -> States:
        """States of the target by the decoder, which reads the encoder's states and the target so far."""
        x_BTD, target_mask = self.embed.continues(target, before.cache["target_mask"])
        rows = segments_of(target.mask, packed=self.packed)
        source = before.cache["source"]
        memory, source_mask = source.value if rows is None else source.each()
        y_BTD, past = self.decoder(
            pack(x_BTD, rows),
            target_mask,
            past=before.cache["past"],
            memory=memory,
            memory_mask=source_mask,
            segments=rows,
        )
        past = past if before.cache["past"] else unpack_pairs(past, rows)
        cache = {**before.cache, "past": past, "target_mask": target_mask}
        return States(values=unpack(y_BTD, rows), mask=target.mask, cache=cache)

    def num_states(self, length: int) -> int:
        """Number of states for a source of `length` positions."""
        return self.embed.num_states(length)

    @property
    def token_embedding(self) -> Tensor | None:
        """The (V, D) table of ids; None for channels."""
        return None if self.embed.table is None else self.embed.table.weight
