"""SkeletonMAE: a graph encoder that learns to fill in hidden joints, and the classifier of clips that takes it over."""
# B batch, L frames, P persons, N joints of a person, C coordinates, D width, F real frames of all persons

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Encoder, Graph, InputSpec, Sequences, States, check_length
from encoders.blocks.convolution import on_real
from encoders.systems.skeletonmae_graph import graph_layer

OF_A_COPY = re.compile(r"^layers\.\d+\.graphs\.\d+\.")  # names of a graph encoder in the classifier


class SkeletonMAE(Encoder):
    """Yan et al. 2023 (ICCV), arXiv 2307.08476. No code of it was released; what its text leaves open is said here.

    `states: nodes` is the masked autoencoder, frame by frame: linear embedding of each joint, one learnt vector in
    place of hidden ones (stream "hidden", B L N, 1 where a joint is hidden), `depth` graph layers (G_E), a linear map,
    hidden joints set to zero (`remask`; the last two as in GraphMAE, THUDM/GraphMAE at b14f080), one graph layer (G_D).
    A state is a joint of a frame, so a task reads L N of them.

    `states: frames` is STRL, the classifier: embedding plus a learnt position of each frame; `layers` times SM(H) =
    repeat(sum over joints of G_E(H)) + H W_r, for each person with a G_E of its own, then H' = ReLU(SM(H) W) over the
    persons joined; convolutions over time at several scales; the mean over joints. It begins with the embedding and the
    G_E of the autoencoder, copied into every layer and person. Chosen here: all widths D; batch norm of the sum, which
    is N times as large as H, and before each ReLU; W maps the P persons' joined D to as many. A person all of whose
    coordinates are 0 is absent from a frame, and from its statistics.

    O(L N D^2) time. Raises ValueError for input without a graph, and for nodes that are not `persons` equal skeletons.
    """

    family: ClassVar[str] = "graph"
    reads: ClassVar[frozenset[str]] = frozenset({"hidden"})
    depths: ClassVar[tuple[str, ...]] = ("depth", "layers")

    def __init__(
        self,
        *,
        states: Literal["nodes", "frames"],
        dim: Annotated[int, Field(gt=0)],
        depth: Annotated[int, Field(gt=0)],
        layers: Annotated[int, Field(gt=0)],
        backbone: Literal["gin", "gcn", "gat"],
        heads: Annotated[int, Field(gt=0)],
        persons: Annotated[int, Field(gt=0)],
        remask: bool,
        kernel_size: Annotated[int, Field(gt=0)],
        dilations: list[int],
        spec: InputSpec,
    ) -> None:
        super().__init__()
        if spec.graph is None:
            raise ValueError("this encoder reads the joints of skeletons, and the task feeds none; use jhmdb_pose")
        self.spec, self.states, self.persons, self.remask, self.dim = spec, states, persons, remask, dim
        self.causal = states == "nodes"  # frame by frame
        self.skeleton = _one_person(spec.graph, persons)

        def graph_encoder(number: int) -> nn.Module:
            return nn.Sequential(
                *(graph_layer(backbone, dim=dim, heads=heads, graph=self.skeleton) for _ in range(number))
            )

        self.embed = nn.Linear(spec.graph.width, dim)
        self.token = nn.Parameter(torch.randn(dim) * 0.02) if "hidden" in spec.streams else None
        if states == "nodes":
            self.graph, self.decoder = graph_encoder(depth), graph_encoder(1)
            self.map = nn.Linear(dim, dim, bias=False)
            return
        self.position = nn.Parameter(torch.randn(spec.max_length, 1, 1, dim) * 0.02)
        self.layers = nn.ModuleList(
            Spatial(dim=dim, graphs=[graph_encoder(depth) for _ in range(persons)]) for _ in range(layers)
        )
        self.temporal = Temporal(dim=dim, kernel_size=kernel_size, dilations=dilations)

    def forward(self, source: Sequences) -> States:
        """States of joints (B, L P N, D), or of frames (B, L, D)."""
        check_length(source, self.spec)
        rows, length = source.mask.shape
        values_BLPNC = source.values.reshape(rows, length, self.persons, self.skeleton.nodes, -1)
        there_BLP = source.mask.unsqueeze(2).expand(-1, -1, self.persons)
        if self.persons > 1:
            there_BLP = there_BLP & (values_BLPNC != 0).flatten(3).any(3)
        h_BLPND = self.embed(values_BLPNC)
        hidden_BLPN1 = None
        if self.token is not None:
            hidden_BLPN1 = self._hidden(source.streams["hidden"].values, values_BLPNC)
            h_BLPND = torch.where(hidden_BLPN1, self.token.to(h_BLPND.dtype), h_BLPND)
        if self.states == "nodes":
            there_BLP = source.mask.unsqueeze(2).expand_as(there_BLP)  # a person all hidden is zeros, and not absent
            h_BLPND = _on(self.graph, h_BLPND, there_BLP)
            h_BLPND = self.map(h_BLPND)
            if self.remask and hidden_BLPN1 is not None:
                h_BLPND = h_BLPND.masked_fill(hidden_BLPN1, 0)
            out_BND = _on(self.decoder, h_BLPND, there_BLP).flatten(1, 3)
            return States(values=out_BND, mask=source.mask.repeat_interleave(self.num_states(1), dim=1))
        h_BLPND = h_BLPND + self.position[:length]
        for layer in self.layers:
            h_BLPND = layer(h_BLPND, there_BLP)
        weights_BLP11 = there_BLP[..., None, None] / there_BLP.sum(2).clamp_min(1)[..., None, None, None]
        h_BLND = (self.temporal(h_BLPND, there_BLP) * weights_BLP11).sum(2)
        return States(values=h_BLND.mean(2), mask=source.mask)

    def _hidden(self, given: Tensor, values_BLPNC: Tensor) -> Tensor:
        """Which joints are hidden, (B, L, P, N, 1); of a stream of one value a frame, all of it."""
        shape = values_BLPNC.shape[:4]
        given_BLN = given[:, : shape[1]].reshape(*shape[:2], -1) > 0
        return given_BLN.expand(-1, -1, shape[2] * shape[3]).reshape(*shape, 1)

    def num_states(self, length: int) -> int:
        """Joints of all persons, or frames."""
        return length * (self.persons * self.skeleton.nodes if self.states == "nodes" else 1)

    def inherited(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of an autoencoder the embedding, and its graph encoder once for every layer and person; the rest is new."""
        if self.states == "nodes" or not any(name.startswith("graph.") for name in weights):
            return weights
        found = {}
        for name, own in self.state_dict().items():
            of = OF_A_COPY.sub("graph.", name)
            taken = of != name or name.startswith("embed.")
            if not taken or of in weights:
                found[name] = weights[of] if taken else own
        return found


class Spatial(nn.Module):
    """A layer of STRL: H' = ReLU(BN(SM(H) W)), the persons' SM joined (see SkeletonMAE)."""

    def __init__(self, *, dim: int, graphs: list[nn.Module]) -> None:
        super().__init__()
        self.graphs, joined = nn.ModuleList(graphs), len(graphs) * dim
        self.sum_norm, self.residual = nn.BatchNorm1d(dim), nn.Linear(dim, dim)
        self.mix, self.norm = nn.Linear(joined, joined, bias=False), nn.BatchNorm1d(joined)

    def forward(self, h_BLPND: Tensor, there_BLP: Tensor) -> Tensor:
        """States of the same shape; zeros in frames without anybody."""
        every = [_on(graph, h_BLPND[:, :, p], there_BLP[:, :, p]) for p, graph in enumerate(self.graphs)]
        pooled_BLPD = on_real(self.sum_norm, torch.stack(every, dim=2).sum(3), there_BLP)
        sm_BLPND = (pooled_BLPD.unsqueeze(3) + self.residual(h_BLPND)) * there_BLP[..., None, None]
        mixed_BLNE = self.mix(sm_BLPND.transpose(2, 3).flatten(3))
        anybody_BLN = there_BLP.any(2, keepdim=True).expand(mixed_BLNE.shape[:3])
        h_BLNE = on_real(self.norm, mixed_BLNE, anybody_BLN).relu()
        return h_BLNE.reshape(*h_BLNE.shape[:3], len(every), -1).transpose(2, 3)


class Temporal(nn.Module):
    """H + ReLU(BN(joined branches)): convolutions over time of each dilation, a maximum over 3 frames, a linear map.

    As the multi-scale unit of CTR-GCN (Chen et al. 2021, arXiv 2107.12213, figure 3), each joint by itself.
    """

    def __init__(self, *, dim: int, kernel_size: int, dilations: list[int]) -> None:
        super().__init__()
        branches = len(dilations) + 2
        if not dilations or min(dilations) < 1:
            raise ValueError(f"dilations: {dilations}; give one or more, each 1 or more")
        if dim % branches:
            raise ValueError(
                f"dim: {dim} can't be shared by {branches} branches, one for each of dilations {dilations} and two "
                f"more; use {max(1, dim // branches) * branches}"
            )
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: {kernel_size} has no middle; use {kernel_size + 1}")
        part = dim // branches
        self.parts = nn.ModuleList(nn.Linear(dim, part) for _ in range(branches))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(part, part, kernel_size, padding=d * (kernel_size // 2), dilation=d) for d in dilations
        )
        self.longest = nn.MaxPool1d(3, stride=1, padding=1)
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, h_BLPND: Tensor, there_BLP: Tensor) -> Tensor:
        """States of the same shape; frames without the person are zeros to the others."""
        here = there_BLP[..., None, None]
        x_MDL = (h_BLPND * here).permute(0, 2, 3, 4, 1).flatten(0, 2)
        here_M1L = here.expand(*h_BLPND.shape[:4], 1).permute(0, 2, 3, 4, 1).flatten(0, 2)
        parts = [part(x_MDL.transpose(1, 2)).transpose(1, 2).relu() * here_M1L for part in self.parts]
        every = [conv(part) for conv, part in zip(self.convolutions, parts, strict=False)]
        y_MDL = torch.cat((*every, self.longest(parts[-2]), parts[-1]), dim=1)
        rows, length, persons, nodes, dim = h_BLPND.shape
        y_BLPND = y_MDL.reshape(rows, persons, nodes, dim, length).permute(0, 4, 1, 2, 3)
        real_BLPN = there_BLP.unsqueeze(3).expand(-1, -1, -1, nodes)
        return h_BLPND + on_real(self.norm, y_BLPND, real_BLPN).relu()


def _on(graph: nn.Module, h_BLND: Tensor, there_BL: Tensor) -> Tensor:
    """A graph encoder on the frames that are there, (B, L, ..., N, D); zeros in the others."""
    h_FND: Tensor = graph(h_BLND[there_BL])
    out_BLND = h_FND.new_zeros(h_BLND.shape)
    return out_BLND.masked_scatter(there_BL[..., None, None], h_FND)


def _one_person(graph: Graph, persons: int) -> Graph:
    """The skeleton that each of the persons has. Raises ValueError where they are not alike."""
    size, left = divmod(graph.nodes, persons)
    edges = [
        {frozenset((a - p * size, b - p * size)) for a, b in graph.edges if a // size == p} for p in range(persons)
    ]
    if left or any(a // size != b // size for a, b in graph.edges) or any(each != edges[0] for each in edges):
        raise ValueError(
            f"persons: {persons}, but the {graph.nodes} nodes are not so many skeletons that are alike; use 1"
        )
    return Graph(nodes=size, width=graph.width, edges=tuple((min(e), max(e)) for e in sorted(map(sorted, edges[0]))))
