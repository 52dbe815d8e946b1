"""What contract checks of tasks work with: a task by its config over few rows, and tiny encoders to serve it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from encoders.base import Decoder, Encoder, InputSpec, Sequences, States
from seqbench.build import build
from seqbench.composition.compose import CONFIGS
from seqbench.composition.nodes import compose_node
from tasks.base import Batch, Output, Task
from tasks.classification import Classification
from tasks.data.base import SPLITS, DataSet, Example, FileFact
from tasks.forecasting import Forecasting
from tasks.language_modelling import LanguageModelling

SIZES = {"train": 200, "valid": 40, "test": 40}  # what a generator is asked for at most
FEW = {"train": 48, "valid": 24, "test": 24}  # examples that a task gets
TEXT = 6000  # characters of a document at most
PLAIN = {str, int, float, bool, type(None)}  # what repr writes in full


@dataclass(frozen=True)
class TaskCase:
    """One task."""

    name: str
    node: dict[str, Any]  # its config
    allowed: tuple[str, ...] = ("tasks", "encoders")  # packages that it may come from

    @cached_property
    def whole(self) -> Task:
        """As configured, without data."""
        return self._build(self.node)

    @cached_property
    def pinned(self) -> bool:
        """Whether its data come from files with an address."""
        return any(fact.url.startswith("http") for fact in self.whole.data.identity())

    def data(self) -> DataSet:
        """Its data set, new; of a generated one a small version."""
        data = self._build(self.small).data
        data.check()
        return data

    @cached_property
    def read_once(self) -> Once:
        """Its data set, each split of which is read one time."""
        return Once(self.data())

    @cached_property
    def contents(self) -> dict[str, list[str]]:
        """Of each split its examples' contents, in order."""
        return {split: [content(example) for example in self.read_once.read(split)] for split in SPLITS}

    def make(
        self,
        change: Callable[[Task, Example, Example], Example] | None = None,
        *,
        data: Callable[[Task, DataSet], DataSet] | None = None,
    ) -> Task:
        """A new task over few examples, set up; `change` makes test examples of an example and its neighbour.

        `data` takes the place of the few examples, made of the task and its whole data set.
        """
        task = self._build(self.small)
        task.data = data(task, self.read_once) if data else Few(task, self.read_once, change)
        task.setup()
        return task

    @cached_property
    def task(self) -> Task:
        """One for checks that leave it as it is."""
        return self.make()

    @cached_property
    def encoder(self) -> Encoder:
        """A tiny encoder that fits every task, in evaluation mode, the task's head made for it."""
        encoder = tiny(self.task.spec)
        self.task.attach(encoder)
        self.task.eval()
        return encoder.eval()

    def forget(self) -> None:
        """Let go of what was read and made: of all tasks that is more than a gigabyte."""
        for name in ("read_once", "contents", "task", "encoder"):
            self.__dict__.pop(name, None)

    def _build(self, node: dict[str, Any]) -> Task:
        task = build(node, "task", self.allowed)
        assert isinstance(task, Task)
        return task

    @cached_property
    def small(self) -> dict[str, Any]:
        """Its config, generators asked for few examples."""
        data = dict(self.node["data"])
        for split, size in SIZES.items():
            if type(data.get(split)) is int and not data["_target_"].endswith("PythonText"):
                data[split] = min(data[split], size)
        return {**self.node, "data": data}


class Once(DataSet):
    """Another data set, remembered."""

    def __init__(self, inner: DataSet) -> None:
        self.inner, self.modality, self.graph = inner, inner.modality, inner.graph
        self.splits: dict[str, Sequence[Example]] = {}

    def identity(self) -> list[FileFact]:
        return self.inner.identity()

    def check(self) -> None:
        self.inner.check()

    def read(self, split: str) -> Sequence[Example]:
        if split not in self.splits:
            self.splits[split] = self.inner.read(split)
        return self.splits[split]


