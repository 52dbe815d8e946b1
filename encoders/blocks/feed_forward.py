"""The feed-forward block: two linear maps and a non-linearity, or a gated one (Shazeer 2020, arXiv 2002.05202)."""
# B batch, L positions, D width, F hidden width

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),  # GPT-2, T5 v1.1
    "silu": F.silu,
}


class FeedForwardOptions:
    """The feed-forward of a stack, apart from its widths.

    gated: down(activation(gate(x)) * up(x)), which is SwiGLU with silu; else down(activation(up(x))).
    """

    def __init__(
        self,
        *,
        activation: Literal["relu", "gelu", "gelu_tanh", "silu"],
        gated: bool,
        bias: bool,
        dropout: Annotated[float, Field(ge=0, lt=1)],
    ) -> None:
        self.activation, self.gated, self.bias, self.dropout = activation, gated, bias, dropout


class FeedForward(nn.Module):
    """x -> down(activation(up(x))), (B, L, D) -> (B, L, D). Gate and up are one linear map, the gate's rows first."""

    def __init__(self, *, dim: int, hidden: int, options: FeedForwardOptions) -> None:
        super().__init__()
        self.activation, self.gated = ACTIVATIONS[options.activation], options.gated
        self.up = nn.Linear(dim, hidden * (2 if options.gated else 1), bias=options.bias)
        self.dropout = nn.Dropout(options.dropout)
        self.down = nn.Linear(hidden, dim, bias=options.bias)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """The block without its residual."""
        h_BLF: Tensor = self.up(x_BLD)
        if self.gated:
            gate_BLF, up_BLF = h_BLF.chunk(2, dim=-1)
            h_BLF = self.activation(gate_BLF) * up_BLF
        else:
            h_BLF = self.activation(h_BLF)
        y_BLD: Tensor = self.down(self.dropout(h_BLF) if self.training else h_BLF)
        return y_BLD
