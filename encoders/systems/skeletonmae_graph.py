"""The graph encoder of SkeletonMAE: layers over the joints of one frame."""
# F frames, N nodes, D width, H heads

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.base import Graph
from encoders.blocks.attention import head_width
from encoders.blocks.convolution import normed

Backbone = Literal["gin", "gcn", "gat"]


class GIN(nn.Module):
    """h' = MLP((1 + eps) h + A h), MLP = linear, batch norm, PReLU, linear; eps is learnt, from 0.

    Xu et al. 2019, arXiv 1810.00826, equation 4.1.
    """

    def __init__(self, *, dim: int, adjacency: Tensor) -> None:
        super().__init__()
        self.adjacency: Tensor
        self.register_buffer("adjacency", adjacency, persistent=False)
        self.eps = nn.Parameter(torch.zeros(1))
        self.up, self.norm, self.activation = nn.Linear(dim, dim), nn.BatchNorm1d(dim), nn.PReLU()
        self.down = nn.Linear(dim, dim)

    def forward(self, h_FND: Tensor) -> Tensor:
        """States of the nodes."""
        h_FND = self.up((1 + self.eps) * h_FND + self.neighbours(h_FND))
        out_FND: Tensor = self.down(self.activation(over_nodes(self.norm, h_FND)))
        return out_FND

    def neighbours(self, h_FND: Tensor) -> Tensor:
        """A h, the sum over each node's neighbours."""
        return torch.matmul(self.adjacency.to(h_FND.dtype), h_FND)


class GCN(nn.Module):
    """h' = PReLU(BN(S h W)), S = M^-1/2 (A + I) M^-1/2 with M the degrees of A + I (Kipf, Welling 2017, 1609.02907)."""

    def __init__(self, *, dim: int, adjacency: Tensor) -> None:
        super().__init__()
        with_self = adjacency + torch.eye(len(adjacency), device=adjacency.device)
        root_N = with_self.sum(1).rsqrt()
        self.smooth: Tensor
        self.register_buffer("smooth", root_N[:, None] * with_self * root_N, persistent=False)
        self.linear, self.norm, self.activation = nn.Linear(dim, dim), nn.BatchNorm1d(dim), nn.PReLU()

    def forward(self, h_FND: Tensor) -> Tensor:
        """States of the nodes."""
        v_FND = self.linear(h_FND)
        h_FND = torch.matmul(self.smooth.to(v_FND.dtype), v_FND)
        out_FND: Tensor = self.activation(over_nodes(self.norm, h_FND))
        return out_FND


class GAT(nn.Module):
    """h' = PReLU(BN(attention over a node and its neighbours)), heads joined (Velickovic et al. 2018, 1710.10903).

    Raises ValueError for heads that don't divide the width.
    """

    def __init__(self, *, dim: int, adjacency: Tensor, heads: int) -> None:
        super().__init__()
        self.heads, width = heads, head_width(dim, heads)
        seen = (adjacency + torch.eye(len(adjacency), device=adjacency.device)) > 0
        self.seen: Tensor
        self.register_buffer("seen", seen, persistent=False)
        self.linear, self.norm, self.activation = nn.Linear(dim, dim), nn.BatchNorm1d(dim), nn.PReLU()
        self.of, self.to_ = (nn.Parameter(torch.randn(heads, width) * (heads / dim) ** 0.5) for _ in range(2))

    def forward(self, h_FND: Tensor) -> Tensor:
        """States of the nodes."""
        v_FNHK = self.linear(h_FND).unflatten(2, (self.heads, -1))
        scores_FHMN = ((v_FNHK * self.of).sum(3).unsqueeze(2) + (v_FNHK * self.to_).sum(3).unsqueeze(1)).movedim(3, 1)
        weights_FHMN = F.leaky_relu(scores_FHMN, 0.2).masked_fill(~self.seen, -torch.inf).softmax(3)
        joined_FND = torch.einsum("fhmn,fnhk->fmhk", weights_FHMN, v_FNHK).flatten(2)
        out_FND: Tensor = self.activation(over_nodes(self.norm, joined_FND))
        return out_FND


def graph_layer(backbone: Backbone, *, dim: int, heads: int, graph: Graph) -> nn.Module:
    """One layer of the kind; `heads` are of attention."""
    adjacency = graph.adjacency().to(torch.empty(0).device)  # meta where an encoder is only outlined
    if backbone == "gat":
        return GAT(dim=dim, adjacency=adjacency, heads=heads)
    return (GIN if backbone == "gin" else GCN)(dim=dim, adjacency=adjacency)


def over_nodes(norm: nn.Module, h_FND: Tensor) -> Tensor:
    """Batch norm over all nodes of all frames."""
    out_MD = normed(norm, h_FND.flatten(0, 1))
    return out_MD.view(h_FND.shape)
