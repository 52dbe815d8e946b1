"""Translation by a lexicon: word for word but for the neighbours that change places, words by Zipf's law."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tasks.data.lexicon import Lexicon


def made(**changes: Any) -> Lexicon:
    arguments = {"types": 50, "zipf": 1.0, "swap": 3, "shortest": 5, "longest": 15, "train": 300, "valid": 20}
    return Lexicon(**{**arguments, "test": 40, "seed": 0, **changes})


def test_targets_are_translations_with_neighbours_in_places_changed() -> None:
    data = made()
    lexicon = {f"s{word}": f"t{other}" for word, other in enumerate(data.translations)}
    assert sorted(lexicon.values()) == sorted(f"t{k}" for k in range(50))
    moved = 0
    for example in data.read("train"):
        left, expected = list(example.source), []
        while left:
            word = left.pop(0)
            if left and int(word[1:]) % 3 == 0:
                expected.append(lexicon[left.pop(0)])
                moved += 1
            expected.append(lexicon[word])
        assert example.target == expected
    assert moved > 300
    assert all(e.target == [lexicon[w] for w in e.source] for e in made(swap=60).read("test") if "s0" not in e.source)


def test_words_are_by_zipfs_law_and_lengths_even() -> None:
    rows = made(train=3000).read("train")
    counts = Counter(word for e in rows for word in e.source)
    total, harmonic = sum(counts.values()), sum(1 / k for k in range(1, 51))
    for word in (0, 1, 9, 49):
        assert counts[f"s{word}"] / total == pytest.approx(1 / (word + 1) / harmonic, rel=0.15)
    lengths = Counter(len(e.source) for e in rows)
    assert set(lengths) == set(range(5, 16))
    assert max(lengths.values()) < 1.4 * min(lengths.values())


def test_smaller_sets_are_beginnings_and_splits_differ() -> None:
    few, many = made(train=100), made(train=200)
    assert many.read("train")[:100] == few.read("train")
    assert many.read("test") == few.read("test")
    assert many.read("valid") != many.read("test")[:20]
    assert made(seed=1).read("test") != few.read("test")
    assert (made(seed=1).translations != few.translations).any()
    with pytest.raises(ValueError, match="longest: 4"):
        made(longest=4)
