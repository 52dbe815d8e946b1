"""E2E NLG: counts of its card, first rows, sources in one split alone, what the reader refuses."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tasks.data.base import SPLITS, DataError
from tasks.data.e2e_nlg import E2ENLGSmall, _pairs
from tasks.data.pinned import card


@pytest.mark.data
def test_read(data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))
    data = E2ENLGSmall(descriptions=None)
    data.check()
    examples = {split: data.read(split) for split in SPLITS}
    assert {split: len(rows) for split, rows in examples.items()} == card("e2e_nlg").splits
    assert data.identity() == list(card("e2e_nlg").files)
    first = examples["train"][0]
    assert first.source == "name[Alimentum], area[city centre], familyFriendly[no]"
    assert first.target == "There is a place in the city centre, Alimentum, that is not family-friendly."
    two = {split: E2ENLGSmall(descriptions=2).read(split) for split in SPLITS}
    assert two["train"] == examples["train"]
    counts = Counter(example.source for example in examples["test"])
    assert Counter(example.source for example in two["test"]) == {source: min(n, 2) for source, n in counts.items()}
    assert two["test"][:2] == examples["test"][:2]
    sources = {split: {example.source for example in rows} for split, rows in examples.items()}
    assert {split: len(found) for split, found in sources.items()} == {"train": 492, "valid": 55, "test": 630}
    assert not sources["train"] & sources["valid"]
    assert not (sources["train"] | sources["valid"]) & sources["test"]


@pytest.mark.parametrize(
    "text, message",
    [("mr;ref\na;b\n", "line 1: the columns should be mr, ref"), ('mr,ref\n"a, b",c\na,b,c\n', "line 3: 3 columns")],
)
def test_what_is_no_pair(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "devset.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        _pairs(file)
