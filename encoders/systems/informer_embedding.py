"""What Informer reads: values, where they stand and when they were (Zhou et al. 2021, arXiv 2012.07436, appendix B)."""
# B batch, L positions, C channels, D width

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.base import InputSpec, Sequences
from encoders.blocks.positions import Sinusoidal


class Embedding(nn.Module):
    """Circular convolution of the values, plus fixed positions, plus a linear map of the time (appendix B)."""

    def __init__(self, *, dim: int, length: int, dropout: float, spec: InputSpec) -> None:
        super().__init__()
        assert spec.channels is not None
        self.value = nn.Conv1d(spec.channels, dim, 3, padding=1, padding_mode="circular")
        nn.init.kaiming_normal_(self.value.weight, mode="fan_in", nonlinearity="leaky_relu")
        self.position = Sinusoidal(base=10000.0).make(dim=dim, heads=1, head_dim=dim, length=length, causal=False)
        time = spec.streams.get("time")
        self.time: nn.Module | None = None
        if time is not None:
            self.time = nn.Linear(time.channels, dim) if time.channels else nn.Embedding(time.vocab_size or 1, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values_BLC: Tensor, time: Sequences | None, rows: Tensor, begin: int) -> Tensor:
        """Vectors (B, L, D). The first position has time `begin` of the stream; where that ends, none is added."""
        x_BLD = self.value(values_BLC.transpose(1, 2)).transpose(1, 2)
        length = x_BLD.shape[1]
        x_BLD = self.position.add(x_BLD, torch.arange(length, device=x_BLD.device).unsqueeze(0))
        if self.time is not None and time is not None:
            here = rows, slice(begin, begin + length)
            time_BLD = self.time(time.values[here]) * time.mask[here].unsqueeze(-1)
            x_BLD = x_BLD + F.pad(time_BLD, (0, 0, 0, length - time_BLD.shape[1]))
        embedded_BLD: Tensor = self.dropout(x_BLD)
        return embedded_BLD
