"""BERT4Rec: items of a history read from both sides, and its causal twin (Sun et al. 2019, arXiv 1904.06690)."""
# B batch, L positions, D width

from __future__ import annotations

from typing import ClassVar, Unpack

import torch.nn.functional as F
from torch import Tensor, nn

from encoders.base import Encoder, InputSpec, Sequences, States
from encoders.blocks.segments import pack, segments_of, unpack
from encoders.blocks.transformer import Arguments, embedding_of, stack_of

STD = 0.02  # of initial weights, whatever the width


class BERT4Rec(Encoder):
    """h0 = Drop(LN(E[x] + P[position] + T[0])), `depth` layers, z = LN(GELU(W h + b)): section 3.2 to 3.4 of the paper.

    Layers are post-norm: x = LN(x + Drop(attention(x))), x = LN(x + Drop(feed-forward(x))), eq. 2 to 4, GELU by erf.
    The states are z, eq. 7 before its product with the table: a task that ties its output to `token_embedding`, with a
    bias, completes it (`task.tie`). `causal` is the one switch to the baseline, SASRec (Kang and McAuley 2018, arXiv
    1808.09781) with the same blocks in place of its own. What is trained, and by which loss, is the task's.

    Of the official code (FeiSun/BERT4Rec@615eaf2) are the two rows of token types, of which the first is always added
    and the second never, the projection before the output, and the start: all weights normal with deviation 0.02, cut
    at two deviations. Other than there: tables of ids, positions and types have no weight decay, torch's Adam corrects
    the bias of its averages, and z is computed at every position, not at those that are asked for alone.
    """

    family: ClassVar[str] = "encoder-only"
    packs: ClassVar[bool] = True

    def __init__(
        self,
        *,
        causal: bool,
        spec: InputSpec,
        **block: Unpack[Arguments],
    ) -> None:
        super().__init__()
        dim, self.causal = block["dim"], causal
        self.dim = dim
        self.embed = embedding_of(block, spec)
        self.token_type = nn.Embedding(2, dim)
        self.stack = stack_of(block, length=self.embed.num_states(spec.max_length), causal=causal, cross=False)
        self.project, self.project_norm = nn.Linear(dim, dim), block["layer"].norm.make(dim)
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(part.weight, std=STD, a=-2 * STD, b=2 * STD)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)

    def forward(self, source: Sequences) -> States:
        """States of the source, one a position, projected."""
        x_BLD, mask_BL = self.embed(source)
        rows = segments_of(mask_BL, packed=self.packed)
        x_BLD, _ = self.stack(pack(x_BLD + self.token_type.weight[0], rows), mask_BL, segments=rows, keep=False)
        z_BLD = self.project_norm(F.gelu(self.project(x_BLD)))
        return States(values=unpack(z_BLD, rows), mask=mask_BL)

    def num_states(self, length: int) -> int:
        """Number of states for a source of `length` positions."""
        return self.embed.num_states(length)

    @property
    def token_embedding(self) -> Tensor | None:
        """The (V, D) table of items; None for channels."""
        return None if self.embed.table is None else self.embed.table.weight
