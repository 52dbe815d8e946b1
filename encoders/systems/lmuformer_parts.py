"""The parts of LMUFormer: convolutional patches, blocks, and the token mixers that are compared (arXiv 2402.04882)."""
# B batch, L positions, T positions that follow, D width, F hidden width, O order of the memory

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.base import InputSpec, Sequences, check_length
from encoders.blocks.attention import AttentionOptions, SelfAttention
from encoders.blocks.convolution import Convolution, on_real
from encoders.blocks.embedding import InputEmbedding
from encoders.blocks.legendre import LegendreMemory
from encoders.blocks.masks import see_real, sight

CONVOLUTIONS, KERNEL = 4, 3  # of the patch embedding


class PatchEmbedding(nn.Module):
    """Four times BN(ReLU(convolution(x))), then x + convolution(x), the position term; of ids after a table."""

    def __init__(self, *, dim: int, ahead: int, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec
        self.ids = InputEmbedding(dim=dim, patch=1, spec=spec) if spec.channels is None else None
        inputs = [spec.channels or dim] + [dim] * CONVOLUTIONS
        made = [
            Convolution(inputs=inputs[i], outputs=dim, kernel_size=KERNEL, ahead=ahead, bias=False)
            for i in range(CONVOLUTIONS + 1)
        ]
        self.convolutions, self.position = nn.ModuleList(made[:-1]), made[-1]
        self.norms = nn.ModuleList(nn.BatchNorm1d(dim) for _ in range(CONVOLUTIONS))

    def forward(self, source: Sequences) -> tuple[Tensor, Tensor]:
        """(B, L, D) and the mask (B, L). Raises ValueError for a source beyond `spec.max_length`."""
        check_length(source, self.spec)
        x_BLD, mask_BL = self._values(source), source.mask
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x_BLD = on_real(norm, F.relu(convolution(x_BLD, mask_BL)), mask_BL)
        return x_BLD + self.position(x_BLD, mask_BL), mask_BL

    def resume(self, source: Sequences, pasts: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """(B, T, D) after the pasts of the five convolutions (None: nothing), and theirs."""
        x_BTD, mask_BT, after = self._values(source), source.mask, []
        every = [*self.convolutions, self.position]
        for i, convolution in enumerate(every):
            assert isinstance(convolution, Convolution)
            y_BTD, past_BKC = convolution.resume(x_BTD, mask_BT, None if pasts is None else pasts[i])
            after.append(past_BKC)
            x_BTD = x_BTD + y_BTD if i == CONVOLUTIONS else on_real(self.norms[i], F.relu(y_BTD), mask_BT)
        return x_BTD, after

    def _values(self, source: Sequences) -> Tensor:
        return source.values if self.ids is None else self.ids.embed(source)[0]


class Block(nn.Module):
    """x + BN(token mixer(x)), then x + ReLU(BN(W GELU(BN(W x)))), the channel mixer (1x1 convolutions)."""

    def __init__(self, *, dim: int, hidden: int, mixer: nn.Module | None) -> None:
        super().__init__()
        self.mixer = mixer
        self.norm = None if mixer is None else nn.BatchNorm1d(dim)
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.up_norm, self.down_norm = nn.BatchNorm1d(hidden), nn.BatchNorm1d(dim)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """(B, L, D)."""
        if self.mixer is not None and self.norm is not None:
            x_BLD = x_BLD + on_real(self.norm, self.mixer(x_BLD, mask_BL), mask_BL)
        return x_BLD + self._channels(x_BLD, mask_BL)

    def resume(self, x_BTD: Tensor, mask_BT: Tensor, memory_BO: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, T, D) from a memory on (None: an empty one), and the memory at the last real position."""
        assert isinstance(self.mixer, LegendreMixer)
        assert self.norm is not None
        y_BTD, memory_BO = self.mixer.resume(x_BTD, mask_BT, memory_BO)
        x_BTD = x_BTD + on_real(self.norm, y_BTD, mask_BT)
        return x_BTD + self._channels(x_BTD, mask_BT), memory_BO

    def _channels(self, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        h_BLF = F.gelu(on_real(self.up_norm, self.up(x_BLD), mask_BL))
        return F.relu(on_real(self.down_norm, self.down(h_BLF), mask_BL))


class LegendreMixer(nn.Module):
    """W ReLU(W_h [m; x]), m the memory of u = ReLU(w_u x + b_u), one number a step."""

    def __init__(self, *, dim: int, order: int, window: float, length: int) -> None:
        super().__init__()
        self.write, self.memory = nn.Linear(dim, 1), LegendreMemory(order=order, window=window, length=length)
        self.read, self.out = nn.Linear(order + dim, dim), nn.Linear(dim, dim)
        for linear in (self.write, self.read):  # as the official code starts them; convolutions as PyTorch does
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """All positions at once, (B, L, D)."""
        return self._read(self.memory(self._write(x_BLD)), x_BLD)

    def resume(self, x_BTD: Tensor, mask_BT: Tensor, memory_BO: Tensor | None) -> tuple[Tensor, Tensor]:
        """From a memory on (None: an empty one), and the memory at each row's last real position."""
        m_BTO, memory_BO = self.memory.resume(self._write(x_BTD), mask_BT, memory_BO)
        return self._read(m_BTO, x_BTD), memory_BO

    def _write(self, x_BLD: Tensor) -> Tensor:
        u_BL: Tensor = F.relu(self.write(x_BLD)).squeeze(-1)
        return u_BL

    def _read(self, m_BLO: Tensor, x_BLD: Tensor) -> Tensor:
        y_BLD: Tensor = self.out(F.relu(self.read(torch.cat((m_BLO.to(x_BLD.dtype), x_BLD), -1))))
        return y_BLD


class AttentionMixer(nn.Module):
    """Softmax self-attention over all real positions, its output projection in the place of W."""

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__()
        options = AttentionOptions(kv_heads=None, head_dim=None, bias=True, scaled=True, dropout=0.0)
        self.attention = SelfAttention(dim=dim, heads=heads, options=options)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """(B, L, D)."""
        seen = sight(see_real(mask_BL), None, causal=False, queries=x_BLD.shape[1])
        y_BLD: Tensor = self.attention(x_BLD, seen, None, None)[0]
        return y_BLD


class RecurrentMixer(nn.Module):
    """W GRU(x)."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.gru, self.out = nn.GRU(dim, dim, batch_first=True), nn.Linear(dim, dim)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """(B, L, D)."""
        y_BLD: Tensor = self.out(self.gru(x_BLD)[0])
        return y_BLD
