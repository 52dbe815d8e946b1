"""Batches: every row once, budgets held, order by seed and epoch, position saved and set; rows padded."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.loading import Batching, Loader, plan_batches
from tasks.padding import Ragged, pad

LENGTHS = np.random.default_rng(0).integers(1, 60, size=500)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("batching", [Batching(rows=7), Batching(tokens=128), Batching(tokens=40)])
def test_every_row_once_and_budgets_held(batching: Batching, shuffle: bool) -> None:
    batches = plan_batches(LENGTHS, batching, seed=0, epoch=0, shuffle=shuffle)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    for rows in batches:
        if batching.rows:
            assert len(rows) <= 7
        else:
            assert batching.tokens
            assert LENGTHS[rows].max() * len(rows) <= batching.tokens or len(rows) == 1


def test_a_bucketed_batch_has_little_padding() -> None:
    batches = plan_batches(LENGTHS, Batching(tokens=512), seed=0, epoch=0, shuffle=True)
    padded = sum(LENGTHS[rows].max() * len(rows) for rows in batches)
    assert LENGTHS.sum() / padded > 0.9


def test_the_longest_batch_comes_first_in_evaluation() -> None:
    batches = plan_batches(LENGTHS, Batching(tokens=512), seed=0, epoch=0, shuffle=False)
    assert [int(LENGTHS[rows].max()) for rows in batches] == sorted(
        (LENGTHS[rows].max() for rows in batches), reverse=True
    )


def test_exactly_one_way_to_cut() -> None:
    for given in ({}, {"rows": 3, "tokens": 3}, {"rows": 0}):
        with pytest.raises(ValueError, match=r"batch"):
            Batching(**given)


def loader(workers: int = 0) -> Loader:
    return Loader(
        lengths=LENGTHS, collate=torch.from_numpy, batching=Batching(rows=50), seed=1, shuffle=True, workers=workers
    )


def test_epochs_differ_and_a_cut_epoch_goes_on() -> None:
    straight = loader()
    epochs = [[batch.tolist() for batch in straight] for _ in range(2)]
    assert epochs[0] != epochs[1]
    for cut in (1, 9, 10, 13):
        first, second = loader(), loader()
        seen = []
        while len(seen) < cut:
            for batch in first:
                seen.append(batch.tolist())
                if len(seen) == cut:
                    break
        second.load_state_dict(first.state_dict())
        rest = [batch.tolist() for batch in second]
        expected = [*epochs[0], *epochs[1]][cut:]
        assert rest == expected[: len(rest)]


class Drawing:
    """A collate that draws from all generators."""

    def __call__(self, rows: NDArray[np.int64]) -> Tensor:
        drawn = [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002
        return torch.tensor([*drawn, *rows.tolist()], dtype=torch.float64)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_collate_that_draws_gives_the_same_whoever_makes_the_batches_and_resumed(workers: int) -> None:
    def drawing(workers: int) -> Loader:
        return Loader(
            lengths=LENGTHS, collate=Drawing(), batching=Batching(rows=50), seed=1, shuffle=True, workers=workers
        )

    first = drawing(0)
    expected = [batch.tolist() for _ in range(2) for batch in first]
    assert len({tuple(batch[:3]) for batch in expected}) == len(expected) == 20  # each draws numbers of its own
    torch.rand(3)  # what the process has drawn does not matter
    np.random.rand(3)  # noqa: NPY002
    again = drawing(workers)
    assert [batch.tolist() for _ in range(2) for batch in again] == expected
    for epoch, position in ((0, 7), (1, 3)):
        resumed = drawing(workers)
        resumed.load_state_dict({"epoch": epoch, "position": position})
        assert [batch.tolist() for batch in resumed] == expected[10 * epoch + position : 10 * (epoch + 1)]


def test_workers_give_the_same_batches() -> None:
    assert [b.tolist() for b in loader()] == [b.tolist() for b in loader(workers=2)]


def test_ragged_rows_are_padded_on_the_right() -> None:
    rows = [np.arange(1, n + 1) for n in (3, 0, 5)]
    ragged = Ragged(rows, np.int64)
    values, mask = ragged.pad(np.array([2, 0, 1]), fill=-7)
    assert values.tolist() == [[1, 2, 3, 4, 5], [1, 2, 3, -7, -7], [-7] * 5]
    assert mask.sum(1).tolist() == [5, 3, 0]
    assert ragged[2].tolist() == [1, 2, 3, 4, 5]
    assert ragged.pad(np.array([1]))[0].shape == (1, 1)
    channels = pad([np.ones((2, 3)), np.ones((4, 3))], dtype=np.float32)
    assert channels.values.shape == (2, 4, 3)
    assert channels.values.dtype == torch.float32
    assert channels.values.sum() == 18
    assert channels.mask.sum(1).tolist() == [2, 4]
