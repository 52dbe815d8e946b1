"""Polyphony: losses by formula, rows by hand, trivial rows, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from encoders.base import Encoder, InputSpec, Sequences, States
from tasks.data.base import DataError, DataSet, Example, FileFact
from tasks.metrics.frames import FrameNLL
from tasks.polyphony import Polyphony


class Toy(DataSet):
    modality = "music"

    def __init__(self, train: list[np.ndarray]) -> None:
        self.train = train

    def identity(self) -> list[FileFact]:
        return []

    def check(self) -> None: ...

    def read(self, split: str) -> Sequence[Example]:
        return [Example(source=piece, target=None) for piece in self.train]


class Identity(Encoder):
    """Gives back what it reads."""

    causal = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, source: Sequences) -> States:
        return States(values=source.values, mask=source.mask)


def pieces() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(rng.random((n, 3)) < 0.4).astype(np.float32) for n in (5, 2, 9)]


def made(data: list[np.ndarray], max_length: int = 20) -> Polyphony:
    task = Polyphony(data=Toy(data), max_length=max_length, metrics=[FrameNLL()])
    task.setup()
    return task


def test_loss_and_predictions_are_the_sums_of_each_keys_nats() -> None:
    task, data = made(pieces()), pieces()
    encoder = Identity(3)
    task.attach(encoder)
    torch.nn.init.normal_(task.head.weight)
    task.eval()
    output = task(encoder, task.collate("test", np.arange(3)))
    expected = []
    for piece in data:
        p = torch.sigmoid(F.linear(torch.from_numpy(piece[:-1]), task.head.weight, task.head.bias)).detach().double()
        y = torch.from_numpy(piece[1:]).double()
        expected.append((float(-(y * p.log() + (1 - y) * (1 - p).log()).sum()), len(piece) - 1))
    for (nats, frames), (want, number) in zip(output.predictions, expected, strict=True):
        assert nats == pytest.approx(want, rel=1e-5)
        assert frames == number
    assert output.items == 4 + 1 + 8
    assert float(output.loss.detach()) == pytest.approx(sum(nats for nats, _ in expected) / 13, rel=1e-5)
    score = task.score("test", dict(enumerate(output.predictions)))["nll"].value
    assert score == pytest.approx(float(output.loss.detach()), rel=1e-6)


def test_the_source_never_holds_the_frame_that_is_asked_for_last() -> None:
    task = made(pieces())
    batch = task.collate("train", np.array([0, 2]))
    for row, piece in enumerate((pieces()[0], pieces()[2])):
        n = len(piece) - 1
        np.testing.assert_array_equal(batch.source.values[row, :n], piece[:-1])
        np.testing.assert_array_equal(batch.target[row, :n], piece[1:])
        assert not batch.source.values[row, n:].any()
        assert batch.source.mask[row].tolist() == [True] * n + [False] * (8 - n)


def test_trivial_rows_by_formula() -> None:
    task, data = made(pieces()), pieces()
    rows = {rule: task.trivial(rule, "test", 0) for rule in ("random", "majority", "repeat_last")}
    assert rows["random"][0] == (pytest.approx(4 * 3 * math.log(2)), 4)
    every = np.concatenate(data)
    p = (every.sum(0) + 1) / (len(every) + 2)
    want = -sum((row * np.log(p) + (1 - row) * np.log(1 - p)).sum() for row in data[2][1:])
    assert rows["majority"][2] == (pytest.approx(want), 8)
    counts = np.ones((2, 2))
    for piece in data:
        for a, b in zip(piece[:-1].ravel(), piece[1:].ravel(), strict=True):
            counts[int(a), int(b)] += 1
    p = counts / counts.sum(1, keepdims=True)
    want = -sum(math.log(p[int(a), int(b)]) for a, b in zip(data[1][0], data[1][1], strict=True))
    assert rows["repeat_last"][1] == (pytest.approx(want), 1)


def test_long_pieces_are_cut_and_counted() -> None:
    task = made(pieces(), max_length=4)
    assert task.lengths("test").tolist() == [4, 1, 4]
    assert task.accounting("test").truncated == 1


@pytest.mark.parametrize(
    "piece, message",
    [
        (np.ones((1, 3), np.float32), "2 or more"),
        (np.ones((4, 2), np.float32), "needs"),
        (np.full((4, 3), 0.5, np.float32), "0 and 1"),
    ],
)
def test_pieces_that_are_none(piece: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        made([*pieces(), piece])


def test_outline_has_the_keys_of_a_piano() -> None:
    assert made(pieces()).outline() == InputSpec(max_length=20, channels=88)
