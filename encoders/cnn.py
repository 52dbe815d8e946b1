"""Convolution over words with several widths, to be pooled over time (Kim 2014, arXiv 1408.5882)."""
# B batch, L positions, E embedding width, D encoder.dim = maps x number of widths

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Encoder, InputSpec, Sequences, States
from encoders.blocks.embedding import InputEmbedding


class CNN(Encoder):
    """ReLU(w . x + b) of windows of each width (equation 2), `maps` a width; the paper pools them by their maximum.

    `task.readout=max` makes it the paper's CNN-rand. Two things differ: a window stands at each of the L positions,
    while the paper's also hang over the ends by all but one word; and `dropout` falls on whole maps of a row, which
    after pooling is the paper's dropout of the pooled vector, since no value is negative. The limit of 3 on the norm
    of output weights (section 2.1) is left out. O(L E maps sum(widths)) time.
    Raises ValueError for a source beyond `spec.max_length`.
    """

    family: ClassVar[str] = "convolutional"
    width: ClassVar[str] = "maps"
    along: ClassVar[tuple[str, ...]] = ("embedding",)
    causal = False

    def __init__(
        self,
        *,
        embedding: Annotated[int, Field(gt=0)],
        maps: Annotated[int, Field(gt=0)],
        widths: list[int],
        dropout: Annotated[float, Field(ge=0, lt=1)],
        spec: InputSpec,
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 1 or len(set(widths)) < len(widths):
            raise ValueError(f"widths: {widths} must be different numbers of positions, 1 or more each")
        self.dim = maps * len(widths)
        self.embed = InputEmbedding(dim=embedding, patch=1, spec=spec)
        if self.embed.table is not None:
            nn.init.uniform_(self.embed.table.weight, -0.25, 0.25)  # section 3.2, for words without a vector
        self.convolutions = nn.ModuleList(nn.Conv1d(embedding, maps, width) for width in widths)
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, source: Sequences) -> States:
        """Maps of the windows around each position, of even widths with one more position after it than before."""
        x_BLE, mask_BL = self.embed(source)
        x_BEL = (x_BLE * mask_BL.unsqueeze(-1)).transpose(1, 2)
        maps_BDL = torch.cat([_same(convolution, x_BEL) for convolution in self.convolutions], dim=1)
        return States(values=self.dropout(F.relu(maps_BDL)).transpose(1, 2), mask=mask_BL)


def _same(convolution: nn.Module, x_BEL: Tensor) -> Tensor:
    """As many outputs as positions."""
    assert isinstance(convolution, nn.Conv1d)
    before = (convolution.kernel_size[0] - 1) // 2
    padded_BEL: Tensor = F.pad(x_BEL, (before, convolution.kernel_size[0] - 1 - before))
    outputs_BML: Tensor = convolution(padded_BEL)
    return outputs_BML
