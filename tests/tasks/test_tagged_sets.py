"""CoNLL-2000, WNUT-17, WikiText-2: counts of their cards, first rows, and what the reader of tags refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.data.base import SPLITS, DataError, DataSet
from tasks.data.conll2000 import CoNLL2000
from tasks.data.pinned import card
from tasks.data.tagged import sentences
from tasks.data.wikitext2 import WikiText2Small
from tasks.data.wnut17 import WNUT17


@pytest.fixture
def _cache(data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))


@pytest.mark.data
@pytest.mark.usefixtures("_cache")
class TestRead:
    @pytest.mark.parametrize(
        "name, data, tokens",
        [
            ("conll2000", CoNLL2000(), (190717, 21010, 47377)),
            ("wnut17", WNUT17(), (62730, 15733, 23394)),
        ],
    )
    def test_tagged(self, name: str, data: DataSet, tokens: tuple[int, int, int]) -> None:
        data.check()
        examples = {split: data.read(split) for split in SPLITS}
        assert {split: len(rows) for split, rows in examples.items()} == card(name).splits
        assert tuple(sum(len(e.source) for e in examples[split]) for split in SPLITS) == tokens
        assert all(len(e.source) == len(e.target) for rows in examples.values() for e in rows)
        assert {tag[:2] for rows in examples.values() for e in rows for tag in e.target} == {"O", "B-", "I-"}
        assert data.identity() == list(card(name).files)

    def test_conll2000(self) -> None:
        first = CoNLL2000().read("train")[0]
        assert list(zip(first.source, first.target, strict=True))[:3] == [
            ("Confidence", "B-NP"),
            ("in", "B-PP"),
            ("the", "B-NP"),
        ]
        train = {tuple(e.source) for e in CoNLL2000().read("train")}
        shared = [len({tuple(e.source) for e in CoNLL2000().read(split)} & train) for split in ("test", "valid")]
        assert CoNLL2000.overlap.startswith(f"{shared[0]} different sentences of test and {shared[1]} of valid")

    def test_wikitext2(self) -> None:
        examples = {split: WikiText2Small().read(split) for split in SPLITS}
        assert {split: len(rows) for split, rows in examples.items()} == card("wikitext2").splits
        assert examples["train"][0].source.startswith("= Homarus gammarus =\nHomarus gammarus , known as")
        words = {split: sum(len(e.source.split()) for e in rows) for split, rows in examples.items()}
        assert words["train"] + words["valid"] == 217646 - 3760  # the usual count has an end of line more each
        assert words["test"] == 245569 - 4358


def test_sentences_and_what_is_none() -> None:
    found = sentences(["a\tX", "b\tY", "\t", "", "c\tX"], separator="\t", columns=2, name="f")
    assert [(e.source, e.target) for e in found] == [(["a", "b"], ["X", "Y"]), (["c"], ["X"])]
    with pytest.raises(DataError, match="f line 2: 3 columns, 2 were expected"):
        sentences(["a X", "a b X"], separator=None, columns=2, name="f")
