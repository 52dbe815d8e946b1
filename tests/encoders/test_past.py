"""Keys and values with room behind them: what is appended, copied, changed in place."""
# B batch, G heads, S positions, E width of a head

from __future__ import annotations

import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils import _pytree as pytree

from encoders.base import Moves, OfSource, States
from encoders.blocks.past import ROOM, extended, join


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
    assert first.buffer_BCNE is past.buffer_BCNE
    assert second.buffer_BCNE is not past.buffer_BCNE
    assert_close(first.pair, glued(drawn(5), drawn(1, 1), drawn(1, 2)), rtol=0, atol=0)
    assert_close(second.pair, glued(drawn(5), drawn(1, 1), drawn(1, 3)), rtol=0, atol=0)
    assert past.length == 6


def moves(order: list[int], counts: list[int]) -> Moves:
    """Each row gets so many of the last positions of the one named."""
    found = [(to, of, back + 1) for to, of in enumerate(order) for back in range(counts[to])]
    to, of, back = torch.tensor(found, dtype=torch.int64).view(-1, 3).unbind(1)
    return Moves(to=to, of=of, back=back)


def test_with_gradients_nothing_is_written_over() -> None:
    past = extended(drawn(5), *drawn(1, 1))
    assert isinstance(join(past, *drawn(1, 2)), tuple)
    assert past.filled == [6]


@torch.no_grad()
def test_rows_that_are_handed_over_change_in_the_positions_that_move_alone() -> None:
    pair = glued(drawn(5), drawn(1, 1))
    for order, counts in (([1, 0, 0], [2, 3, 1]), ([0, 0, 2], [0, 6, 0]), ([0, 1, 2], [0, 0, 0])):
        past = extended(drawn(5), *drawn(1, 1))
        kept = past.buffer_BCNE
        moved = past.select(torch.tensor(order), moves=moves(order, counts))
        assert moved.buffer_BCNE is kept
        for new, old in zip(moved.pair, pair, strict=True):
            for row, (origin, count) in enumerate(zip(order, counts, strict=True)):
                assert torch.equal(new[row, :, : 6 - count], old[row, :, : 6 - count])
                assert torch.equal(new[row, :, 6 - count :], old[origin, :, 6 - count :])


@torch.no_grad()
def test_rows_of_a_past_that_was_continued_are_copies() -> None:
    past = extended(drawn(5), *drawn(1, 1))
    later = past.append(*drawn(1, 2))
    rows = torch.tensor([2, 2, 0])
    moved = past.select(rows, moves=moves([2, 2, 0], [1, 1, 1]))
    assert_close(moved.pair, tuple(part[rows] for part in past.pair), rtol=0, atol=0)
    assert_close(later.pair, glued(drawn(5), drawn(1, 1), drawn(1, 2)), rtol=0, atol=0)
    fewer = later.select(torch.tensor([1]), moves=None)
    assert_close(fewer.pair, tuple(part[1:2] for part in later.pair), rtol=0, atol=0)


@torch.no_grad()
def test_states_select_each_part_in_its_way() -> None:
    past, memory = extended(drawn(5), *drawn(1, 1)), drawn(4, 7)
    cache = {"source": OfSource(memory), "past": [past], "mask": torch.tensor([[True], [False], [True]])}
    states = States(values=torch.zeros(3, 1, 2), mask=torch.ones(3, 1, dtype=torch.bool), cache=cache)
    rows = torch.tensor([1, 1])
    fewer = states.select(rows).cache
    assert torch.equal(fewer["source"].each()[0], memory[0][rows])
    assert torch.equal(fewer["past"][0].pair[1], past.pair[1][rows])
    assert fewer["mask"].tolist() == [[False], [False]]
    before = [part.clone() for part in past.pair]
    same = states.select(torch.tensor([2, 1, 0]), moves=moves([2, 1, 0], [1, 0, 1])).cache
    assert same["source"] is cache["source"]
    assert same["mask"].tolist() == [[True], [False], [True]]
    assert torch.equal(same["past"][0].pair[0][:, :, -1], before[0][[2, 1, 0]][:, :, -1])
    assert torch.equal(same["past"][0].pair[0][:, :, :-1], before[0][:, :, :-1])


def test_what_is_of_a_source_is_kept_once_for_rows_that_follow_one_another() -> None:
    memory = drawn(4)
    beams = OfSource(memory).select(torch.tensor([0, 0, 1, 1, 2, 2]), moves=None)
    assert beams.copies == 2
    assert_close(beams.value, memory, rtol=0, atol=0)
    assert_close(beams.each(), tuple(part.repeat_interleave(2, 0) for part in memory), rtol=0, atol=0)
    for rows in ([1, 0, 4, 5], [5, 4, 0, 1, 1, 0], [0, 1, 2, 3], [0, 2, 3, 5], [0, 0, 0], [3], []):
        found = beams.select(torch.tensor(rows, dtype=torch.int64), moves=None)
        expected = tuple(part[[row // 2 for row in rows]] for part in memory)
        assert_close(found.each(), expected, rtol=0, atol=0)
    assert beams.select(torch.tensor([1, 0, 4, 5]), moves=None).copies == 2
    assert beams.select(torch.tensor([0, 2, 3, 5]), moves=None).copies == 1


def test_a_walk_through_a_cache_meets_its_tensors() -> None:
    past = extended(drawn(5), *drawn(1, 1))
    doubled = pytree.tree_map(lambda leaf: 2 * leaf, [past, OfSource(drawn(2), 3)])
    assert_close(doubled[0].pair, tuple(2 * part for part in past.pair))
    assert_close(doubled[1].value, tuple(2 * part for part in drawn(2)))
    assert doubled[1].copies == 3
