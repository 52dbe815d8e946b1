"""Spiking LMUFormer: what goes from layer to layer is zeros and ones, of neurons that leak (Liu et al. 2024, ICLR)."""
# B batch, L positions, D width, F hidden width, O order of the memory, H heads, E width of a head

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Encoder, InputSpec, Sequences, States, check_length
from encoders.blocks.attention import head_width
from encoders.blocks.convolution import Convolution, on_real
from encoders.blocks.embedding import InputEmbedding
from encoders.blocks.legendre import LegendreMemory
from encoders.blocks.spikes import Spikes
from encoders.systems.lmuformer_parts import CONVOLUTIONS, KERNEL

SCALE = 0.25  # of spiking attention


class SpikingLMUFormer(Encoder):
    """arXiv 2402.04882; official code: zeyuliu1037/LMUFormer at 5debadd, `slmu_rnn_ms_conv1d` (`attn_ms_conv1d`).

    The network of LMUFormer with S = LIF(BN(.)) in front of each convolution in place of an activation behind it:
    x = patches(source); each block: x = x + BN(W h), x = x + W S(W S(x)); states are S(x). In the memory u, m and h
    are spikes, too. Time of the neurons is the position, with no repetitions. `mixer=attention` is the paper's control,
    q k^T v without softmax on spikes.

    In float32 whatever the precision of the run: a spike is a decision, which rounding would turn. An untrained network
    would be silent with PyTorch's first statistics of batch normalisation; they start as those of noise. States depend
    on 5 positions after their own. O(L D^2 + O L log L) time, of which L steps in sequence for each layer of neurons.
    ValueError for heads that don't divide the width, and for a source beyond `spec.max_length`.
    """

    family: ClassVar[str] = "state space"
    causal = False

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(gt=0)],
        depth: Annotated[int, Field(gt=0)],
        hidden: Annotated[int, Field(gt=0)],
        mixer: Literal["lmu", "attention"],
        order: Annotated[int, Field(gt=0)],
        window: Annotated[float, Field(gt=0)],
        heads: Annotated[int, Field(gt=0)],
        spec: InputSpec,
    ) -> None:
        super().__init__()
        head_width(dim, heads)  # of the control; refused whatever the mixer
        self.dim = dim
        self.embed = SpikingPatches(dim=dim, spec=spec)

        def made() -> nn.Module:
            if mixer == "attention":
                return SpikingAttention(dim=dim, heads=heads)
            return SpikingMemory(dim=dim, order=order, window=window, length=spec.max_length)

        self.blocks = nn.ModuleList(SpikingBlock(dim=dim, hidden=hidden, mixer=made()) for _ in range(depth))
        self.last = Spikes(dim=dim, threshold=1.0)
        self._settle(spec)

    @property
    def token_embedding(self) -> Tensor | None:
        """The (V, D) table of ids; None for channels."""
        ids = self.embed.ids
        return None if ids is None or ids.table is None else ids.table.weight

    def forward(self, source: Sequences) -> States:
        """States of the source, one a position: zeros and ones."""
        with torch.autocast(source.mask.device.type, enabled=False):
            x_BLD, mask_BL = self.embed(source)
            for block in self.blocks:
                x_BLD = block(x_BLD, mask_BL)
            return States(values=self.last(x_BLD, mask_BL), mask=mask_BL)

    @torch.no_grad()
    def _settle(self, spec: InputSpec) -> None:
        """Statistics of batch normalisation from noise."""
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm1d)]
        if norms[0].weight.is_meta:
            return
        mask_BL = torch.ones(8, min(spec.max_length, 64), dtype=torch.bool)
        values = torch.randn(*mask_BL.shape, spec.channels or 1)
        if spec.vocab_size is not None:
            values = torch.randint(spec.vocab_size, mask_BL.shape)
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        self(Sequences(values=values, mask=mask_BL))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked.zero_()


