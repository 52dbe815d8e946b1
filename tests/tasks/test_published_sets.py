"""MR, SUBJ, TREC, G2P, chorales, secondary structure, UCR: counts, first rows, and what readers refuse."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tasks.data import sentences
from tasks.data.base import SPLITS, DataError
from tasks.data.chorales import Chorales, frames
from tasks.data.g2p import GraphemeToPhoneme
from tasks.data.secondary_structure import SecondaryStructure, _examples
from tasks.data.sentences import TREC, FoldedSentences, folds
from tasks.data.time_series_archive import TimeSeriesArchive, read_ts


@pytest.fixture
def _cache(data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))


@pytest.mark.data
@pytest.mark.usefixtures("_cache")
class TestRead:
    @pytest.mark.parametrize(
        "name, rows, classes",
        [("mr", 10662, {"positive": 5331, "negative": 5331}), ("subj", 10000, {"subjective": 5000, "objective": 5000})],
    )
    def test_ten_folds_hold_each_sentence_once(self, name: str, rows: int, classes: dict[str, int]) -> None:
        tests = [list(FoldedSentences(name=name, fold=fold).read("test")) for fold in range(10)]
        assert sum(map(len, tests)) == rows
        assert Counter(example.target for fold in tests for example in fold) == classes
        assert all(abs(len(fold) - rows / 10) < 5 for fold in tests)
        data = FoldedSentences(name=name, fold=9)
        assert list(data.read("valid")) == tests[0]
        assert list(data.read("test")) == tests[9]
        assert len(data.read("train")) == rows - len(tests[0]) - len(tests[9])

    def test_latin_1(self) -> None:
        every = [e.source for split in SPLITS for e in FoldedSentences(name="mr", fold=0).read(split)]
        assert any("é" in sentence for sentence in every)

    def test_trec(self) -> None:
        counts = Counter(e.target for split in ("train", "valid") for e in TREC().read(split))
        assert counts == {
            "description": 1162,
            "entity": 1250,
            "abbreviation": 86,
            "human": 1223,
            "number": 896,
            "location": 835,
        }
        assert Counter(e.target for e in TREC().read("test"))["number"] == 113
        assert not {e.source for e in TREC().read("train")} & {e.source for e in TREC().read("valid")}

    def test_g2p(self) -> None:
        first = GraphemeToPhoneme(language="fre").read("train")[0]
        assert "".join(first.source) == "abandonner"
        assert first.target == ["a", "b", "ɑ̃", "d", "ɔ", "n", "e"]

    def test_chorales(self) -> None:
        pieces = {split: Chorales().read(split) for split in SPLITS}
        assert [sum(len(e.source) for e in pieces[split]) for split in SPLITS] == [13807, 4602, 4725]
        first = pieces["train"][0].source
        assert (np.flatnonzero(first[0]) + 21).tolist() == [60, 72, 79, 88]

    def test_secondary_structure(self) -> None:
        counts = Counter(tag for e in SecondaryStructure().read("test") for tag in e.target)
        assert counts == {"C": 29088, "H": 28954, "E": 17360, None: 9139}
        assert all(len(e.source) == len(e.target) for e in SecondaryStructure().read("valid"))

    def test_series(self) -> None:
        data = TimeSeriesArchive(problem="JapaneseVowels")
        assert data.read("train")[0].source.shape == (20, 12)
        assert {len(e.source) for e in data.read("test")} <= set(range(7, 30))
        assert Counter(e.target for e in TimeSeriesArchive(problem="ECG200").read("test")) == {"-1": 36, "1": 64}
        assert [f.name for f in data.identity()] == ["JapaneseVowels_TRAIN.ts", "JapaneseVowels_TEST.ts"]


def test_equal_sentences_are_in_one_fold_whatever_their_order() -> None:
    texts = [f"sentence {i}" for i in range(40)]
    found = folds(texts + texts[:5])
    assert found == folds(texts[::-1])
    assert Counter(found.values()) == dict.fromkeys(range(10), 4)


@pytest.mark.parametrize("line", ["7 no such class", "0", "1 ", "word"])
def test_broken_sentences(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rt-polarity.all").write_text(f"1 good .\n{line}\n0 bad .\n", encoding="iso-8859-1")
    monkeypatch.setattr(sentences, "check_files", lambda _: {"rt-polarity.all": tmp_path / "rt-polarity.all"})
    with pytest.raises(DataError, match=r"line 2 is not `label sentence`"):
        FoldedSentences(name="mr", fold=0).read("train")


def test_a_pitch_beyond_the_piano() -> None:
    with pytest.raises(DataError, match="piece 3, step 1 has pitch 109"):
        frames([[60], [108, 109]], "piece 3")


@pytest.mark.parametrize(
    "text, message",
    [
        ("1,2:a\n", "no line @data"),
        ("@data\n1,2:a\n1,x:b\n", "line 3"),
        ("@data\n1,2:3:a\n", "line 2"),
        ("@data\n1,nan:a\n", "line 2: needs finite"),
        ("@data\nonly\n", "line 2: needs"),
    ],
)
def test_broken_series(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_text(text)
    with pytest.raises(DataError, match=message):
        read_ts(tmp_path / "a.ts")


def test_proteins_whose_files_do_not_go_together(tmp_path: Path) -> None:
    def archive(states: str, header: str) -> Path:
        path = tmp_path / f"{len(states)}{len(header)}.zip"
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("splits/sequences.fasta", ">a\nMKV\n")
            file.writestr("splits/sampled.fasta", f">a {header}\n{states}\n")
            file.writestr("splits/mask.fasta", ">a\n110\n")
        return path

    good = _examples(archive("HEC", "SET=test VALIDATION=False"))["test"][0]
    assert (good.source, good.target) == (["M", "K", "V"], ["H", "E", None])
    with pytest.raises(DataError, match="3 residues, 2 states"):
        _examples(archive("HE", "SET=test VALIDATION=False"))
    with pytest.raises(DataError, match="header"):
        _examples(archive("HEC", "SET=other VALIDATION=False"))