class Few(Once):
    """The first examples of another data set, long documents cut, classes and letters those of training."""

    def __init__(
        self, task: Task, data: DataSet, change: Callable[[Task, Example, Example], Example] | None = None
    ) -> None:
        super().__init__(data)
        self.task, self.change = task, change

    def read(self, split: str) -> Sequence[Example]:
        every = self.inner.read(split)
        if isinstance(self.task, Classification):  # from all over the file, which may be sorted by class
            known = {example.target for example in self._train()}
            every = [example for example in every[:: max(1, len(every) // FEW[split])] if example.target in known]
        examples = self._train() if split == "train" else [self._cut(e, split) for e in every[: FEW[split]]]
        if self.change is None or split != "test":
            return examples
        half = len(examples) // 2
        neighbours = [*examples[half:], *examples[:half]]
        return [self.change(self.task, one, other) for one, other in zip(examples, neighbours, strict=True)]

    def _train(self) -> list[Example]:
        every = self.inner.read("train")
        step = max(1, len(every) // FEW["train"]) if isinstance(self.task, Classification) else 1
        return [self._cut(example, "train") for example in every[::step][: FEW["train"]]]

    def _cut(self, example: Example, split: str) -> Example:
        if isinstance(self.task, Forecasting):  # a series: some 40 windows of it
            rows = self.task.horizon + 40 + (self.task.window if split == "train" else 0)
            both = len(example.source) + rows
            streams = {name: values[:both] for name, values in example.streams.items()}
            return replace(example, target=example.target[:rows], streams=streams)
        if not isinstance(example.source, str):
            return example
        text = example.source[:TEXT]
        if isinstance(self.task, LanguageModelling) and split != "train":  # a text cut short has not every letter
            text = "".join(letter for letter in text if letter in self._letters)
        return replace(example, source=text)

    @cached_property
    def _letters(self) -> frozenset[str]:
        return frozenset(letter for example in self._train() for letter in example.source)


def content(example: Example) -> str:
    """A text that is equal for equal sources and, of series, equal targets."""
    series = isinstance(example.target, np.ndarray) and example.target.ndim == 2
    return "|".join(canonical(x) for x in (example.source, dict(example.streams), example.target if series else ""))


def canonical(x: Any) -> str:
    """A text that is equal for equal values."""
    if isinstance(x, np.ndarray):
        return f"{x.dtype}{x.shape}{hashlib.sha256(x.tobytes()).hexdigest()}"
    if isinstance(x, list | tuple):
        if PLAIN.issuperset(map(type, x)):  # long ones; at once, for item by item takes five times as long
            return repr(list(x))
        return f"[{','.join(canonical(item) for item in x)}]"
    if isinstance(x, dict):  # of streams, whose arrays repr would print or shorten
        return canonical(sorted(x.items()))
    return repr(x)


def tiny(spec: InputSpec, *, dim: int = 16, family: str = "decoder_only", seed: int = 0) -> Encoder:
    """A family's plain config at one layer of width `dim`, without dropout. The decoder-only one serves every task."""
    torch.manual_seed(seed)
    encoder = build(
        plain(family, dim=dim, depth=1, heads=2, hidden=2 * dim, dropout=0.0), "encoder", ("encoders",), spec=spec
    )
    assert isinstance(encoder, Encoder)
    return encoder


def plain(family: str, **changes: Any) -> dict[str, Any]:
    """The config of a family, with changes."""
    return compose_node("encoder", family, changes=changes)


class Counting(Decoder):
    """Counts the real positions that it is fed."""

    causal = True

    def __init__(self, inner: Encoder) -> None:
        super().__init__()
        self.inner, self.dim, self.seen = inner, inner.dim, 0

    def forward(self, source: Sequences) -> States:
        self.seen += int(source.mask.sum())
        return self.inner(source)

    def prefill(self, source: Sequences) -> States:
        assert isinstance(self.inner, Decoder)
        self.seen += int(source.mask.sum())
        return self.inner.prefill(source)

    def decode(self, target: Sequences, before: States) -> States:
        assert isinstance(self.inner, Decoder)
        self.seen += int(target.mask.sum())
        return self.inner.decode(target, before)

    @property
    def token_embedding(self) -> Tensor | None:
        return self.inner.token_embedding


def rows_of(task: Task, split: str, limit: int) -> np.ndarray:
    """At most `limit` rows of a split, the first and the last among them."""
    size = len(task.lengths(split))
    return np.unique(np.linspace(0, size - 1, min(limit, size)).astype(np.int64))


@torch.no_grad()
def run(task: Task, encoder: Encoder, split: str, rows: np.ndarray, size: int) -> tuple[list[Output], dict[int, Any]]:
    """Outputs of batches of `size` rows, and the predictions by row."""
    outputs, predictions = [], {}
    for start in range(0, len(rows), size):
        batch: Batch = task.collate(split, rows[start : start + size])
        output = task(encoder, batch)
        outputs.append(output)
        predictions |= dict(zip(batch.index.tolist(), output.predictions, strict=True))
    return outputs, predictions


@contextmanager
def data_at(folder: Path | None) -> Iterator[None]:
    """With real data in that folder, if any."""
    with mock.patch.dict(os.environ, {"SEQBENCH_DATA": str(folder)} if folder else {}):
        yield


TaskCheck = Callable[[TaskCase], None]
__all__ = [
    "CONFIGS",
    "SPLITS",
    "Counting",
    "Few",
    "TaskCase",
    "TaskCheck",
    "canonical",
    "content",
    "data_at",
    "plain",
    "rows_of",
    "run",
    "tiny",
]
