"""The parts of MCA and its baselines: a gate over features, attention with a context, n-grams, GRUs, convolutions."""
# B batch, L positions, S width of what is read, G numbers of the context, M heads, A size of the attention

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.blocks.convolution import Convolution, on_real
from encoders.blocks.recurrent import take, turning

LAYERS, KERNEL = 4, 5  # of stacked convolutions


class ContextGate(nn.Module):
    """a * g with a = softmax(W g + b) over the features (the paper's dense self-attention); `scaled`: G times that."""

    def __init__(self, *, genes: int, scaled: bool) -> None:
        super().__init__()
        self.linear, self.factor = nn.Linear(genes, genes), float(genes) if scaled else 1.0

    def forward(self, g_BG: Tensor) -> Tensor:
        """(B, G)."""
        a_BG: Tensor = F.softmax(self.linear(g_BG), dim=1)
        return self.factor * a_BG * g_BG


class ContextualAttention(nn.Module):
    """alpha = softmax_t(v . tanh(W_r R_t + b_r + W_c c + b_c)), over real positions; all heads in one product each.

    The additive attention of Bahdanau et al. 2015 (arXiv 1409.0473), the query being the context; without one (0
    numbers) it is v . tanh(W_r R_t + b_r).
    """

    def __init__(self, *, dim: int, context: int, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.read = nn.Linear(dim, heads * size)
        self.context = nn.Linear(context, heads * size) if context else None
        self.score = nn.Parameter(torch.empty(heads, size))
        nn.init.uniform_(self.score, -(size**-0.5), size**-0.5)  # as nn.Linear(size, 1, bias=False) of each head

    def forward(self, x_BLS: Tensor, mask_BL: Tensor, c_BG: Tensor | None) -> Tensor:
        """Weights (B, M, L); 0 at padding."""
        u_BLX = self.read(x_BLS)
        if self.context is not None and c_BG is not None:
            u_BLX = u_BLX + self.context(c_BG).unsqueeze(1)
        u_BLMA = torch.tanh(u_BLX).view(*mask_BL.shape, self.heads, -1)
        score_BML = torch.einsum("blma,ma->bml", u_BLMA, self.score.to(u_BLMA.dtype)).float()
        return F.softmax(score_BML.masked_fill(~mask_BL.unsqueeze(1), -torch.inf), dim=2)


class NGrams(nn.Module):
    """An n-gram fingerprint: bit crc32 mod `bits` of each run of 1 to `longest` ids, an id being two bytes, the low one
    first. Nothing is learnt. No chemistry: unlike Morgan's, the bits are of the string, not of atoms' surroundings.
    """

    def __init__(self, *, bits: int, longest: int) -> None:
        super().__init__()
        self.bits, self.longest = bits, longest
        table = torch.arange(256)
        for _ in range(8):  # the reflected polynomial of zlib
            table = torch.where(table & 1 == 1, (table >> 1) ^ 0xEDB88320, table >> 1)
        self.register_buffer("table", table, persistent=False)

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """(B, bits) float32 of 0 and 1."""
        assert isinstance(self.table, Tensor)
        length = ids_BL.shape[1]
        crc_BL, real_BL = torch.full_like(ids_BL, 0xFFFFFFFF), mask_BL
        found_BX = torch.zeros(len(ids_BL), self.bits + 1, device=ids_BL.device)  # the last one for what is no n-gram
        for n in range(min(self.longest, length)):
            starts = length - n
            crc_BL, real_BL = crc_BL[:, :starts], real_BL[:, :starts] & mask_BL[:, n:]
            for byte_BL in (ids_BL[:, n:] & 0xFF, (ids_BL[:, n:] >> 8) & 0xFF):
                crc_BL = self.table[(crc_BL ^ byte_BL) & 0xFF] ^ (crc_BL >> 8)
            bit_BL = torch.where(real_BL, (crc_BL ^ 0xFFFFFFFF) % self.bits, self.bits)
            found_BX.scatter_(1, bit_BL, 1.0)
        return found_BX[:, : self.bits]


class Recurrent(nn.Module):
    """GRUs of both directions, one upon the other; the code is the last outputs of both, as published runs have it."""

    def __init__(self, *, dim: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        inputs = [dim, *(2 * width for width in widths)]
        self.rightward, self.leftward = (
            nn.ModuleList(nn.GRU(inputs[i], width, batch_first=True) for i, width in enumerate(widths))
            for _ in range(2)
        )

    def forward(self, x_BLS: Tensor, mask_BL: Tensor) -> Tensor:
        """(B, twice the last width)."""
        turned_BL = turning(mask_BL)
        for rightward, leftward in zip(self.rightward, self.leftward, strict=True):
            right_BLS, left_BLS = rightward(x_BLS)[0], leftward(take(x_BLS, turned_BL))[0]
            x_BLS = torch.cat((right_BLS, take(left_BLS, turned_BL)), -1)
        last_B = (mask_BL.sum(1) - 1).clamp_min(0)
        rows_B = torch.arange(len(last_B), device=last_B.device)
        return torch.cat((right_BLS[rows_B, last_B], left_BLS[rows_B, last_B]), 1)


class StackedConvolutions(nn.Module):
    """Four times BN(dropout(ReLU(convolution))), maxima of pairs after each but the last, then over all positions.

    The paper says no more than that they are stacked and pooled: kernels of 5, and pools of 2, are chosen here.
    """

    def __init__(self, *, dim: int, filters: int, dropout: float) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            Convolution(inputs=filters if i else dim, outputs=filters, kernel_size=KERNEL, ahead=KERNEL // 2, bias=True)
            for i in range(LAYERS)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(filters) for _ in range(LAYERS))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLS: Tensor, mask_BL: Tensor) -> Tensor:
        """(B, filters)."""
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            if i:
                lowest_BLS = x_BLS.masked_fill(~mask_BL.unsqueeze(-1), torch.finfo(x_BLS.dtype).min)
                x_BLS = F.max_pool1d(lowest_BLS.transpose(1, 2), 2, ceil_mode=True).transpose(1, 2)
                mask_BL = mask_BL[:, ::2]
                x_BLS = x_BLS * mask_BL.unsqueeze(-1)
            x_BLS = on_real(norm, self.dropout(F.relu(convolution(x_BLS, mask_BL))), mask_BL)
        return x_BLS.masked_fill(~mask_BL.unsqueeze(-1), torch.finfo(x_BLS.dtype).min).amax(1)
