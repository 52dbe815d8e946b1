"""Fact lookup: the answer is the fact's, the others are of the same context, more of them are fewer and others."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.data.fact_lookup import FactLookup


def facts(**changes: Any) -> FactLookup:
    arguments = {"names": 20, "colours": 10, "numbers": 50, "facts": 6, "candidates": 10, "test_candidates": None}
    return FactLookup(**{**arguments, "train": 60, "valid": 20, "test": 40, "seed": 0, **changes})


def told(context: str) -> tuple[dict[str, str], str]:
    """What is said of each name, and the name asked for."""
    *words, ask, asked = context.split()
    assert ask == "ask"
    return {words[i]: f"{words[i + 1]} {words[i + 2]}" for i in range(0, len(words), 3)}, asked


def test_the_answer_is_of_the_name_and_the_others_of_its_context() -> None:
    asked_for = set()
    for example in facts().read("test"):
        (context,), candidates = example.source
        said, asked = told(context)
        colours, numbers = ({pair.split()[i] for pair in said.values()} for i in (0, 1))
        assert len(said) == len(colours) == len(numbers) == 6
        assert example.target == candidates[0] == said[asked]
        assert len(set(candidates)) == 10
        assert all(c.split()[0] in colours and c.split()[1] in numbers for c in candidates)
        asked_for.add(list(said).index(asked))
    assert asked_for == set(range(6))


def test_some_of_the_others_are_facts_of_other_names() -> None:
    """So the pair alone does not tell, either: 5 of 35 are true of another."""
    rows = [(told(e.source[0][0])[0].values(), e.source[1][1:]) for e in facts(test=400).read("test")]
    share = sum(pair in said for said, pairs in rows for pair in pairs) / (400 * 9)
    assert share == pytest.approx(5 / 35, abs=0.03)


def test_more_candidates_are_those_of_fewer_and_others() -> None:
    few, many, most = (facts(test_candidates=n).read("test") for n in (5, 36, 60))
    for one, two, three in zip(few, many, most, strict=True):
        assert one.source[0] == two.source[0] == three.source[0]
        assert two.source[1][:5] == one.source[1]
        assert three.source[1][:36] == two.source[1]
        assert [len(set(e.source[1])) for e in (one, two, three)] == [5, 36, 60]
    for split in ("train", "valid"):
        assert facts(test_candidates=60).read(split) == facts().read(split)


def test_splits_and_seeds_differ() -> None:
    contexts = [
        {e.source[0][0] for e in facts(seed=seed).read(split)} for seed in (0, 1) for split in ("train", "test")
    ]
    assert [len(one) for one in contexts] == [60, 40, 60, 40]
    assert len(set.union(*contexts)) == 200
    assert facts().read("train") == facts().read("train")


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match=r"facts: 11, .* at most 10"):
        facts(facts=11)
    with pytest.raises(ValueError, match="candidates: 501; colours and numbers make 500"):
        facts(test_candidates=501)
