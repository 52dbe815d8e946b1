"""MQAR: the construction of Zoology, part by part; solvable from what precedes a query, and by nothing else."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from tasks.data.draws import Draws
from tasks.data.mqar import IGNORE, MQAR


def make(**changes: Any) -> MQAR:
    part = {"length": 32, "pairs": 4, "examples": 400}
    given: dict[str, Any] = {
        "vocab_size": 64,
        "power_a": 0.01,
        "train": [part],
        "valid": [part],
        "test": [part, {"length": 64, "pairs": 8, "examples": 100}],
        "seed": 0,
    }
    return MQAR(**(given | changes))


def test_pairs_then_every_key_once_more_with_its_value_as_target() -> None:
    for example in make().read("test"):
        length = len(example.source)
        pairs = 4 if length == 32 else 8
        keys, values = example.source[0 : 2 * pairs : 2], example.source[1 : 2 * pairs : 2]
        assert len(set(keys.tolist())) == len(set(values.tolist())) == pairs
        assert ((keys >= 1) & (keys < 32)).all()
        assert ((values >= 32) & (values < 64)).all()
        asked = np.flatnonzero(example.target != IGNORE)
        assert len(asked) == pairs
        assert (asked >= 2 * pairs).all()
        assert (asked % 2 == 0).all()
        assert sorted(example.source[asked].tolist()) == sorted(keys.tolist())
        answer = dict(zip(keys.tolist(), values.tolist(), strict=True))
        assert [answer[k] for k in example.source[asked].tolist()] == example.target[asked].tolist()


def answers(source: list[int], place: int) -> set[int]:
    """What an independent reader may answer at a place: each token that stood after an earlier one like it."""
    return {source[i + 1] for i in range(place) if source[i] == source[place]}


def test_every_question_has_one_answer() -> None:
    parts = [{"length": 64, "pairs": 8, "examples": 300}, {"length": 128, "pairs": 8, "examples": 300}]
    for vocab_size in (18, 64):  # of the smaller, 8 of 8 keys are taken
        for example in make(vocab_size=vocab_size, train=parts, test=parts).read("test"):
            source = example.source.tolist()
            for place in np.flatnonzero(example.target != IGNORE).tolist():
                assert answers(source, place) == {example.target[place]}


def test_filling_is_any_token_but_the_keys_each_as_often() -> None:
    part = {"length": 32, "pairs": 2, "examples": 4000}
    rows = make(vocab_size=12, train=[part], valid=[part], test=[part]).read("train")
    times, chances = np.zeros(12), np.zeros(12)
    for example in rows:
        filling = np.delete(example.source, [0, 1, 2, 3, *np.flatnonzero(example.target != IGNORE)])
        times += np.bincount(filling, minlength=12)
        may = np.ones(12)
        may[example.source[[0, 2]]] = 0
        chances += may * len(filling) / may.sum()
    assert times / chances == pytest.approx(np.ones(12), abs=0.04)


def test_the_answer_does_not_stand_after_the_query() -> None:
    """The next token is random filling: the answer is there one time in V - P, as any token but the keys is."""
    hits, queries = 0, 0
    for example in make(train=[{"length": 32, "pairs": 4, "examples": 5000}]).read("train"):
        asked = np.flatnonzero(example.target != IGNORE)
        asked = asked[asked < 31]
        hits += int((example.source[asked + 1] == example.target[asked]).sum())
        queries += len(asked)
    assert hits / queries == pytest.approx(1 / 60, abs=0.004)


def test_distances_follow_the_power_law() -> None:
    """First query drawn: p(d) = d^(a - 1) / sum, d in steps of two; of all queries those near are more."""
    space = (32 - 8) // 2
    examples = make(train=[{"length": 32, "pairs": 1, "examples": 20_000}]).read("train")
    space = (32 - 2) // 2
    distance = [int(np.flatnonzero(e.target != IGNORE)[0] - 2) // 2 for e in examples]
    p = np.arange(1, space + 1) ** (0.01 - 1.0)
    assert np.bincount(distance, minlength=space) / 20_000 == pytest.approx(p / p.sum(), abs=0.012)
    uniform = make(power_a=1.0, train=[{"length": 32, "pairs": 1, "examples": 20_000}]).read("train")
    distance = [int(np.flatnonzero(e.target != IGNORE)[0] - 2) // 2 for e in uniform]
    assert np.bincount(distance, minlength=space) / 20_000 == pytest.approx(np.full(space, 1 / space), abs=0.012)


def test_the_stream_is_fixed_and_splits_differ() -> None:
    first, second = make(), make()
    digest = hashlib.sha256()
    for split in ("train", "valid", "test"):
        for a, b in zip(first.read(split), second.read(split), strict=True):
            assert np.array_equal(a.source, b.source)
            assert np.array_equal(a.target, b.target)
            digest.update(a.source.tobytes() + a.target.tobytes())
    assert digest.hexdigest()[:16] == "c6dec98f97bff5fd"
    train = {e.source.tobytes() for e in first.read("train")}
    assert not train & {e.source.tobytes() for e in first.read("valid")}
    assert not train & {e.source.tobytes() for e in make(seed=1).read("train")}


@pytest.mark.parametrize(
    "part, message",
    [
        ({"length": 32, "pairs": 4}, "keys length, pairs, examples"),
        ({"length": 31, "pairs": 4, "examples": 1}, "even"),
        ({"length": 14, "pairs": 4, "examples": 1}, "at least 4 "),
        ({"length": 32, "pairs": 0, "examples": 1}, "numbers >= 1"),
        ({"length": 320, "pairs": 32, "examples": 1}, "vocab_size of at least 66"),
    ],
)
def test_parts_that_cannot_be(part: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(test=[part])


def test_draws_without_replacement_are_those_of_successive_draws() -> None:
    """choose(w): p(first = i, second = j) = p_i p_j / (1 - p_i)."""
    weights = np.array([0.5, 0.3, 0.15, 0.05])
    drawn = Draws(3).choose(weights, 200_000, 2)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    for i in range(4):
        for j in set(range(4)) - {i}:
            share = ((drawn == [i, j]).all(1)).mean()
            assert share == pytest.approx(weights[i] * weights[j] / (1 - weights[i]), abs=0.004)


def test_draws_are_uniform_and_fixed() -> None:
    values = Draws(1, 2).uniform(10_000)
    assert (values >= 0).all()
    assert (values < 1).all()
    assert np.histogram(values, 10)[0] / 1000 == pytest.approx(np.ones(10), abs=0.12)
    assert sorted(Draws(7).permutation(50).tolist()) == list(range(50))
    assert Draws(1).integers(10, 5).tolist() == [5, 9, 1, 9, 3]
    assert Draws(1, 2).integers(10, 3).tolist() != Draws(2, 1).integers(10, 3).tolist()
