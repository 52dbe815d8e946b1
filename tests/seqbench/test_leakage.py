"""Planted leaks are found, each counted by hand; sets whose cards name one, too."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqbench import leakage, leakage_command
from seqbench.errors import RecordError
from seqbench.records import provenance
from seqbench.run import run
from tasks.data.base import Example, Stream
from tests.seqbench.toy import Hits, ToyData, ToyTask
from tests.seqbench.toy_config import toy_config


class Given(ToyData):
    """Rows as given."""

    def __init__(self, **splits: list[Example]) -> None:
        self.splits = splits

    def read(self, split: str) -> list[Example]:
        return self.splits[split]


class Reader(ToyTask):
    """A task over any rows, for its facts alone."""

    names_a_class = True

    def lengths(self, split: str) -> Any:
        return np.array([len(example.source) for example in self.examples[split]], dtype=np.int64)


def rows(*pairs: tuple[Any, Any]) -> list[Example]:
    return [Example(source=source, target=target) for source, target in pairs]


MAKING: dict[str, Any] = {"metrics": [Hits()], "max_length": 1000}


def found(**splits: list[Example]) -> leakage.Leakage:
    task = Reader(data=Given(**splits), **MAKING)
    task.setup()
    return leakage.report(task, "given", provenance.split_facts(task))


def texts(count: int, seed: int, words: int = 9) -> list[tuple[str, str]]:
    """Texts of random words with labels that have nothing to do with them."""
    draw = np.random.default_rng(seed)
    return [(" ".join(f"w{i}" for i in draw.integers(1000, 9999, words)), "ab"[i % 2]) for i in range(count)]


def shared(report: leakage.Leakage, split: str, within: str) -> leakage.Shared:
    return next(s for s in report.shared if (s.split, s.within) == (split, within))


def test_planted_duplicates_are_counted() -> None:
    train, valid, test = texts(60, 0), texts(20, 1), texts(20, 2)
    test[3] = train[7]
    test[4] = (train[8][0], "a" if train[8][1] == "b" else "b")
    test[5] = (train[9][0].upper() + " ", "a")
    valid[0] = test[0]
    train[50] = train[51]
    report = found(train=rows(*train), valid=rows(*valid), test=rows(*test))
    in_train = shared(report, "test", "train")
    assert (in_train.rows, in_train.other_target, in_train.near, in_train.of) == (2, 1, 1, 20)
    assert shared(report, "test", "valid").rows == 1
    assert shared(report, "valid", "train").rows == 0
    assert shared(report, "train", "train").rows == 1
    assert shared(report, "test", "test").rows == 0
    told = "\n".join(report.warnings)
    for line in (
        "2 of 20 rows of test (10 %) stand in train, too",
        "1 rows of test stand in train with another target",
        "1 of 18 rows of test compared are near duplicates",
        "1 of 20 rows of test (5 %) stand in valid, too",
        "1 of 60 rows of train come more than once",
    ):
        assert line in told
    assert "alone" not in told, "labels are random"


@pytest.mark.parametrize(("count", "share"), [(50, "100 %"), (997, "100 %"), (7, "14 %"), (1, "2 %"), (0, "0 %")])
def test_shares_are_written_without_exponents(count: int, share: str) -> None:
    assert f"({share}) stand in train" in leakage._stand_in(count, 1000 if count > 50 else 50, "valid", "train")


def test_a_clean_set_has_no_warning() -> None:
    report = found(train=rows(*texts(60, 0)), valid=rows(*texts(20, 1)), test=rows(*texts(40, 2)))
    assert report.warnings == []
    assert [b.name for b in report.baselines] == ["constant", "bag_of_words"], "all are equally long"
    assert report.baselines[0].value == 0.5
    assert report.prior == {"a": 0.5, "b": 0.5}


def test_length_that_tells_the_class_is_found() -> None:
    def draw(count: int, seed: int) -> list[Example]:
        made = texts(count, seed)
        return rows(*((s if t == "a" else f"{s} {s}", t) for s, t in made))

    report = found(train=draw(80, 0), valid=draw(20, 1), test=draw(40, 2))
    assert any(warning.startswith("length alone has accuracy 1.000, a constant 0.500") for warning in report.warnings)


def test_words_that_tell_the_class_and_a_skewed_class_are_found() -> None:
    made = [rows(*((f"{s} {'good' if t == 'a' else 'bad'}", t) for s, t in texts(40, seed))) for seed in range(3)]
    report = found(train=made[0], valid=made[1], test=made[2])
    assert any(w.startswith("a bag of words alone has accuracy 1.000") for w in report.warnings)
    skewed = [[*part[:18:2], part[1]] for part in made]
    report = found(train=skewed[0], valid=skewed[1], test=skewed[2])
    assert "the most frequent class alone has accuracy 0.900" in report.warnings


def test_of_many_classes_the_constant_alone_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next of thousands of items: a linear model of bags would not come to its end."""
    monkeypatch.setattr(leakage, "MANY", 4)
    for number, names in ((4, ["constant", "bag_of_words"]), (5, ["constant"])):
        items = rows(*((np.array([1 + i, 7]), 1 + i % number) for i in range(40)))
        report = found(train=items, valid=items[:5], test=items[:9])
        assert [b.name for b in report.baselines] == names
        assert sum(report.prior.values()) == pytest.approx(1)


def test_numbers_and_pairs() -> None:
    draw = np.random.default_rng(0)

    def part(count: int) -> list[Example]:
        lengths = draw.integers(1, 40, count)
        return [Example(source=("x" * int(n), "y"), target=float(n)) for n in lengths]

    report = found(train=part(200), valid=part(20), test=part(50))
    by = {b.name: b for b in report.baselines}
    assert by["length"].measure == "r2"
    assert by["length"].value > 0.9
    assert by["constant"].value < 0.1


