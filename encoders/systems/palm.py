"""A language model as a regularised encoder-decoder, and PALM's partial attention (Fu et al. 2023, 2304.04052)."""
# B batch, L source positions, T target positions, S positions that are seen, M real ones of all rows, D width

from __future__ import annotations

from typing import Annotated, ClassVar, Unpack

import torch
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Decoder, InputSpec, OfSource, Sequences, States, positions_of
from encoders.blocks.masks import Sight, see_past, see_real, sight
from encoders.blocks.past import KeyValues
from encoders.blocks.stack import initialise_tables
from encoders.blocks.transformer import Arguments, embedding_of, stack_of
from encoders.systems.palm_parts import SourceMap, layer_over_source, layers_of, next_tokens, share_of_first


class Palm(Decoder):
    """Two passes over N layers: of the source, then of the target, which reads the source. The paper's five switches:

    - `joint`: one softmax over the keys of the source and of the target so far; else two attentions, the second over
      the source alone. `causal_source` beside it: the source sees itself from the left; else from both sides (prefix
      mask);
    - `shared`: both passes have the same weights;
    - `coordinated`: target layer l reads what source layer l reads, the states before it; else the top of the source;
    - `consecutive`: target positions go on from the source's; else they begin at 0 again;
    - `source_loss`: the weight of the source's own next-token cross-entropy in training, logits by the input table.

    All on, it is DecoderOnly (RED = LM); all off, EncoderDecoder: the same weights give the same states. PALM is joint,
    shared and coordinated with `partial`: after a layer's self-attention every position asks the source alone,
    softmax(q k^T / sqrt(E)) v with k, v of P = P1 + P2, P1 = f(W1 s), P2 = W2 P1, of the source states s that the
    layer's self-attention has left; a source position asks of the source what it sees of it (a causal one the past, so
    that `source_loss` learns no copying). `language`: a learnt vector each for source and target, added to embeddings.

    Chosen here, as the paper's text was not at hand: s is normed as the queries are (pre-norm); the partial attention
    has no positions of its own and as many heads; f is the feed-forward's activation; W1, W2 start as torch's maps do.

    A read-out of anything but a language model reads the target pass over the source itself, as EncoderDecoder's does.
    O((L + T)^2 D) time a layer. Raises ValueError for settings that have no meaning together, a source beyond
    `spec.max_length` and a target beyond `spec.target_length`.
    """

    family: ClassVar[str] = "decoder-only"

    def __init__(
        self,
        *,
        joint: bool,
        causal_source: bool,
        shared: bool,
        coordinated: bool,
        consecutive: bool,
        source_loss: Annotated[float, Field(ge=0)],
        partial: bool,
        language: bool,
        spec: InputSpec,
        **block: Unpack[Arguments],
    ) -> None:
        super().__init__()
        if partial and not (joint and shared and coordinated):
            raise ValueError("partial: true is a part of a language model: joint, shared and coordinated must be true")
        if source_loss and (not causal_source or spec.vocab_size is None):
            raise ValueError(
                f"source_loss: {source_loss:g} is of a source of ids that sees its past alone (causal_source: true); "
                "here every next one is seen, or there are none: use 0"
            )
        dim, depth, layer = block["dim"], block["depth"], block["layer"]
        self.dim, self.source_loss = dim, source_loss
        self.joint, self.causal_source, self.partial = joint, causal_source, partial
        self.coordinated, self.consecutive = coordinated, consecutive
        language_model = joint and shared and coordinated and consecutive and not partial and not language
        self.one_pass = language_model  # a target is then nothing but more of the source
        self.causal = language_model and causal_source
        self.embed = embedding_of(block, spec)
        self.language = nn.Embedding(2, dim) if language else None  # of the source, of the target
        initialise_tables(self, block["stem"])
        source_length = self.embed.num_states(spec.max_length)
        target_length = spec.target_length if self.one_pass else max(source_length, spec.target_length)

        length = source_length + target_length if consecutive else target_length
        ahead = (shared and not causal_source) or (
            joint and not consecutive
        )  # keys stand ahead of who asks: T5's buckets
        self.encoder = None if shared else stack_of(block, length=length, causal=causal_source, cross=False)
        self.decoder = stack_of(block, length=length, causal=not ahead, cross=partial or not joint)
        self.source_maps = nn.ModuleList(
            SourceMap(dim=dim, activation=layer.feed_forward.activation, dropout=block["dropout"])
            for _ in range(depth if partial else 0)
        )

    def forward(self, source: Sequences) -> States:
        """States of the source: of a language model as it is read, else of the target pass over it."""
        x_BLD, mask_BL = self.embed(source)
        top_BLD, past, memory = self._read(x_BLD, mask_BL)
        if self.one_pass:
            return States(values=top_BLD, mask=mask_BL)
        values_BLD, _ = self._write(x_BLD, mask_BL, mask_BL, past, memory, mask_BL)
        return States(values=values_BLD, mask=mask_BL)

    def prefill(self, source: Sequences) -> States:
        """States of the source pass, with what the target will read of it; in training the source's own loss."""
        x_BLD, mask_BL = self.embed(source)
        top_BLD, past, memory = self._read(x_BLD, mask_BL)
        losses = {}
        if self.source_loss and self.training:
            assert self.token_embedding is not None
            losses["source"] = self.source_loss * next_tokens(top_BLD, source, self.token_embedding)
        cache = {
            "past": past,
            "memory": OfSource(memory),
            "source_mask": OfSource(mask_BL),
            "target_mask": mask_BL[:, :0],
        }
        return States(values=top_BLD, mask=mask_BL, losses=losses, cache=cache)

    def decode(self, target: Sequences, before: States) -> States:
        """States of the target, which reads the source and the target so far."""
        x_BTD, target_mask = self.embed.continues(target, before.cache["target_mask"])
        memory, mask = before.cache["memory"].value, before.cache["source_mask"]
        values_BTD, past = self._write(x_BTD, mask.each(), target_mask, before.cache["past"], memory, mask.value)
        return States(
            values=values_BTD, mask=target.mask, cache={**before.cache, "past": past, "target_mask": target_mask}
        )

    @torch.no_grad()
    def source_share(self, source: Sequences, target: Sequences) -> Tensor:
        """How much of each target position's attention falls on the source, (B, T) in [0, 1], over heads and layers.

        Of the joint softmax; where attentions are apart (and in the partial one) it is 1 by construction.
        """
        x_BLD, mask_BL = self.embed(source)
        _, past, memory = self._read(x_BLD, mask_BL)
        shares: list[Tensor] = []
        x_BTD, target_mask = self.embed.continues(target, mask_BL[:, :0])
        self._write(x_BTD, mask_BL, target_mask, past, memory, mask_BL, shares)
        return torch.stack(shares).mean(0) if shares else torch.ones_like(target_mask, dtype=x_BTD.dtype)

    def _read(self, x_BLD: Tensor, mask_BL: Tensor) -> tuple[Tensor, list[KeyValues], list[KeyValues]]:
        """The source pass: its last states; for each layer of the target pass keys and values of the source.

        First those that stand before the target's own (joint), then those of a second attention (partial, or apart).
        """
        stack = self.decoder if self.encoder is None else self.encoder
        places = torch.arange(x_BLD.shape[1], device=x_BLD.device).unsqueeze(0)
        real = None if self.causal_source else see_real(mask_BL)
        bias = stack.position.bias(places, places)
        own = sight(real, bias, causal=self.causal_source, queries=x_BLD.shape[1])
        seen = Sight(real, self.causal_source)
        rotation = stack.position.rotation(places)
        x_BLD = stack.enter(self._said(x_BLD, 0), places)
        inputs: list[Tensor] = []
        past: list[KeyValues] = []
        memory: list[KeyValues] = []
        for i, layer in enumerate(layers_of(stack)):
            inputs.append(x_BLD)
            source_map = self.source_maps[i] if self.partial else None
            x_BLD, keys_values, of_source = layer_over_source(layer, x_BLD, own, rotation, seen, source_map)
            past.append(keys_values)
            memory += of_source
        top_BLD = stack.norm(x_BLD)
        if self.joint and self.encoder is None and self.coordinated:
            return top_BLD, past, memory  # what the target reads are the source's own keys and values
        return top_BLD, *self._keys_values(inputs, top_BLD, places)

    def _keys_values(
        self, inputs: list[Tensor], top_BLD: Tensor, places: Tensor
    ) -> tuple[list[KeyValues], list[KeyValues]]:
        """As _read, by the target's own weights: of what each source layer has read (coordinated), or of the top."""
        layers = layers_of(self.decoder)
        reads = [top_BLD] * len(layers)
        if self.coordinated:
            reads = [layer.attention_residual.enter(x) for layer, x in zip(layers, inputs, strict=True)]
        if not self.joint:
            crosses = [layer.cross for layer in layers if layer.cross is not None]
            return [], [cross.project(x) for cross, x in zip(crosses, reads, strict=True)]
        turned = self.decoder.position.rotation(places)
        return [layer.attention.project(x, turned)[1:] for layer, x in zip(layers, reads, strict=True)], []

    def _write(
        self,
        x_BTD: Tensor,
        source_mask: Tensor,
        target_mask: Tensor,
        past: list[KeyValues],
        memory: list[KeyValues],
        memory_mask: Tensor,
        shares: list[Tensor] | None = None,
    ) -> tuple[Tensor, list[KeyValues]]:
        """The target pass over embeddings of the last T positions of `target_mask`: last states, keys and values.

        A memory and its mask may have fewer rows, each of which is read by as many that follow one another.
        """
        new, length = x_BTD.shape[1], source_mask.shape[1]
        mask_BS = torch.cat((source_mask, target_mask), dim=1)
        if self.consecutive:
            places_BS = positions_of(mask_BS)
        else:
            places_BS = torch.cat((positions_of(source_mask), positions_of(target_mask)), dim=1)
        if not self.joint:
            mask_BS, places_BS = target_mask, places_BS[:, length:]
        places_BT = places_BS[:, places_BS.shape[1] - new :]
        stack = self.decoder
        own = sight(see_past(mask_BS, new), stack.position.bias(places_BT, places_BS), causal=False, queries=new)
        seen = Sight(see_real(memory_mask), False)
        rotation = stack.position.rotation(places_BT)
        x_BTD = stack.enter(self._said(x_BTD, 1), places_BT)
        kept = []
        for i, layer in enumerate(layers_of(stack)):
            before = past[i] if past else None
            if shares is not None and before is not None:
                entered_BTD = layer.attention_residual.enter(x_BTD)
                shares.append(share_of_first(layer.attention, entered_BTD, own, rotation, before, length))
            x_BTD, keys_values = layer(x_BTD, own, rotation, before, memory[i] if memory else None, seen)
            kept.append(keys_values)
        return stack.norm(x_BTD), kept

    def _said(self, x_BTD: Tensor, language: int) -> Tensor:
        """Embeddings with the vector of the source (0) or of the target (1) added."""
        return x_BTD if self.language is None else x_BTD + self.language.weight[language]

    def num_states(self, length: int) -> int:
        """Number of states for a source of `length` positions."""
        return self.embed.num_states(length)

    @property
    def token_embedding(self) -> Tensor | None:
        """The (V, D) table of ids; None for channels."""
        return None if self.embed.table is None else self.embed.table.weight
