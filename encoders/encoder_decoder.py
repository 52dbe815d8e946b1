"""Encoder-decoder Transformer: a causal stack reads a bidirectional one by cross-attention (Vaswani et al. 2017)."""
# B batch, L source positions, T target positions, D width

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from encoders.base import Decoder, InputSpec, Sequences, States
from encoders.blocks.embedding import InputEmbedding
from encoders.blocks.layer import LayerOptions
from encoders.blocks.positions import Position
from encoders.blocks.stack import Stack, StemOptions, initialise_tables


class EncoderDecoder(Decoder):
    """One embedding, two stacks. T5 and BART are settings of it (configs/encoder/t5.yaml, bart.yaml).

    Source and target share the embedding. `forward`, for read-outs, feeds the source to the encoder and to the
    decoder, as BART does for classification (Lewis et al. 2020, arXiv 1910.13461, section 3), but not shifted: see
    there. O(L^2 D) time a layer, O((L + T) D) for each
    decoded position. Raises ValueError for widths that heads don't divide, for a source beyond `spec.max_length` and a
    target beyond `spec.target_length`.
    """

    family: ClassVar[str] = "encoder-decoder"
    depths: ClassVar[tuple[str, ...]] = ("depth", "decoder_depth")

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(gt=0)],
        depth: Annotated[int, Field(ge=0)],
        decoder_depth: Annotated[int, Field(gt=0)] | None,
        heads: Annotated[int, Field(gt=0)],
        hidden: Annotated[int, Field(gt=0)],
        dropout: Annotated[float, Field(ge=0, lt=1)],
        patch: Annotated[int, Field(gt=0)],
        position: Position,
        stem: StemOptions,
        layer: LayerOptions,
        spec: InputSpec,
    ) -> None:
        super().__init__()
        self.dim, self.causal = dim, False
        self.embed = InputEmbedding(dim=dim, patch=patch, spec=spec)
        initialise_tables(self.embed, stem)
        length = self.embed.num_states(spec.max_length)
        self.encoder = Stack(
            dim=dim,
            depth=depth,
            heads=heads,
            hidden=hidden,
            dropout=dropout,
            position=position,
            stem=stem,
            layer=layer,
            length=length,
            causal=False,
            cross=False,
        )
        self.decoder = Stack(
            dim=dim,
            depth=depth if decoder_depth is None else decoder_depth,
            heads=heads,
            hidden=hidden,
            dropout=dropout,
            position=position,
            stem=stem,
            layer=layer,
            length=max(length, spec.target_length),
            causal=True,
            cross=True,
        )

    def forward(self, source: Sequences) -> States:
        """States of the decoder over the source itself; state t has seen all of the source, and its own position.

        BART's classifier shifts the decoder's input by one, as for generation. A read-out has no target to hide, and
        shifted, a state would have to find its own position through cross-attention, which knows no positions.
        """
        x_BLD, mask_BL = self.embed(source)
        memory_BLD, _ = self.encoder(x_BLD, mask_BL)
        y_BLD, _ = self.decoder(x_BLD, mask_BL, memory=self.decoder.remember(memory_BLD), memory_mask=mask_BL)
        return States(values=y_BLD, mask=mask_BL)

    def prefill(self, source: Sequences) -> States:
        """States of the encoder alone, with their keys and values for the decoder's cross-attention."""
        x_BLD, mask_BL = self.embed(source)
        memory_BLD, _ = self.encoder(x_BLD, mask_BL)
        memory = self.decoder.remember(memory_BLD)
        cache = {"memory": memory, "source_mask": mask_BL, "past": [], "target_mask": mask_BL[:, :0]}
        return States(values=memory_BLD, mask=mask_BL, cache=cache)

    def decode(self, target: Sequences, before: States) -> States:
        """States of the target by the decoder, which reads the encoder's states and the target so far."""
        x_BTD, target_mask = self.embed.continues(target, before.cache["target_mask"])
        y_BTD, past = self.decoder(
            x_BTD,
            target_mask,
            past=before.cache["past"],
            memory=before.cache["memory"],
            memory_mask=before.cache["source_mask"],
        )
        cache = {**before.cache, "past": past, "target_mask": target_mask}
        return States(values=y_BTD, mask=target.mask, cache=cache)

    def num_states(self, length: int) -> int:
        """Number of states for a source of `length` positions."""
        return self.embed.num_states(length)

    @property
    def token_embedding(self) -> Tensor | None:
        """The (V, D) table of ids; None for channels."""
        return None if self.embed.table is None else self.embed.table.weight
