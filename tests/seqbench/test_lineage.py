"""Which files a run stands on, and what is told of a record whose code or data has changed since."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqbench.record import Code, DataFile, Record
from seqbench.records import lineage
from seqbench.run import run
from tests.seqbench.toy_config import toy_config


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return run(toy_config(tmp_path_factory.mktemp("lineage"), {"budget.steps": 2})).record


def edited(record: Record, **files: str) -> Record:
    """The record with another checksum for some files."""
    code = Code(**{**record.code.model_dump(), "files": {**record.code.files, **files}})
    return record.model_copy(update={"code": code})


def test_nothing_has_changed_in_a_new_record(record: Record) -> None:
    assert record.code.files == lineage.files()
    changes = lineage.changes(record)
    assert changes == lineage.Changes()
    assert not changes.stale


def test_files_of_a_task_are_those_that_it_imports_at_any_depth() -> None:
    used = lineage.uses({"tasks.data.scan.Scan", "tasks.sequence_to_sequence.SequenceToSequence"})
    assert {"tasks/data/scan.py", "tasks/search.py", "tasks/base.py", "encoders/base.py"} <= used
    assert not {"tasks/data/listops.py", "tasks/forecasting.py", "encoders/s4d.py"} & used
    assert lineage.uses({"my_package.Task", "tasks", "../etc.passwd", "os.system"}) == set()


def test_changes_are_sorted_by_what_the_run_stands_on(record: Record) -> None:
    config = {**record.config, "task": {"_target_": "tasks.classification.Classification", "data": [{"_target_": "x"}]}}
    old = edited(
        record.model_copy(update={"config": {**config, "encoder": {"_target_": "encoders.s4d.S4D"}}}),
        **{"tasks/base.py": "0", "tasks/forecasting.py": "0", "encoders/s4d.py": "0", "seqbench/training/fit.py": "0"},
    )
    changes = lineage.changes(old)
    assert (changes.task, changes.encoder) == (["tasks/base.py"], ["encoders/s4d.py"])
    assert (changes.harness, changes.other) == (["seqbench/training/fit.py"], ["tasks/forecasting.py"])
    assert changes.stale
    assert not lineage.changes(edited(record, **{"seqbench/training/fit.py": "0"})).stale
    assert lineage.changes(edited(record, **{"tasks/base.py": "0"}), now=record.code.files).task == ["tasks/base.py"]


def test_a_record_without_checksums_says_that_it_can_not_be_told(record: Record) -> None:
    bare = record.model_copy(update={"code": record.code.model_copy(update={"files": {}})})
    assert not lineage.changes(bare).known
    assert not lineage.changes(bare).stale


def test_packages_and_pinned_files(record: Record) -> None:
    from tasks.data import pinned

    fact = pinned.identity("sst2")[0]
    file = DataFile(name=fact.name, url=fact.url, sha256=fact.sha256, size=fact.size)
    environment = record.environment.model_copy(
        update={"packages": {**record.environment.packages, "torch": "1.0", "gone": "2"}}
    )
    same = lineage.changes(record.model_copy(update={"data": [file], "environment": environment}))
    assert same.data == []
    assert same.packages["torch"][0] == "1.0"
    assert same.packages["gone"] == ("2", "not installed")
    assert len(same.packages) == 2
    moved = file.model_copy(update={"sha256": "f" * 64})
    changes = lineage.changes(record.model_copy(update={"data": [moved]}))
    assert changes.stale
    assert changes.data == [f"data file {fact.name}: sha256 {'f' * 12} then, {fact.sha256[:12]} now"]


def test_files_follow_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "a.py").write_text("x = 1\n")
    one = lineage.files(tmp_path)
    (tmp_path / "tasks" / "a.py").write_text("x = 2\n")
    assert one.keys() == lineage.files(tmp_path).keys() == {"tasks/a.py"}
    assert one != lineage.files(tmp_path)
