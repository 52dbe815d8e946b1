"""Names of rows and columns: typed ones, those of the config files, those of a user's own data."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqbench.composition.compose import own_loader
from seqbench.config import RunConfig
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