def test_text_that_is_no_class_has_no_baselines() -> None:
    """Descriptions, translations: a constant would have accuracy 0, which says nothing of them."""

    class Writer(Reader):
        names_a_class = False

    task = Writer(data=Given(train=rows(*texts(9, 0)), valid=rows(*texts(5, 1)), test=rows(*texts(5, 2))), **MAKING)
    task.setup()
    report = leakage.report(task, "given", provenance.split_facts(task))
    assert (report.baselines, report.prior) == ([], {})


def test_near_duplicates_are_beside_equal_other_parts() -> None:
    """The molecules of new cell lines are those of the known ones, and no leak."""
    text, other = "the quick brown fox jumps over the lazy dog", "The quick brown fox jumps over the lazy dog."

    def of(source: str, context: float) -> list[Example]:
        return [Example(source=source, target=0.0, streams={"context": np.full((1, 3), context)})]

    assert leakage._near(of(text, 1.0), of(other, 1.0), ["context"]) == (1, 1)
    assert leakage._near(of(text, 1.0), of(text, 2.0), ["context"]) == (0, 1)
    assert leakage._near(of(text, 1.0), of(text, 2.0)) == (1, 1)  # a stream that goes along with its source
    task = Reader(data=Given(train=of(text, 1.0), valid=of(other, 2.0), test=of(other, 1.0)), **MAKING)
    task.data.streams = {"context": Stream(channels=3, length=1)}
    task.setup()
    report = leakage.report(task, "given", provenance.split_facts(task))
    assert (shared(report, "test", "train").near, shared(report, "valid", "train").near) == (1, 0)


def test_near_duplicates_of_items_and_of_pairs() -> None:
    one, other = np.arange(40), np.arange(40)
    other[39] = 99
    assert leakage._near(rows((one, 0)), rows((other, 0))) == (1, 1)
    assert leakage._near(rows((one, 0)), rows((one[::-1].copy(), 0))) == (0, 1)
    text = "the quick brown fox jumps over the lazy dog"
    assert leakage._near(rows(((text, "a"), 0)), rows(((text.upper(), "a"), 0))) == (1, 1)
    assert leakage._near(rows((np.zeros((4, 2), dtype=np.float32), 0)), rows((np.zeros((4, 2)), 0))) == (0, 0)


def test_the_report_is_kept_by_content_and_its_warnings_are_read(tmp_path: Path) -> None:
    train, test = texts(30, 0), texts(10, 2)
    test[0] = train[0]
    task = Reader(
        data=Given(train=rows(*train), valid=rows(*texts(5, 1)), test=rows(*test)), metrics=[Hits()], max_length=99
    )
    task.setup()
    splits = provenance.split_facts(task)
    assert (splits["test"].in_train, splits["valid"].in_train, splits["train"].in_train) == (1, 0, 0)
    plain = ["1 of 10 rows of test (10 %) stand in train, too"]
    assert leakage.warnings_for(tmp_path, splits) == plain, "what the run counted itself"
    report = leakage.report(task, "given", splits).model_copy(update={"warnings": ["so it is"]})
    path = leakage.write(tmp_path, report)
    assert leakage.warnings_for(tmp_path, splits) == ["so it is"]
    other = {**splits, "test": splits["test"].model_copy(update={"sha256": "0" * 64})}
    assert leakage.warnings_for(tmp_path, other) == plain
    path.write_text("{")
    with pytest.raises(RecordError, match=r"run scripts/leakage\.py again"):
        leakage.warnings_for(tmp_path, splits)


def test_the_checksum_of_examples_is_as_it_was() -> None:
    given = [Example(source=("é", ["b"]), target="t", streams={"s": [1, 2.5]}), Example(source=[1], target=None)]
    lines = [
        json.dumps(
            {"source": e.source, "target": e.target, "streams": dict(e.streams)},
            ensure_ascii=False,
            separators=(",", ":"),
            sort_keys=True,
        )
        for e in given
    ]
    expected = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    assert provenance.examples_sha256(given) == expected


def test_a_run_counts_shared_rows(tmp_path: Path) -> None:
    record = run(toy_config(tmp_path, {"budget.steps": 2})).record
    assert all(facts.in_train is not None for facts in record.splits.values())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert leakage_command.main(["--help"]) == 0
    assert leakage_command.main(["task=nothing"]) == 2
    reviews = [f"{'good' if i % 2 else 'bad'} film number {i % 50},{i % 2}" for i in range(60)]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,stars", *reviews]) + "\n")
    own = ["task=own_classification", "task.data.train=reviews.csv"]
    columns = ["task.data.columns.source=text", "task.data.columns.target=stars"]
    capsys.readouterr()
    assert leakage_command.main([*own, *columns, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["task"] == "own_classification"
    assert any("bag of words alone has accuracy 1.000" in warning for warning in report["warnings"])
    assert (tmp_path / "results" / "leakage" / f"{report['key']}.json").is_file()


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("task, rows", [("stsb", 7), ("atis_slots", 13), ("trec", 9)])
def test_sets_whose_splits_are_known_to_share_rows(
    task: str, rows: int, data_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))
    assert leakage_command.main([f"task={task}"]) == 0
    (kept,) = (tmp_path / "results" / "leakage").glob("*.json")
    report = leakage.Leakage.model_validate_json(kept.read_bytes())
    assert shared(report, "test", "train").rows == rows
    assert any(f"{rows} of " in w and "rows of test " in w and "stand in train" in w for w in report.warnings)