class SpikingPatches(nn.Module):
    """A convolution, three of spikes, then x + convolution(S(x)); ids by a table first."""

    def __init__(self, *, dim: int, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec
        self.ids = InputEmbedding(dim=dim, patch=1, spec=spec) if spec.channels is None else None
        inputs = [spec.channels or dim] + [dim] * CONVOLUTIONS
        self.convolutions = nn.ModuleList(
            Convolution(inputs=width, outputs=dim, kernel_size=KERNEL, ahead=1, bias=False) for width in inputs
        )
        self.spikes = nn.ModuleList(Spikes(dim=dim, threshold=1.0) for _ in range(CONVOLUTIONS))

    def forward(self, source: Sequences) -> tuple[Tensor, Tensor]:
        """(B, L, D) and the mask (B, L)."""
        check_length(source, self.spec)
        values, mask_BL = source.values if self.ids is None else self.ids.embed(source)[0], source.mask
        first, *between, position = self.convolutions
        x_BLD = first(values, mask_BL)
        *spikes, last = self.spikes
        for fire, convolution in zip(spikes, between, strict=True):
            x_BLD = convolution(fire(x_BLD, mask_BL), mask_BL)
        return x_BLD + position(last(x_BLD, mask_BL), mask_BL), mask_BL


class SpikingBlock(nn.Module):
    """x + mixer(x), then x + W S(W S(x)); the mixers end with W and batch normalisation."""

    def __init__(self, *, dim: int, hidden: int, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer
        self.enter, self.between = Spikes(dim=dim, threshold=1.0), Spikes(dim=hidden, threshold=1.0)
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """(B, L, D)."""
        x_BLD = x_BLD + self.mixer(x_BLD, mask_BL)
        h_BLF: Tensor = self.between(self.up(self.enter(x_BLD, mask_BL)), mask_BL)
        y_BLD: Tensor = self.down(h_BLF)
        return x_BLD + y_BLD


class SpikingMemory(nn.Module):
    """BN(W S(W_h [S(m); s])) with s = S(x) and m the memory of u = S(w_u s), one spike a step."""

    def __init__(self, *, dim: int, order: int, window: float, length: int) -> None:
        super().__init__()
        self.enter = Spikes(dim=dim, threshold=0.5)
        self.write, self.written = nn.Linear(dim, 1), Spikes(dim=1, threshold=1.0)
        self.memory = LegendreMemory(order=order, window=window, length=length)
        self.held = Spikes(dim=order, threshold=1.0)
        self.read, self.seen = nn.Linear(order + dim, dim), Spikes(dim=dim, threshold=1.0)
        self.out, self.norm = nn.Linear(dim, dim), nn.BatchNorm1d(dim)
        for linear in (self.write, self.read):  # as the official code starts them; convolutions as PyTorch does
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """(B, L, D)."""
        s_BLD = self.enter(x_BLD, mask_BL)
        u_BL = self.written(self.write(s_BLD), mask_BL).squeeze(-1)
        m_BLO = self.held(self.memory(u_BL), mask_BL)
        h_BLD = self.seen(self.read(torch.cat((m_BLO, s_BLD), -1)), mask_BL)
        return on_real(self.norm, self.out(h_BLD), mask_BL)


class SpikingAttention(nn.Module):
    """BN(W S(q k^T v / 4)) with q, k, v = S(W S(x)) (Zhou et al. 2023, Spikformer, arXiv 2209.15425); no softmax."""

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.enter = Spikes(dim=dim, threshold=1.0)
        self.maps = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.spikes = nn.ModuleList(Spikes(dim=dim, threshold=1.0) for _ in range(3))
        self.seen = Spikes(dim=None, threshold=0.5)
        self.out, self.norm = nn.Linear(dim, dim), nn.BatchNorm1d(dim)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """(B, L, D)."""
        s_BLD = self.enter(x_BLD, mask_BL)
        q_BHLE, k_BHLE, v_BHLE = (
            (fire(linear(s_BLD), mask_BL) * mask_BL.unsqueeze(-1)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear, fire in zip(self.maps, self.spikes, strict=True)
        )
        mixed_BHLE = SCALE * (q_BHLE @ k_BHLE.transpose(-1, -2)) @ v_BHLE
        h_BLD = self.seen(mixed_BHLE.transpose(1, 2).flatten(2), mask_BL)
        return on_real(self.norm, self.out(h_BLD), mask_BL)
