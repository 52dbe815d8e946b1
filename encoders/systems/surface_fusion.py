"""Fusion of encoder layers into a decoder, and of the embedding layer into its softmax (Liu et al. 2021)."""
# B batch, L source positions, T target positions, D width, N encoder layers, M decoder layers, V vocabulary

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Unpack

import torch
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Decoder, InputSpec, OfSource, Sequences, States
from encoders.blocks.layer import Layer
from encoders.blocks.masks import Sight, see_real, sight
from encoders.blocks.past import KeyValues
from encoders.blocks.stack import initialise_tables
from encoders.blocks.transformer import Arguments, embedding_of, stack_of
from encoders.systems.surface_fusion_parts import ResidualFeedForward, SurfaceAttention, fused


class SurfaceFusion(Decoder):
    """EncoderDecoder with `fusion` (arXiv 2012.14768); X1 .. XN are its encoder's layers, X0 = sqrt(D) E[source].

    - none: decoder layers read XN, the encoder-decoder as it is;
    - coarse, fine: decoder layer m reads dropout(LN(sum_n w_mn Xn)), w the softmax over n of a learnt number for each m
      and n, or for each channel of them (fine); X0 among them with `embedding_layer`. They start from U(-r, r),
      r^2 = 2 / (M + N + 1), and the weights are dropped as attention's are (layer.attention.dropout);
    - surface: beside its last states h the decoder has e = Attention(h, XN, X0), one head, gradient to X0 alone. Two
      logits by one table, z_t of h and z_s of e, are fused (`fuse`): by `mode` hard, gate log p_t + (1 - gate) log p_s,
      not renormalised, so that training has gate CE(z_t) + (1 - gate) CE(z_s); soft and postnorm (equal)
      log softmax(z_t + log p(temperature z_s)). gate null: sigmoid(w [h; e] + b) at each position.

    `residual`: h + W2 relu(W1 h), and e by the same weights, before the table. `value`: top has XN in X0's place, with
    its gradient. The maps of both start as torch's own do.
    Controls: none with `residual`, gate 1, value top. The element-wise dropout of X0 is that of the encoder's input.
    With norms before the blocks (the paper's are behind) h and XN are those after the last norm, which is also layer
    fusion's. Search renormalises each step, where the paper's beams add hard scores up as they are.

    The sheet's facts are of the official code (SunbowLiu/SurfaceFusion), fixed at decoder layer 6: here it is the last.
    O(L^2 D) time a layer, O((L + T) D) for each decoded position. Raises ValueError as EncoderDecoder does.
    """

    family: ClassVar[str] = "encoder-decoder"
    without_decay: ClassVar[frozenset[str]] = frozenset({"table"})
    depths: ClassVar[tuple[str, ...]] = ("depth", "decoder_depth")

    def __init__(
        self,
        *,
        decoder_depth: Annotated[int, Field(gt=0)] | None,
        fusion: Literal["none", "coarse", "fine", "surface"],
        embedding_layer: bool,
        mode: Literal["hard", "soft", "postnorm"],
        gate: Annotated[float, Field(ge=0, le=1)] | None,
        temperature: Annotated[float, Field(gt=0)],
        residual: bool,
        value: Literal["embedding", "top"],
        spec: InputSpec,
        **block: Unpack[Arguments],
    ) -> None:
        super().__init__()
        if block["depth"] < 1:
            raise ValueError(
                f"depth: {block['depth']}; the decoder reads layers of the encoder, so there is one at least"
            )
        surface = fusion == "surface"
        dim, depth, hidden, layer = block["dim"], block["depth"], block["hidden"], block["layer"]
        self.outputs = 2 if surface else 1
        self.dim, self.causal = self.outputs * dim, False
        self.mode, self.gate, self.temperature = mode, gate, temperature
        self.embedding_layer, self.value = embedding_layer, value
        self.embed = embedding_of(block, spec)
        initialise_tables(self.embed, block["stem"])
        length = self.embed.num_states(spec.max_length)
        self.encoder = stack_of(block, length=length, causal=False, cross=False)
        self.decoder = stack_of(
            block, length=max(length, spec.target_length), causal=True, cross=True, depth=decoder_depth
        )
        self.table: nn.Parameter | None = None
        if fusion in ("coarse", "fine"):
            layers = len(self.decoder.layers)
            shape = (layers, depth + int(embedding_layer), dim if fusion == "fine" else 1)
            self.table = nn.Parameter(torch.empty(shape).uniform_(-1, 1) * math.sqrt(2 / (layers + depth + 1)))
            post = layer.placement == "post"
            self.surface_norm = layer.norm.make(dim) if post and embedding_layer else nn.Identity()
            self.mix_norm = layer.norm.make(dim) if post else nn.Identity()  # before blocks: the encoder's last one
            self.weight_dropout, self.mix_dropout = nn.Dropout(layer.attention.dropout), nn.Dropout(block["dropout"])
        self.surface = SurfaceAttention(dim=dim, dropout=layer.attention.dropout) if surface else None
        self.residual = ResidualFeedForward(dim=dim, hidden=hidden, dropout=block["dropout"]) if residual else None
        self.gating = nn.Linear(2 * dim, 1) if surface and gate is None and mode == "hard" else None

    def forward(self, source: Sequences) -> States:
        """States of the decoder over the source itself, as EncoderDecoder's."""
        x_BLD, mask_BL = self.embed(source)
        _, memory, pair = self._read(x_BLD, mask_BL)
        h_BLD, _ = self.decoder(x_BLD, mask_BL, memory=memory, memory_mask=mask_BL, keep=False)
        return States(values=self._outputs(h_BLD, pair, mask_BL), mask=mask_BL)

    def prefill(self, source: Sequences) -> States:
        """States of the encoder alone, as often as there are outputs, with what the decoder reads of the source."""
        x_BLD, mask_BL = self.embed(source)
        top_BLD, memory, pair = self._read(x_BLD, mask_BL)
        cache = {"source": OfSource((memory, pair, mask_BL)), "past": [], "target_mask": mask_BL[:, :0]}
        return States(values=torch.cat([top_BLD] * self.outputs, dim=2), mask=mask_BL, cache=cache)

    def decode(self, target: Sequences, before: States) -> States:
        """States of the target: h, and e beside it with surface fusion."""
        x_BTD, target_mask = self.embed.continues(target, before.cache["target_mask"])
        memory, pair, source_mask = before.cache["source"].value
        h_BTD, past = self.decoder(
            x_BTD, target_mask, past=before.cache["past"], memory=memory, memory_mask=source_mask
        )
        cache = {**before.cache, "past": past, "target_mask": target_mask}
        return States(values=self._outputs(h_BTD, pair, source_mask), mask=target.mask, cache=cache)

    def fuse(self, logits: Tensor, states: Tensor) -> Tensor:
        """Log p of z_t and z_s (2, ..., V); the states (..., 2 D) give the gate, where it is learnt."""
        gate = self.gate if self.gating is None else self.gating(states).sigmoid()
        return fused(*logits, mode=self.mode, gate=gate, temperature=self.temperature)

    def layer_weights(self) -> Tensor | None:
        """What each decoder layer reads of each encoder layer, (M, n), n from X0 (or X1) on; mean over channels."""
        return None if self.table is None else self.table.detach().float().softmax(1).mean(2)

    def told(self) -> dict[str, float]:
        """`weight_m_n` of layer fusion, and `embedding_lead`, w_M0 less the greatest of w_M1 .. w_M,N-1."""
        weights_MN = self.layer_weights()
        if weights_MN is None:
            return {}
        first = 0 if self.embedding_layer else 1
        told = {
            f"weight_{m}_{n}": weight
            for m, row in enumerate(weights_MN.tolist(), 1)
            for n, weight in enumerate(row, first)
        }
        if self.embedding_layer and weights_MN.shape[1] > 2:
            told["embedding_lead"] = float(weights_MN[-1, 0] - weights_MN[-1, 1:-1].max())
        return told

    def _read(self, x_BLD: Tensor, mask_BL: Tensor) -> tuple[Tensor, list[KeyValues], tuple[Tensor, ...]]:
        """XN; its keys and values, or a mix's, for each decoder layer; those of the surface attention."""
        stack = self.encoder
        x_BLD = x_BLD.to(stack.dtype) if stack.scale is None else x_BLD.to(stack.dtype) * stack.scale
        kept_BLD = stack.dropout(torch.ones_like(x_BLD))  # one draw for both
        surface_BLD = x_BLD * kept_BLD
        places = torch.arange(x_BLD.shape[1], device=x_BLD.device).unsqueeze(0)
        places = stack.position.places(places, len(mask_BL))
        x_BLD = stack.stem_norm(stack.position.add(x_BLD, places)) * kept_BLD
        bias, rotation = stack.position.bias(places, places), stack.position.rotation(places)
        own = sight(see_real(mask_BL), bias, causal=False, queries=x_BLD.shape[1])
        found = []
        for layer in stack.layers:
            x_BLD, _ = layer(x_BLD, own, rotation, None, None, own)
            found.append(x_BLD)
        top_BLD = stack.norm(x_BLD)
        if self.table is not None:
            if self.embedding_layer:
                found.insert(0, self.surface_norm(surface_BLD))
            weights_MND = self.weight_dropout(self.table.softmax(1))
            mixed_MBLD = torch.einsum("mnd,nbld->mbld", weights_MND.expand(-1, -1, x_BLD.shape[2]), torch.stack(found))
            reads_MBLD = self.mix_dropout(self.mix_norm(stack.norm(mixed_MBLD)))
            crosses = [layer.cross for layer in self.decoder.layers if isinstance(layer, Layer) and layer.cross]
            return top_BLD, [cross.project(x) for cross, x in zip(crosses, reads_MBLD, strict=True)], ()
        pair: tuple[Tensor, ...] = ()
        if self.surface is not None:
            pair = self.surface.project(top_BLD.detach(), surface_BLD if self.value == "embedding" else top_BLD)
        return top_BLD, self.decoder.remember(top_BLD), pair

    def _outputs(self, h_BTD: Tensor, pair: tuple[Tensor, ...], source_mask: Tensor) -> Tensor:
        """What the table is asked with: h, and e of the keys and values of the source, if any, side by side."""
        both = [h_BTD]
        if self.surface is not None:
            both.append(self.surface(h_BTD.detach(), *pair, Sight(see_real(source_mask), False)))
        if self.residual is not None:
            both = [self.residual(x_BTD) for x_BTD in both]
        return torch.cat(both, dim=2)

    def num_states(self, length: int) -> int:
        """Number of states for a source of `length` positions."""
        return self.embed.num_states(length)

    @property
    def token_embedding(self) -> Tensor | None:
        """The (V, D) table of ids; None for channels."""
        return None if self.embed.table is None else self.embed.table.weight
