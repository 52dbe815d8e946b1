"""Pairs read out in an order: the target is what the source says, fillers say nothing, sources differ in length."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.data.key_values import KeyValues


def made(**changes: Any) -> KeyValues:
    sizes = {"train": 60, "valid": 20, "test": 40}
    return KeyValues(
        **{
            "pairs": 5,
            "keys": 16,
            "values": 9,
            "rounds": 3,
            "told": "values",
            "filler": 0.25,
            "seed": 0,
            **sizes,
            **changes,
        }
    )


def test_the_target_is_read_out_of_the_source() -> None:
    places = set()
    for example in made().read("test"):
        words = [word for word in example.source if not word.startswith("filler")]
        order, pairs = words[:5], dict(zip(words[5::2], words[6::2], strict=True))
        assert len(set(order)) == 5
        assert sorted(pairs) == sorted(order)
        assert all(f"{key} {value}" in " ".join(example.source) for key, value in pairs.items())
        assert example.target == [pairs[key] for key in order] * 3
        places.add(list(pairs).index(order[0]))
    assert places == set(range(5))


def test_pairs_are_told_with_their_keys() -> None:
    for values, pairs in zip(made().read("test"), made(told="pairs").read("test"), strict=True):
        assert values.source == pairs.source
        order = [word for word in pairs.source if not word.startswith("filler")][:5]
        assert pairs.target[0::2] == order * 3
        assert pairs.target[1::2] == values.target


def test_fillers_stand_anywhere_and_are_so_many() -> None:
    data = made(test=400)
    rows = data.read("test")
    fillers = [sum(word.startswith("filler") for word in e.source) for e in rows]
    assert data.longest == 25
    assert (min(fillers), max(fillers)) == (0, 10)
    assert sum(fillers) / 400 == pytest.approx(5, abs=0.5)  # a quarter of 15 + 5
    places = [i / len(e.source) for e in rows for i, word in enumerate(e.source) if word.startswith("filler")]
    assert sum(places) / len(places) == pytest.approx(5 / 12, abs=0.03)  # half of the gaps are in the last two thirds
    assert all(len(e.source) == 15 for e in made(filler=0.0).read("test"))


def test_splits_and_seeds_differ() -> None:
    sources = [{tuple(e.source) for e in made(seed=seed).read(split)} for seed in (0, 1) for split in ("train", "test")]
    assert len(set.union(*sources)) == 200
    assert made().read("train") == made().read("train")
    with pytest.raises(ValueError, match=r"pairs: 17, .* at most 16"):
        made(pairs=17)
