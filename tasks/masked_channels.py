"""Masked channels: parts of a sequence of channels are hidden and told from the rest (a masked autoencoder)."""
# B batch, L positions, N nodes, C channels of a node, M hidden nodes of a batch, R groups

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Encoder, Graph, InputSpec, Sequences
from tasks import sources
from tasks.base import Accounting, Batch, Output, Task
from tasks.data.base import SPLITS, DataError, DataSet, Example
from tasks.metrics.base import Metric
from tasks.padding import Ragged
from tasks.readout import auxiliary

STREAM = "hidden"
AT_ONCE = 1024  # rows
LEAST = 0.1  # of the last number of a direction, where it is made a point


@dataclass(frozen=True, kw_only=True, slots=True)
class Frames(Batch):
    """Rows of channels as they are, and fixed draws for their evaluation."""

    source: Sequences  # (B, L, N * C)
    draws: Tensor  # (B, L, N) float32 in [0, 1)


class MaskedChannels(Task):
    """Of some nodes at some positions the channels are hidden, and the loss is over these alone.

    Nodes are those of the data's graph (a skeleton's joints), or each channel where it has none. `mask`:
    `part` the groups of the graph numbered in `parts`, the same in all rows, positions and steps (SkeletonMAE, Yan et
    al. 2023, arXiv 2307.08476); `random` as many nodes as those, drawn for each position (without groups a `share` of
    all); `frame` as many groups, drawn for each row; `position` all nodes of a `share` of the positions. Training draws
    anew each time; evaluation has a fixed draw a row. A source is cut into rows of `window` positions.

    Hidden channels are fed as zeros: with `mark: value` a learnt number for each channel of a node takes their place,
    for any encoder; with `mark: stream` those that read it are told by the stream "hidden", (B, L, N) of 1 and 0.

    The target is standardised by each channel's mean and deviation over training: x (M, C). `loss: mse` is the mean
    square; `rce` the re-weighted cosine error of Hou et al. 2022 (GraphMAE, arXiv 2205.10803, equation 2), mean of (1 -
    cos(x', y))^beta. It has no norms, so x' = (x, 1): a point is a direction then, none is lost, and what y says is
    y[:C] / y[C]. x' is fixed: of SkeletonMAE's own target, a learnt embedding of x, all can become parallel.

    Predictions are arrays (M_row, C) on the standardised scale, where the mean of training has an MSE of about 1. With
    `shuffle` each node's numbers are those of another frame of the split: the control without any structure to learn.
    """

    rules = frozenset({"majority", "random"})
    member: Tensor  # (R, N) bool, which nodes are of a group
    mean: Tensor  # (N * C,) float32
    deviation: Tensor  # (N * C,) float32

    def __init__(
        self,
        *,
        data: DataSet,
        max_length: Annotated[int, Field(gt=0)],
        window: Annotated[int, Field(gt=0)],
        mask: Literal["part", "random", "frame", "position"],
        parts: list[int],
        share: Annotated[float, Field(gt=0, lt=1)],
        mark: Literal["value", "stream"],
        loss: Literal["rce", "mse"],
        beta: Annotated[float, Field(ge=1)],
        shuffle: bool,
        metrics: list[Metric],
    ) -> None:
        super().__init__(data=data, metrics=metrics)
        if window > max_length:
            raise ValueError(f"window: {window} positions are more than max_length {max_length}; use {max_length}")
        groups = len(data.graph.parts) if data.graph is not None else 0
        if mask in ("part", "frame") and (not groups or not parts):
            raise ValueError(f"mask: {mask}, with parts {parts} of {groups} that the data has; use random or position")
        if len(set(parts)) != len(parts) or any(not 0 <= part < groups for part in parts if groups):
            raise ValueError(f"parts: {parts}; the data's are 0 to {groups - 1}, each once")
        self.max_length, self.window, self.mask, self.parts, self.share = max_length, window, mask, parts, share
        self.mark, self.loss, self.beta, self.shuffle = mark, loss, beta, shuffle
        self.graph = data.graph
        self.nodes = 0 if data.graph is None else data.graph.nodes  # 0: as many as there are channels, not yet known
        self.rows: dict[str, Ragged] = {}

    def check_encoder(self, encoder: Encoder) -> None:
        """A state for each position, or for each node of each position."""
        states, nodes = encoder.num_states(self.max_length), self.nodes
        if states not in (self.max_length, self.max_length * nodes) and (nodes or states % self.max_length):
            of_nodes = f" of {nodes} nodes" if nodes else ""
            raise ValueError(
                f"an encoder of {states} states for {self.max_length} positions{of_nodes}; a state for each position,"
                " or for each node of each position, is right"
            )

    # -- data --------------------------------------------------------------------------------------------------------
    def outline(self) -> InputSpec:
        """Channels of the graph, or a stand-in."""
        return self._spec(sources.STAND_IN if self.graph is None else self.graph.nodes * self.graph.width)

    def _spec(self, channels: int) -> InputSpec:
        nodes = channels if self.graph is None else self.graph.nodes
        told = {STREAM: InputSpec(max_length=self.max_length, channels=nodes)} if self.mark == "stream" else {}
        return InputSpec(max_length=self.max_length, channels=channels, graph=self.graph, streams=told)

    def prepare(self) -> None:
        """Rows of all splits, and the scale of the training split's."""
        for split in SPLITS:
            if any(example.streams for example in self.examples[split]):
                raise DataError(f"{split}: has streams; masked channels feed none")
            longest = max(len(np.asarray(example.source)) for example in self.examples[split])
            whole = sources.encode(self.examples[split], None, longest, split).rows
            if self.shuffle:
                whole.values = self._shuffled(whole.values, SPLITS.index(split))
            pieces = [
                whole[row][start : start + self.window]
                for row in range(len(whole))
                for start in range(0, len(whole[row]), self.window)
            ]
            self.rows[split] = Ragged(pieces, np.float32)
        train = self.rows["train"].values
        self.spec = self._spec(train.shape[1])
        if any(self.rows[split].values.shape[1] != train.shape[1] for split in SPLITS):
            raise DataError("task.data: splits have unequal numbers of channels")
        graph = self.graph or Graph(nodes=train.shape[1], width=1, edges=())
        self.nodes, self.width = graph.nodes, graph.width
        member_RN = torch.zeros(len(graph.parts), self.nodes, dtype=torch.bool)
        for group, nodes in enumerate(graph.parts):
            member_RN[group, list(nodes)] = True
        grouped = int(member_RN[self.parts].sum()) if graph.parts else 0
        self.number = grouped or max(1, round(self.share * self.nodes))
        deviation = train.std(axis=0, dtype=np.float64)
        self.register_buffer("member", member_RN, persistent=False)
        self.register_buffer("mean", torch.from_numpy(train.mean(axis=0, dtype=np.float64)).float(), persistent=False)
        scale = torch.from_numpy(np.where(deviation > 0, deviation, 1.0)).float()
        self.register_buffer("deviation", scale, persistent=False)
        for split in SPLITS:
            self.examples[split] = [
                Example(source=self.rows[split][row], target=asked) for row, asked in enumerate(self._asked(split))
            ]

    def _shuffled(self, values: NDArray[Any], seed: int) -> NDArray[Any]:
        """Each node's channels in an order of positions of its own, over all of the split."""
        generator, width = np.random.default_rng(seed), 1 if self.graph is None else self.graph.width
        mixed = np.empty(values.shape, values.dtype)
        for start in range(0, values.shape[1], width):
            mixed[:, start : start + width] = values[generator.permutation(len(values)), start : start + width]
        return mixed

    def _asked(self, split: str) -> Iterator[NDArray[np.float32]]:
        """What evaluation hides of each row, standardised, (M, C)."""
        for rows in np.array_split(np.arange(len(self.rows[split])), -(-len(self.rows[split]) // AT_ONCE)):
            batch = self.collate(split, rows, fixed=True)
            hidden_BLN = self.hidden(batch.draws, batch.source.mask)
            yield from _by_row(self._standardised(batch.source.values)[hidden_BLN], hidden_BLN)

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Positions of each row, (N,)."""
        return self.rows[split].lengths

    def collate(self, split: str, rows: NDArray[np.int64], *, fixed: bool = False) -> Frames:
        """Rows, padded, with their fixed draws (of training none, unless asked)."""
        source = self.rows[split].sequences(rows)
        draws = torch.zeros(*source.mask.shape, self.nodes)
        for i, row in enumerate(rows.tolist() if fixed or split != "train" else ()):
            length = int(self.rows[split].lengths[row])
            drawn = np.random.default_rng([SPLITS.index(split), row]).random((length, self.nodes), dtype=np.float32)
            draws[i, :length] = torch.from_numpy(drawn)
        return Frames(index=torch.from_numpy(rows), source=source, draws=draws)

    def accounting(self, split: str) -> Accounting:
        """Counts of rows and positions; nothing is cut off."""
        rows = self.rows[split]
        return Accounting(examples=len(rows), positions=len(rows.values), truncated=0, dropped=0)

    # -- what is hidden ----------------------------------------------------------------------------------------------
    def hidden(self, draws_BLN: Tensor, mask_BL: Tensor) -> Tensor:
        """Which nodes are hidden, (B, L, N) bool; of every row at least one, and none at padding."""
        if self.mask == "part":
            hidden_BLN = self.member[self.parts].any(0).expand(draws_BLN.shape)
        elif self.mask == "random":
            hidden_BLN = _lowest(draws_BLN, self.number)
        elif self.mask == "frame":
            chosen_BR = _lowest(draws_BLN[:, 0, : len(self.member)], len(self.parts))
            hidden_BN = (chosen_BR.unsqueeze(2) & self.member).any(1)
            hidden_BLN = hidden_BN.unsqueeze(1).expand(draws_BLN.shape)
        else:
            draws_BL = draws_BLN[..., 0].masked_fill(~mask_BL, 1.0)
            hidden_BLN = ((draws_BL < self.share) | _lowest(draws_BL, 1)).unsqueeze(2).expand(draws_BLN.shape)
        return hidden_BLN & mask_BL.unsqueeze(2)

    def _standardised(self, values_BLE: Tensor) -> Tensor:
        """(B, L, N, C) of (B, L, N * C)."""
        standardised_BLE = (values_BLE - self.mean) / self.deviation
        return standardised_BLE.view(*values_BLE.shape[:2], self.nodes, self.width)

    # -- with an encoder ---------------------------------------------------------------------------------------------
    def attach(self, encoder: Encoder) -> None:
        """A linear map of each node's state to its channels, or of each position's to those of all its nodes."""
        self.check_encoder(encoder)
        states, self.out = encoder.num_states(self.max_length), self.width + (self.loss == "rce")
        self.head = nn.Linear(encoder.dim, self.out * (1 if states > self.max_length else self.nodes))
        self.instead = nn.Parameter(torch.zeros(self.width)) if self.mark == "value" else None

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """The loss, a mean over hidden nodes."""
        assert isinstance(batch, Frames)
        values, mask_BL = batch.source.values, batch.source.mask
        draws_BLN = torch.rand(batch.draws.shape, device=values.device) if self.training else batch.draws
        hidden_BLN = self.hidden(draws_BLN, mask_BL)
        nodes_BLNC = values.view(*mask_BL.shape, self.nodes, self.width)
        instead = values.new_zeros(self.width) if self.instead is None else self.instead
        fed_BLE = torch.where(hidden_BLN.unsqueeze(3), instead, nodes_BLNC).flatten(2)
        streams = {}
        if self.mark == "stream":
            streams[STREAM] = Sequences(values=hidden_BLN.to(values.dtype), mask=mask_BL)
        states = encoder(replace(batch.source, values=fed_BLE, streams=streams))
        y_BLNO = self.head(states.values).float().view(*hidden_BLN.shape, self.out)
        x_BLNC = self._standardised(values)
        x_MC, y_MO = x_BLNC[hidden_BLN], y_BLNO[hidden_BLN]
        if self.loss == "mse":
            loss = (y_MO - x_MC).square().mean()
        else:
            loss = reweighted_cosine_error(nn.functional.pad(x_MC, (0, 1), value=1.0), y_MO, self.beta)
        loss = auxiliary(loss, states)
        if self.training:
            return Output(loss=loss, items=len(x_MC))
        points_MC = y_MO if self.loss == "mse" else y_MO[:, :-1] / y_MO[:, -1:].clamp_min(LEAST)
        return Output(loss=loss, items=len(x_MC), predictions=_by_row(points_MC, hidden_BLN))

    def trivial(self, rule: str, split: str, seed: int) -> dict[int, Any]:
        """`majority`: the mean of training, which is 0. `random`: normal numbers of its spread, by seed."""
        shapes = [np.shape(target) for target in self.references(split)]
        if rule == "majority":
            return {row: np.zeros(shape, np.float32) for row, shape in enumerate(shapes)}
        if rule == "random":
            generator = np.random.default_rng([seed, SPLITS.index(split)])
            return {row: generator.standard_normal(shape, dtype=np.float32) for row, shape in enumerate(shapes)}
        return super().trivial(rule, split, seed)


def reweighted_cosine_error(x_MC: Tensor, y_MC: Tensor, beta: float) -> Tensor:
    """Mean of (1 - cos(x, y))^beta over rows; 0 in their direction, 2^beta against it, whatever their norms.

    SkeletonMAE prints it as sum of (1/M - cos/M)^beta, which is M^(beta - 1) times less, so that its weight would
    depend on how many are hidden.
    """
    return (1 - nn.functional.cosine_similarity(x_MC, y_MC, dim=-1)).clamp_min(0).pow(beta).mean()


def _by_row(values_MC: Tensor, hidden_BLN: Tensor) -> list[NDArray[np.float32]]:
    """What is of the hidden nodes, for each row an array."""
    ends = hidden_BLN.sum((1, 2)).cumsum(0).tolist()
    return np.split(values_MC.detach().cpu().numpy(), ends[:-1])


def _lowest(draws: Tensor, number: int) -> Tensor:
    """The `number` lowest of the last axis, as bool."""
    places = draws.argsort(dim=-1)[..., :number]
    return torch.zeros_like(draws, dtype=torch.bool).scatter(-1, places, True)
