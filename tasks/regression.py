"""Regression: one number per sequence, or per pair of sequences."""
# B batch, N examples, L positions, D width

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from encoders.base import Encoder, InputSpec, Sequences
from tasks import sources
from tasks.base import Accounting, Batch, Output, Task
from tasks.biases import additive, kinds
from tasks.data.base import SPLITS, DataError, DataSet, Example
from tasks.metrics.base import Metric
from tasks.padding import Ragged
from tasks.readout import auxiliary, linear, pool, resolve
from tasks.streams import Streams
from tasks.tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class RegressionBatch(Batch):
    """Sources with their numbers."""

    source: Sequences  # (B, L); of siamese pairs (2B, L): all left sides, then all right sides
    target: Tensor  # (B,) float32, standardised


class Regression(Task):
    """Mean squared error on targets standardised by the training split; predictions are in the data's own unit.

    A source is a text, words, channels (tokenizer: null), or a pair (tuple) of texts. `pair`: `siamese` reads both
    sides with one encoder and the head reads [u, v, |u - v|, u * v] (Conneau et al. 2017, arXiv 1705.02364,
    section 3.1); `joined` reads "left SEP right" as one sequence. Sources beyond `max_length` positions (each side of a
    siamese pair; a joined pair as a whole, the longer side first) are cut and counted. `readout` as in Classification.

    Raises DataError for a target that is no finite number, for training targets that are all equal and for a mix of
    single sources and pairs. Streams of the data set go with single sources and joined pairs.
    """

    rules = frozenset({"majority", "random", "source_mean", "biases"})
    feeds_streams = True

    def __init__(
        self,
        *,
        data: DataSet,
        tokenizer: Tokenizer | None,
        max_length: Annotated[int, Field(gt=2)],
        readout: Literal["auto", "mean", "max", "first", "last"],
        pair: Literal["siamese", "joined"],
        metrics: list[Metric],
    ) -> None:
        super().__init__(data=data, metrics=metrics)
        self.tokenizer, self.max_length = tokenizer, max_length
        self.readout, self.pair = readout, pair
        self.streams = Streams(data.streams, max_length)
        self.sides: dict[str, list[sources.Sources]] = {}  # split -> what is fed: one, or the two of siamese pairs
        self.truncated: dict[str, int] = {}
        self.targets: dict[str, NDArray[np.float64]] = {}  # split -> (N,), in the data's own unit

    def outline(self) -> InputSpec:
        """Length as configured; vocabulary or channels are stand-ins."""
        return sources.outline(self.tokenizer, self.max_length, self.streams, graph=self.data.graph)

    # -- data ----------------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Vocabulary, mean and spread from the training split; ids and numbers of all three."""
        for split in SPLITS:
            self.targets[split] = _numbers(self.examples[split], split)
        self.mean, self.std = float(self.targets["train"].mean()), float(self.targets["train"].std())
        if not self.std > 0:
            place = self.examples["train"][0].place("train", 0)
            raise DataError(
                f"{place} and all other training rows: all targets are {self.mean:g}; there is nothing to learn"
            )
        self.paired = isinstance(self.examples["train"][0].source, tuple)
        if self.tokenizer is not None:
            self.tokenizer.fit([text for example in self.examples["train"] for text in sources.texts(example.source)])
        self.streams.fit(self.examples["train"])
        for split in SPLITS:
            self._encode(split)
        self.spec = sources.spec(
            self.tokenizer, self.max_length, self.sides["train"][0], self.streams, graph=self.data.graph
        )

    def _encode(self, split: str) -> None:
        rows = [sources.texts(example.source) for example in self.examples[split]]
        for row, parts in enumerate(rows):
            if len(parts) != 1 + self.paired:
                found, first = len(parts), 1 + self.paired
                raise DataError(f"{split} row {row}: {found} sources, but {first} in the first row of train")
        if self.paired and self.pair == "joined":
            if self.tokenizer is None:
                raise DataError("task.pair: joined needs texts, and task.tokenizer is null; use siamese")
            self.sides[split] = [self._read(self.examples[split], split)]
        elif not self.paired:
            self.sides[split] = [self._read(self.examples[split], split)]
        elif self.streams.declared:
            names = ", ".join(sorted(self.streams.declared))
            raise DataError(f"task.pair: siamese reads no stream ({names}); use joined")
        else:
            sides = [[Example(source=parts[side], target=None) for parts in rows] for side in (0, 1)]
            self.sides[split] = [sources.encode(side, self.tokenizer, self.max_length, split) for side in sides]
        self.truncated[split] = sum(side.truncated for side in self.sides[split])

    def _read(self, examples: Sequence[Example], split: str) -> sources.Sources:
        return sources.encode(examples, self.tokenizer, self.max_length, split, self.streams)

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Positions of each source, both sides of a pair, (N,)."""
        lengths: NDArray[np.int64] = np.sum([side.rows.lengths for side in self.sides[split]], axis=0)
        return lengths

    def accounting(self, split: str) -> Accounting:
        """Counts of positions and of sources that were cut."""
        positions = int(self.lengths(split).sum())
        number = len(self.targets[split])
        return Accounting(examples=number, positions=positions, truncated=self.truncated[split], dropped=0)

    def collate(self, split: str, rows: NDArray[np.int64]) -> RegressionBatch:
        """Sources padded (of siamese pairs the sides below each other), and standardised targets."""
        sides = self.sides[split]
        if len(sides) == 1:
            source = sides[0].sequences(rows)
        else:
            both = [side.rows[row] for side in sides for row in rows]
            source = Ragged(both, sides[0].rows.values.dtype).sequences(np.arange(len(both)))
        target = (self.targets[split][rows] - self.mean) / self.std
        return RegressionBatch(
            index=torch.from_numpy(rows), source=source, target=torch.from_numpy(target.astype(np.float32))
        )

    # -- with an encoder -----------------------------------------------------------------------------------------
    def attach(self, encoder: Encoder) -> None:
        """A linear layer over the pooled states, or over the four features of a siamese pair."""
        self.pooling = resolve(self.readout, encoder)
        self.head = linear(encoder.dim * (4 if len(self.sides["train"]) == 2 else 1), 1)

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """Mean squared error over rows, on the standardised scale; predictions are not."""
        assert isinstance(batch, RegressionBatch)
        states = encoder(batch.source)
        x = pool(states, self.pooling)
        if len(x) == 2 * len(batch.index):
            u_BD, v_BD = x.chunk(2)
            x = torch.cat([u_BD, v_BD, (u_BD - v_BD).abs(), u_BD * v_BD], dim=1)
        y_B = self.head(x).squeeze(1).float()
        loss = F.mse_loss(y_B, batch.target)
        predictions = [] if self.training else (y_B.detach().double() * self.std + self.mean).tolist()
        return Output(loss=auxiliary(loss, states), items=len(y_B), predictions=predictions)

    # -- scores --------------------------------------------------------------------------------------------------
    def trivial(self, rule: str, split: str, seed: int) -> dict[int, Any]:
        """`majority`: the training mean (of which no correlation is defined); `random`: a training target each.

        `source_mean`: the mean of training rows with the same source, else that of all. `biases`: a number for each
        source and one for each content of the streams, added to the mean (see `additive`).
        """
        rows = len(self.targets[split])
        if rule == "majority":
            return dict.fromkeys(range(rows), self.mean)
        if rule == "random":
            drawn = np.random.default_rng([seed, SPLITS.index(split)]).choice(self.targets["train"], size=rows)
            return dict(enumerate(drawn.tolist()))
        if rule in ("source_mean", "biases"):
            parts = [kinds([example.source for example in self.examples[name]]) for name in ("train", split)]
            if rule == "biases":
                beside = [kinds([dict(e.streams) for e in self.examples[name]]) for name in ("train", split)]
            else:
                beside = [[""] * len(self.examples[name]) for name in ("train", split)]
            train, other = (list(zip(parts[i], beside[i], strict=True)) for i in (0, 1))
            return dict(enumerate(additive(train, self.targets["train"], other).tolist()))
        return super().trivial(rule, split, seed)


def _numbers(examples: Sequence[Example], split: str) -> NDArray[np.float64]:
    numbers = np.empty(len(examples))
    for row, example in enumerate(examples):
        try:
            numbers[row] = float(example.target)
        except (TypeError, ValueError):
            raise DataError(
                f"{example.place(split, row)}: the target {str(example.target)[:40]!r} is no number"
            ) from None
        if not math.isfinite(numbers[row]):
            raise DataError(f"{example.place(split, row)}: the target {example.target} is not finite")
    return numbers
