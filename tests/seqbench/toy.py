"""A task and an encoder so small that a whole run takes a tenth of a second: what the harness is tested with."""
# B batch, L positions, D width, N examples

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Encoder, InputSpec, Sequences, States
from tasks.base import Accounting, Batch, Output, Task
from tasks.data.base import DataSet, Example, FileFact
from tasks.metrics.base import Mean, Metric

VOCABULARY = 8


class Hits(Mean):
    """Share of rows that are right."""

    name = "hits"
    best = "max"

    def statistics(self, predictions: Any, references: Any) -> dict[str, NDArray[np.float64]]:
        """1.0 where prediction and reference agree."""
        return {"value": np.array([p == r for p, r in zip(predictions, references, strict=True)], dtype=np.float64)}


class Misses(Hits):
    """Share of rows that are wrong: a metric whose best is the smallest, with two statistics."""

    name = "misses"
    best = "min"

    def statistics(self, predictions: Any, references: Any) -> dict[str, NDArray[np.float64]]:
        """1.0 where prediction and reference differ, and a column of ones."""
        wrong = 1 - super().statistics(predictions, references)["value"]
        return {"value": wrong, "count": np.ones(len(wrong))}


class ToyData(DataSet):
    """Rows of random ids; the label says whether id 1 is among them. Generated: no file."""

    modality = "synthetic"

    def __init__(self, *, rows: Annotated[int, Field(gt=0)], seed: int) -> None:
        self.rows, self.seed = rows, seed

    def identity(self) -> list[FileFact]:
        """Nothing besides the arguments."""
        return []

    def check(self) -> None:
        """Nothing to be missing."""

    def read(self, split: str) -> list[Example]:
        """The rows of a split; a third as many outside training."""
        generator = np.random.default_rng([self.seed, ("train", "valid", "test").index(split)])
        examples = []
        for i in range(self.rows if split == "train" else max(2, self.rows // 3)):
            ids = generator.integers(2, VOCABULARY, size=int(generator.integers(2, 9)))
            if i % 2:
                ids[generator.integers(len(ids))] = 1
            examples.append(Example(source=ids, target="yes" if i % 2 else "no"))
        return examples


class DrawingData(ToyData):
    """The same rows; reading them draws random numbers on the way."""

    def read(self, split: str) -> list[Example]:
        """As ToyData."""
        torch.rand(self.rows)
        return super().read(split)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToyBatch(Batch):
    """Ids and labels."""

    source: Sequences
    label: Tensor  # (B,) int64


class ToyTask(Task):
    """Yes or no of a row of ids."""

    rules = frozenset({"majority"})

    def __init__(self, *, data: DataSet, metrics: list[Metric], max_length: Annotated[int, Field(gt=1)]) -> None:
        super().__init__(data=data, metrics=metrics)
        self.max_length = max_length

    def outline(self) -> InputSpec:
        """Known without data."""
        return InputSpec(max_length=self.max_length, vocab_size=VOCABULARY)

    def prepare(self) -> None:
        """Nothing to fit."""
        self.spec = self.outline()

    def attach(self, encoder: Encoder) -> None:
        """Two logits."""
        self.head = nn.Linear(encoder.dim, 2)

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Positions of each row."""
        return np.array([len(self._ids(split, row)) for row in range(len(self.examples[split]))], dtype=np.int64)

    def _ids(self, split: str, row: int) -> NDArray[np.int64]:
        ids: NDArray[np.int64] = self.examples[split][row].source[: self.max_length]
        return ids

    def collate(self, split: str, rows: NDArray[np.int64]) -> ToyBatch:
        """Right-padded."""
        ids = [torch.from_numpy(self._ids(split, int(row))) for row in rows]
        values = nn.utils.rnn.pad_sequence(ids, batch_first=True)
        mask = torch.arange(values.shape[1]) < torch.tensor([len(i) for i in ids]).unsqueeze(1)
        label = torch.tensor([int(self.examples[split][int(row)].target == "yes") for row in rows])
        return ToyBatch(index=torch.from_numpy(rows), source=Sequences(values=values, mask=mask), label=label)

    def accounting(self, split: str) -> Accounting:
        """Counts; rows beyond max_length are cut."""
        full = [len(example.source) for example in self.examples[split]]
        return Accounting(
            examples=len(full),
            positions=int(self.lengths(split).sum()),
            truncated=sum(n > self.max_length for n in full),
            dropped=0,
        )

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """Mean over the real states, two logits, cross-entropy."""
        assert isinstance(batch, ToyBatch)
        states = encoder(batch.source)
        weight_BL1 = states.mask.unsqueeze(-1)
        logits_BK = self.head((states.values * weight_BL1).sum(1) / weight_BL1.sum(1))
        loss = F.cross_entropy(logits_BK, batch.label) + sum(states.losses.values())
        predictions = [] if self.training else [("no", "yes")[int(k)] for k in logits_BK.argmax(1)]
        return Output(loss=loss, items=len(batch.label), predictions=predictions)

    def trivial(self, rule: str, split: str, seed: int) -> dict[int, Any]:
        """The more frequent label."""
        targets = [example.target for example in self.examples["train"]]
        common = max(sorted(set(targets)), key=targets.count)
        return dict.fromkeys(range(len(self.examples[split])), common)


class ToyEncoder(Encoder):
    """A table, dropout, one linear map."""

    family = "toy"

    def __init__(
        self, *, dim: Annotated[int, Field(gt=0)], dropout: Annotated[float, Field(ge=0, lt=1)], spec: InputSpec
    ) -> None:
        super().__init__()
        assert spec.vocab_size is not None
        self.dim, self.causal = dim, True
        self.table = nn.Embedding(spec.vocab_size, dim)
        self.dropout = nn.Dropout(dropout)
        self.map = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, source: Sequences) -> States:
        """Each position by itself."""
        return States(values=self.norm(self.map(self.dropout(self.table(source.values)))), mask=source.mask)


class LargerEncoder(ToyEncoder):
    """As ToyEncoder, with parameters that do nothing but draw when they are made."""

    def __init__(self, *, dim: int, dropout: float, spec: InputSpec) -> None:
        super().__init__(dim=dim, dropout=dropout, spec=spec)
        self.idle = nn.Linear(dim, dim)


class BrokenEncoder(ToyEncoder):
    """Goes wrong in its `at`-th forward pass in training: a NaN, memory that runs out, an error, a kill.

    Or from then on: slow, a loss that explodes; or in every `at`-th: a loss with spikes.
    """

    def __init__(
        self,
        *,
        dim: int,
        dropout: float,
        how: Literal[
            "nan", "oom", "error", "kill", "interrupt", "weights", "explode", "spikes", "sleep", "memory", "exit"
        ],
        at: int,
        spec: InputSpec,
    ) -> None:
        super().__init__(dim=dim, dropout=dropout, spec=spec)
        self.how, self.at, self.passes = how, at, 0

    def forward(self, source: Sequences) -> States:
        """As ToyEncoder until then. Where the variable SEQBENCH_TOY_HEALTHY is set, it stays well."""
        states = super().forward(source)
        if not self.training or "SEQBENCH_TOY_HEALTHY" in os.environ:
            return states
        self.passes += 1
        if self.how == "sleep" and self.passes >= self.at:
            time.sleep(0.1)
        if (self.how == "explode" and self.passes >= self.at) or (self.how == "spikes" and self.passes % self.at == 0):
            states.losses["far"] = states.values.sum() * 0 + 1e4
        elif self.how not in ("sleep", "explode", "spikes") and self.passes == self.at:
            if self.how == "weights":
                with torch.no_grad():
                    self.norm.bias.register_hook(lambda gradient: gradient * float("nan"))
                return states
            if self.how == "memory":
                torch.empty(2**60)
            if self.how == "exit":
                os._exit(3)
            if self.how == "nan":
                return States(values=states.values * float("nan"), mask=states.mask)
            if self.how == "oom":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            if self.how == "error":
                raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
            os.kill(os.getpid(), signal.SIGKILL if self.how == "kill" else signal.SIGINT)
        return states
