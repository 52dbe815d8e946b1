"""Needle lists and reversals: what is asked is in the source, and no shortcut tells it."""

from __future__ import annotations

from collections import Counter

import pytest

from tasks.data.base import SPLITS
from tasks.data.needle_list import NeedleList
from tasks.data.reversal import Reversal

SIZES = {"train": 60, "valid": 20, "test": 400, "seed": 0}


@pytest.mark.parametrize("pairs, value", [(1, 1), (8, 3), (40, 2)])
def test_the_target_is_the_value_of_the_key_asked_for(pairs: int, value: int) -> None:
    places = Counter[int]()
    for example in NeedleList(symbols=40, pairs=pairs, value=value, **SIZES).read("test"):
        *told, mark, asked = example.source
        assert len(told) == pairs * (1 + value)
        assert mark == "?"
        keys = told[:: 1 + value]
        assert len(set(keys)) == pairs
        at = keys.index(asked)
        assert example.target == told[at * (1 + value) + 1 : (at + 1) * (1 + value)]
        places[at] += 1
    assert len(places) == pairs  # of 40 one is missed at random in 400 with probability 0.002
    assert max(places.values()) < 400 / pairs + 8 * (400 / pairs) ** 0.5


def test_a_reversal_is_the_source_backwards() -> None:
    for split in SPLITS:
        for example in Reversal(symbols=9, length=12, **SIZES).read(split):
            assert len(example.source) == 12
            assert example.target == list(reversed(example.source))


def test_splits_and_seeds_differ_and_a_split_is_always_the_same() -> None:
    for kind, own in ((NeedleList, {"symbols": 40, "pairs": 8, "value": 2}), (Reversal, {"symbols": 40, "length": 9})):
        made = {split: kind(**own, **SIZES).read(split) for split in SPLITS}
        assert [len(rows) for rows in made.values()] == [60, 20, 400]
        assert made["test"] == kind(**own, **SIZES).read("test")
        assert not {str(e.source) for e in made["train"]} & {str(e.source) for e in made["test"]}
        assert kind(**own, **{**SIZES, "seed": 1}).read("test") != made["test"]


def test_more_pairs_than_symbols_are_refused() -> None:
    with pytest.raises(ValueError, match="pairs: 9, each with a key of its own; symbols are 8"):
        NeedleList(symbols=8, pairs=9, value=1, **SIZES)
