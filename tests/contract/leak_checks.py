"""What a task takes from which split, and from the encoder: fitted on training alone, auxiliary losses all counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders.base import Decoder, Encoder, LossPart, Sequences, States
from tasks.base import Task
from tasks.classification import Classification
from tasks.data.base import DataSet, Example
from tasks.labelling import IGNORE, Labelling
from tests.contract.task_cases import SPLITS, Few, TaskCase, TaskCheck, rows_of

TIMES = 6  # foreign examples for each of a split's own: they outweigh the training split in any count
CHARGE, OF_PART = 0.25, 64.0


def valid_and_test_are_not_fitted_on(case: TaskCase) -> None:
    """More validation and test examples, of other words, targets and scales, leave what was fitted as it was."""
    task, more = case.task, case.make(data=Further)
    assert more.spec == task.spec
    encoder = case.encoder
    more.attach(encoder)
    assert [tuple(p.shape) for p in more.parameters()] == [tuple(p.shape) for p in task.parameters()]
    for split in SPLITS:
        rows = np.arange(len(task.lengths(split)))
        if split == "train":
            assert len(more.lengths(split)) == len(rows)
        else:
            assert len(more.lengths(split)) > len(rows)
        same_tensors(_collated(task, split, rows), _collated(more, split, rows))
        for rule in sorted(task.rules):
            before, after = task.trivial(rule, split, 0), more.trivial(rule, split, 0)
            assert [_plain(before[row]) for row in rows] == [_plain(after[row]) for row in rows], rule


def auxiliary_losses_are_added(case: TaskCase) -> None:
    """Of each call of the encoder, whatever the kind of the task."""
    task, encoder = case.task, case.encoder
    batch = task.collate("train", rows_of(task, "train", 4))
    charging = Charging(encoder)
    for training in (True, False):
        try:
            task.train(training)
            with torch.no_grad():
                torch.manual_seed(0)  # of tasks that draw in training
                plain = float(task(encoder, batch).loss)
                charging.calls, charging.of_search = 0, False
                charging.training = training  # alone: what it wraps stays as it was
                torch.manual_seed(0)
                charged = float(task(charging, batch).loss)
        finally:
            task.eval()
        assert charging.calls > 0
        due = CHARGE * charging.calls + OF_PART * training
        assert charged - plain == pytest.approx(due, abs=1e-4), "an auxiliary loss is left out"


def _collated(task: Task, split: str, rows: np.ndarray) -> Any:
    """A batch, of tasks that draw by the state that a loader sets."""
    torch.manual_seed(0)
    return task.collate(split, rows)


class Part(LossPart):
    """One that has a loss of each pass."""

    def losses(self) -> dict[str, Tensor]:
        return {"part": torch.tensor(OF_PART)}


class Charging(Decoder):
    """Another encoder, each call of which has an auxiliary loss; those of a search, which no loss is of, aside.

    In training a part of a part of it has one, too.
    """

    causal = True

    def __init__(self, inner: Encoder) -> None:
        super().__init__()
        self.inner, self.dim, self.calls = inner, inner.dim, 0
        self.parts = torch.nn.ModuleDict({"inner": torch.nn.Sequential(Part())})
        self.of_search = False  # after the first decode(), which is taught, come those of a search

    def forward(self, source: Sequences) -> States:
        return self._charged(self.inner(source))

    def prefill(self, source: Sequences) -> States:
        assert isinstance(self.inner, Decoder)
        states = self.inner.prefill(source)
        return states if self.of_search else self._charged(states)

    def decode(self, target: Sequences, before: States) -> States:
        assert isinstance(self.inner, Decoder)
        states = self.inner.decode(target, before)
        if self.of_search:
            return states
        self.of_search = True
        return self._charged(states)

    def _charged(self, states: States) -> States:
        self.calls += 1
        return replace(states, losses={"x": torch.tensor(CHARGE)})

    @property
    def token_embedding(self) -> Tensor | None:
        return self.inner.token_embedding


class Further(Few):
    """A case's few examples, and behind those of valid and test many that are like none of training's."""

    def __init__(self, task: Task, data: DataSet) -> None:
        super().__init__(task, data)
        task.metrics = [metric for metric in task.metrics if not metric.whole_text]  # which refuse letters

    def read(self, split: str) -> Any:
        examples = list(super().read(split))
        if split == "train":
            return examples
        rare = _rarest([example.target for example in self._train()])
        return examples + TIMES * [_foreign(self.task, example, rare) for example in examples]


def _foreign(task: Task, example: Example, rare: Any) -> Example:
    source, target = _strange(example.source), _strange(example.target)
    if isinstance(task, Classification):
        target = rare
    if isinstance(task, Labelling):
        target = _rare_tags(example.target, rare)
    return replace(example, source=source, target=target)


def _strange(x: Any) -> Any:
    """Of the same form and length: words never seen, one item for all, numbers on another scale. Equal stays equal."""
    if isinstance(x, str):
        return " ".join(f"\u017e\u0142{word[::-1]}" for word in x.split()) or x
    if isinstance(x, list | tuple):
        return type(x)(_strange(part) for part in x)
    if isinstance(x, np.ndarray) and x.dtype.kind == "f" and np.isin(x, (0, 1)).all():
        return 1 - x  # frames of keys that are on or off
    if isinstance(x, np.ndarray):
        return (10 * x + 7).astype(x.dtype) if x.dtype.kind == "f" else np.full_like(x, x.max() if x.size else 0)
    return 10 * x + 7 if isinstance(x, float) else x


def _rare_tags(target: Any, rare: Any) -> Any:
    """Everywhere the rarest tag of training, and at the end one that it has not."""
    if isinstance(target, np.ndarray):
        tags = np.where(target == IGNORE, target, rare)
        tags[-1] = target.max() + 10**6
        return tags
    return [*([rare] * (len(target) - 1)), f"{rare}-of-nowhere" if isinstance(rare, str) else rare + 10**6]


def _rarest(targets: list[Any]) -> Any:
    """The rarest of hashable targets, or of the tags in them; None of any other."""
    counts: Counter[Any] = Counter()
    for target in targets:
        if isinstance(target, str | int | np.integer):
            counts[target] += 1
        elif isinstance(target, np.ndarray) and target.dtype.kind == "i":
            counts.update(target.ravel().tolist())
        elif isinstance(target, list):
            counts.update(target)
    del counts[None], counts[IGNORE]
    return min(counts, key=lambda tag: (counts[tag], str(tag)), default=None)


def same_tensors(a: Any, b: Any) -> None:
    """The same batch, padding beyond the longest row aside."""
    assert type(a) is type(b)
    for field in fields(a):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if is_dataclass(one):
            same_tensors(one, other)
        elif isinstance(one, Tensor):
            assert torch.equal(one, other), field.name
        elif one is None:
            assert other is None, field.name
        else:
            assert one.keys() == other.keys()
            for key in one:
                same_tensors(one[key], other[key])


def _plain(prediction: Any) -> Any:
    """A prediction that == compares."""
    return (prediction.shape, prediction.tobytes()) if isinstance(prediction, np.ndarray) else prediction


LEAK_CHECKS: list[TaskCheck] = [valid_and_test_are_not_fitted_on, auxiliary_losses_are_added]
