"""LMUFormer: convolutional patches, a Legendre memory between positions, a channel mixer (Liu et al. 2024, ICLR)."""
# B batch, L positions, T positions that follow, D width, O order of the memory

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from encoders.base import Decoder, Encoder, InputSpec, Sequences, States, check_length
from encoders.blocks.embedding import InputEmbedding
from encoders.systems.lmuformer_parts import AttentionMixer, Block, LegendreMixer, PatchEmbedding, RecurrentMixer


class LMUFormer(Encoder):
    """arXiv 2402.04882; official code: zeyuliu1037/LMUFormer at 5debadd, `lmu_rnn_conv1d`.

    x = patches(source); each block: x = x + BN(W h), x = x + mixer(x). In h[t] = ReLU(W_h [m[t]; x[t]]) all that is
    before t comes through a memory m of one number a step, u[t] = ReLU(w_u x[t] + b_u). The paper reads the mean over
    steps (`task.readout=mean`). Batch normalisation is over real positions; the official code has rows of one length.

    `mixer` puts in the memory's place what it is compared with: softmax attention (`heads`), a GRU, or nothing at all;
    `embedding=linear` a linear map in that of the convolutions. As these look one position ahead, each of five, a state
    depends on 5 positions after its own (see CausalLMUFormer). O(L D^2 + O L log L) time, with attention O(L^2 D).
    ValueError for heads that don't divide the width, and for a source beyond `spec.max_length`.
    """

    family: ClassVar[str] = "state space"

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(gt=0)],
        depth: Annotated[int, Field(gt=0)],
        hidden: Annotated[int, Field(gt=0)],
        embedding: Literal["convolutional", "linear"],
        mixer: Literal["lmu", "attention", "gru", "none"],
        order: Annotated[int, Field(gt=0)],
        window: Annotated[float, Field(gt=0)],
        heads: Annotated[int, Field(gt=0)],
        spec: InputSpec,
    ) -> None:
        super().__init__()
        self.dim, self.causal = dim, embedding == "linear" and mixer != "attention"
        linear = InputEmbedding(dim=dim, patch=1, spec=spec) if embedding == "linear" else None
        self.embed = linear or PatchEmbedding(dim=dim, ahead=1, spec=spec)

        def made() -> nn.Module | None:
            if mixer == "lmu":
                return LegendreMixer(dim=dim, order=order, window=window, length=spec.max_length)
            if mixer == "attention":
                return AttentionMixer(dim=dim, heads=heads)
            return RecurrentMixer(dim=dim) if mixer == "gru" else None

        self.blocks = nn.ModuleList(Block(dim=dim, hidden=hidden, mixer=made()) for _ in range(depth))

    @property
    def token_embedding(self) -> Tensor | None:
        """The (V, D) table of ids; None for channels."""
        return _table(self.embed)

    def forward(self, source: Sequences) -> States:
        """States of the source, one a position."""
        x_BLD, mask_BL = self.embed(source)
        for block in self.blocks:
            x_BLD = block(x_BLD, mask_BL)
        return States(values=x_BLD, mask=mask_BL)


class CausalLMUFormer(Decoder):
    """The same network with convolutions over the past alone, so that it runs step by step (not in the official code).

    Trains in parallel and continues as a recurrence in constant time and memory a step; the cache is, for each
    convolution, its last two inputs (B, 2, D), and for each block the memory (B, O), at a row's last real position.
    Batch normalisation in steps is by its running statistics, as in evaluation. Raises ValueError as LMUFormer.
    """

    family: ClassVar[str] = "state space"
    causal = True

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(gt=0)],
        depth: Annotated[int, Field(gt=0)],
        hidden: Annotated[int, Field(gt=0)],
        order: Annotated[int, Field(gt=0)],
        window: Annotated[float, Field(gt=0)],
        spec: InputSpec,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.embed = PatchEmbedding(dim=dim, ahead=0, spec=spec)
        self.blocks = nn.ModuleList(
            Block(
                dim=dim,
                hidden=hidden,
                mixer=LegendreMixer(dim=dim, order=order, window=window, length=spec.max_length),
            )
            for _ in range(depth)
        )

    @property
    def token_embedding(self) -> Tensor | None:
        """The (V, D) table of ids; None for channels."""
        return _table(self.embed)

    def forward(self, source: Sequences) -> States:
        """States of the source in parallel, one a position."""
        x_BLD, mask_BL = self.embed(source)
        for block in self.blocks:
            x_BLD = block(x_BLD, mask_BL)
        return States(values=x_BLD, mask=mask_BL)

    def prefill(self, source: Sequences) -> States:
        """As forward, with the state of convolutions and memories to go on from."""
        check_length(source, self.embed.spec)
        return self._resume(source, None)

    def decode(self, target: Sequences, before: States) -> States:
        """Goes on from the state in the cache, step by step."""
        return self._resume(target, before.cache)

    def _resume(self, source: Sequences, cache: Any) -> States:
        pasts, memories = cache or (None, [None] * len(self.blocks))
        x_BTD, pasts = self.embed.resume(source, pasts)
        after = []
        for block, memory_BO in zip(self.blocks, memories, strict=True):
            assert isinstance(block, Block)
            x_BTD, memory_BO = block.resume(x_BTD, source.mask, memory_BO)
            after.append(memory_BO)
        return States(values=x_BTD, mask=source.mask, cache=(pasts, after))


def _table(embed: nn.Module) -> Tensor | None:
    ids = embed.ids if isinstance(embed, PatchEmbedding) else embed
    table = getattr(ids, "table", None)
    return None if table is None else table.weight
