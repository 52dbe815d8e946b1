"""Keys and values with room behind them: what is appended, copied, changed in place."""
# B batch, G heads, S positions, E width of a head

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils import _pytree as pytree

from encoders.base import OfSource, States
from encoders.blocks.past import ROOM, Past, extended, join


def drawn(positions: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(3, 2, positions, 4, generator=generator) for _ in range(2))
    return first, second


def glued(*pairs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return torch.cat([k for k, _ in pairs], 2), torch.cat([v for _, v in pairs], 2)


@torch.no_grad()
def test_steps_are_what_concatenation_gives() -> None:
    parts = [drawn(5), *(drawn(1, seed) for seed in range(1, ROOM + 8)), drawn(3, 99)]
    past = extended(parts[0], *parts[1])
    for part in parts[2:]:
        past = past.append(*part)
    assert_close(past.pair, glued(*parts), rtol=0, atol=0)


@torch.no_grad()
def test_a_step_writes_into_the_room_and_a_second_one_does_not() -> None:
    past = extended(drawn(5), *drawn(1, 1))
    first = past.append(*drawn(1, 2))
    second = past.append(*drawn(1, 3))
    assert first.keys_BGCE is past.keys_BGCE
    assert second.keys_BGCE is not past.keys_BGCE
    assert_close(first.pair, glued(drawn(5), drawn(1, 1), drawn(1, 2)), rtol=0, atol=0)
    assert_close(second.pair, glued(drawn(5), drawn(1, 1), drawn(1, 3)), rtol=0, atol=0)
    assert past.length == 6


def test_with_gradients_nothing_is_written_over() -> None:
    past = extended(drawn(5), *drawn(1, 1))
    assert isinstance(join(past, *drawn(1, 2)), tuple)
    assert past.filled == [6]


@torch.no_grad()
def test_rows_that_are_handed_over_change_in_the_last_positions_alone() -> None:
    pair = drawn(6)
    for order, recent in itertools.product(([1, 0, 0], [0, 0, 2], [0, 1, 2]), (0, 2)):  # all move, one, none
        rows = torch.tensor(order)
        past = Past(pair[0].clone(), pair[1].clone(), 6, [6])
        moved = past.select(rows, recent=recent)
        assert moved is past
        for new, old in zip(moved.pair, pair, strict=True):
            assert torch.equal(new[:, :, : 6 - recent], old[:, :, : 6 - recent])
            assert torch.equal(new[:, :, 6 - recent :], old[rows][:, :, 6 - recent :])


@torch.no_grad()
def test_rows_of_a_past_that_was_continued_are_copies() -> None:
    past = extended(drawn(5), *drawn(1, 1))
    later = past.append(*drawn(1, 2))
    rows = torch.tensor([2, 2, 0])
    moved = past.select(rows, recent=1)
    assert_close(moved.pair, tuple(part[rows] for part in past.pair), rtol=0, atol=0)
    assert_close(later.pair, glued(drawn(5), drawn(1, 1), drawn(1, 2)), rtol=0, atol=0)
    fewer = later.select(torch.tensor([1]), recent=None)
    assert_close(fewer.pair, tuple(part[1:2] for part in later.pair), rtol=0, atol=0)


@torch.no_grad()
def test_states_select_each_part_in_its_way() -> None:
    past, memory = extended(drawn(5), *drawn(1, 1)), drawn(4, 7)
    cache = {"source": OfSource(memory), "past": [past], "mask": torch.tensor([[True], [False], [True]])}
    states = States(values=torch.zeros(3, 1, 2), mask=torch.ones(3, 1, dtype=torch.bool), cache=cache)
    rows = torch.tensor([1, 1])
    fewer = states.select(rows).cache
    assert torch.equal(fewer["source"].value[0], memory[0][rows])
    assert torch.equal(fewer["past"][0].pair[1], past.pair[1][rows])
    assert fewer["mask"].tolist() == [[False], [False]]
    before = [part.clone() for part in past.pair]
    same = states.select(torch.tensor([2, 1, 0]), recent=1).cache
    assert same["source"] is cache["source"]
    assert same["mask"].tolist() == [[True], [False], [True]]
    assert torch.equal(same["past"][0].pair[0][:, :, -1], before[0][[2, 1, 0]][:, :, -1])
    assert torch.equal(same["past"][0].pair[0][:, :, :-1], before[0][:, :, :-1])


def test_a_walk_through_a_cache_meets_its_tensors() -> None:
    past = extended(drawn(5), *drawn(1, 1))
    doubled = pytree.tree_map(lambda leaf: 2 * leaf, [past, OfSource(drawn(2))])
    assert_close(doubled[0].pair, tuple(2 * part for part in past.pair))
    assert_close(doubled[1].value, tuple(2 * part for part in drawn(2)))
