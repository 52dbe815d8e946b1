"""Fully convolutional network for time series (Wang, Yan, Oates 2017, arXiv 1611.06455, section II.B)."""
# B batch, L positions, C channels in, D width

from __future__ import annotations

from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Encoder, InputSpec, Sequences, States, check_length
from encoders.blocks.convolution import on_real

MOMENTUM, EPSILON = 0.01, 1e-3  # of batch normalisation, as in the authors' code (Keras: 1 - 0.99, 0.001)


class FCN(Encoder):
    """Three blocks of convolution, batch normalisation and ReLU: kernels 8, 5, 3 and D, 2 D, D maps (paper: D = 128).

    The paper averages the last maps over time, `task.readout=mean`, and puts a softmax on them. Statistics of batch
    normalisation are taken over real positions only. O(L D^2) time.
    Raises ValueError for ids (it reads channels) and for a source beyond `spec.max_length`.
    """

    family: ClassVar[str] = "convolutional"
    causal = False

    def __init__(self, *, dim: Annotated[int, Field(gt=0)], spec: InputSpec) -> None:
        super().__init__()
        if spec.channels is None:
            raise ValueError("FCN reads series of channels; this task has ids")
        self.dim, self.spec = dim, spec
        widths = [spec.channels, dim, 2 * dim, dim]
        self.blocks = nn.ModuleList(
            Block(inputs=widths[i], outputs=widths[i + 1], kernel_size=kernel) for i, kernel in enumerate((8, 5, 3))
        )

    def forward(self, source: Sequences) -> States:
        """Maps of the last block, none of them negative."""
        check_length(source, self.spec)
        x_BLD = source.values
        for block in self.blocks:
            x_BLD = block(x_BLD, source.mask)
        return States(values=x_BLD, mask=source.mask)


class Block(nn.Module):
    """ReLU(BN(convolution)); what is beyond the ends, padding included, counts as zero."""

    def __init__(self, *, inputs: int, outputs: int, kernel_size: int) -> None:
        super().__init__()
        before = (kernel_size - 1) // 2
        self.pad = (before, kernel_size - 1 - before)  # as Keras pads for `same`
        self.convolution = nn.Conv1d(inputs, outputs, kernel_size)
        nn.init.xavier_uniform_(self.convolution.weight)
        assert self.convolution.bias is not None
        nn.init.zeros_(self.convolution.bias)
        self.norm = nn.BatchNorm1d(outputs, eps=EPSILON, momentum=MOMENTUM)

    def forward(self, x_BLC: Tensor, mask_BL: Tensor) -> Tensor:
        """(B, L, outputs), zero at padding."""
        x_BCL = (x_BLC * mask_BL.unsqueeze(-1)).transpose(1, 2)
        y_BLD = self.convolution(F.pad(x_BCL, self.pad)).transpose(1, 2)
        return F.relu(on_real(self.norm, y_BLD, mask_BL))
