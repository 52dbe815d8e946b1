"""Names of rows and columns: typed ones, those of the config files, those of a user's own data."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqbench.composition.compose import own_loader
from seqbench.config import RunConfig
from seqbench.record import DataFile, Record
from seqbench.records.labels import as_asked, column_label, row_label
from seqbench.run import run
from seqbench.studies.study import plan_sweep
from tests.seqbench import board_records as made


def config(*overrides: str) -> RunConfig:
    return plan_sweep(overrides, loader=own_loader()).cells[0].config


def test_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews").mkdir()
    for name in ("stars.csv", "reviews/train.csv"):
        (tmp_path / name).write_text("text,label\n")
    own = "task=own_classification"
    assert column_label(config("task=listops")) == "listops"
    assert column_label(config("task=listops", "task_label=Lists")) == "Lists"
    assert column_label(config(own, "task.data.train=stars.csv")) == "own_classification: stars.csv"
    assert column_label(config(own, f"task.data.train={tmp_path}/stars.csv")) == "own_classification: stars.csv"
    monkeypatch.chdir(tmp_path / "reviews")
    assert column_label(config(own, "task.data.train=train.csv")) == "own_classification: reviews/train.csv"
    hub = config(own, "own_data@task.data=hub", "task.data.path=stanfordnlp/sst2", f"task.data.revision={'0' * 40}")
    assert column_label(hub) == "own_classification: stanfordnlp/sst2"


def test_new_names_need_no_new_run(tmp_path: Path) -> None:
    plain = [
        *("encoder=majority", "task=digits", "trainer.progress=false", f"results={tmp_path}", "logger=none"),
        "optimizer.lr=0.001",
    ]
    first = run(config(*plain))
    assert (first.skipped, first.record.encoder.label, first.record.task.label) == (False, "majority", "digits")
    again = run(config(*plain, "label=Floor", "task_label=Ten digits"))
    assert (again.skipped, again.record.encoder.label, again.record.task.label) == (True, "Floor", "Ten digits")
    kept = run(config(*plain))  # names that nobody typed replace none
    assert (kept.skipped, kept.record) == (True, again.record)
    assert row_label(config(*plain)) == "majority"


def test_a_record_that_has_the_names_is_itself(tmp_path: Path) -> None:
    record = made.write(tmp_path, label="Mine")
    assert as_asked(record, config("label=Mine")) is record
    assert as_asked(record, config()) is record
    assert as_asked(record, config("label=Yours")).encoder.label == "Yours"


def test_a_column_has_the_name_that_its_file_has_now(tmp_path: Path) -> None:
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text("text,label\n" + "".join(f"word {i},{'ab'[i % 2]}\n" for i in range(40)))
    plain = ["encoder=majority", "task=own_classification", f"results={tmp_path / 'r'}", "trainer.progress=false"]
    first = run(config(*plain, f"task.data.train={old}"))
    assert first.record.task.label == "own_classification: old.csv"
    old.rename(new)
    again = run(config(*plain, f"task.data.train={new}"))
    assert (again.skipped, again.record.id) == (True, first.record.id)
    assert again.record.task.label == "own_classification: new.csv"
    third = new.rename(tmp_path / "third.csv")
    assert run(config(*plain, f"task.data.train={third}")).record.task.label == "own_classification: third.csv"
    third.rename(old)
    assert run(config(*plain, f"task.data.train={old}")).record.task.label == "own_classification: old.csv"
    typed = run(config(*plain, f"task.data.train={old}", "task_label=Mine"))
    old.rename(new)
    kept = run(config(*plain, f"task.data.train={new}"))
    assert [one.record.task.label for one in (typed, kept)] == ["Mine", "Mine"]


def recorded(tmp_path: Path, config: RunConfig, label: str, *files: str) -> Record:
    """The record of a run of a config, under whatever name of its column."""
    data = [DataFile(name=name, url=f"file:{name}", sha256="a" * 64) for name in files]
    record = made.write(tmp_path, task=config.names.task, task_label=label, files=data)
    return record.model_copy(update={"config": {**record.config, "task": config.task}})


@pytest.fixture
def two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("text,label\n")


@pytest.mark.usefixtures("two_files")
def test_a_typed_name_that_begins_as_a_tasks_does_stays(tmp_path: Path) -> None:
    """Of a built-in task, and of own data: typed at the first run or later, in old records and in those of today."""
    own = config("task=own_classification", "task.data.train=a.csv")
    moved = config("task=own_classification", "task.data.train=b.csv")
    easy = recorded(tmp_path, config("task=digits"), "digits: easy")
    mine = recorded(tmp_path, own, "own_classification: Mine", "a.csv")
    assert as_asked(easy, config("task=digits")) is easy
    assert [as_asked(mine, one) is mine for one in (own, moved)] == [True, True]
    for name in ("Mine", "a.csv", "other.csv"):
        typed = f"own_classification: {name}"
        asking = config("task=own_classification", "task.data.train=a.csv", f"task_label='{typed}'")
        for label in ("own_classification: a.csv", "stars", typed):
            known = as_asked(recorded(tmp_path, own, label, "a.csv"), asking)
            assert known.task.label == typed
            assert [as_asked(known, one) is known for one in (own, moved, asking)] == [True, True, True]


@pytest.mark.usefixtures("two_files")
def test_a_column_has_the_name_of_the_file_trained_on_where_two_change_names(tmp_path: Path) -> None:
    before = config("task=own_classification", "task.data.train=a.csv", "task.data.test=b.csv")
    after = config("task=own_classification", "task.data.train=b.csv", "task.data.test=a.csv")
    record = recorded(tmp_path, before, "own_classification: a.csv", "a.csv", "b.csv")
    assert as_asked(record, before) is record
    assert as_asked(record, after).task.label == "own_classification: b.csv"
