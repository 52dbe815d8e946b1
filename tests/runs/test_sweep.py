"""Sweeps and studies run: what is missing, past failures and damage, by other launchers."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqbench.records.store import Store, read
from tests.runs.test_study import plan_tiny
from tests.seqbench.toy_cli import STUDY, Toy


# -- sweeps --------------------------------------------------------------------------------------------------------
def test_a_study_runs_what_is_missing_and_goes_on_after_a_failure(toy: Toy) -> None:
    said = toy("-m", "study=tiny", base=[])
    assert said.code == 0, said.err
    assert "study tiny: 4 cells, 0 have a record, 4 to run; 1 pair left out:" in said.err
    assert "repeat_last x toy: has no rule repeat_last" in said.err
    assert len(toy.records()) == 4
    assert {tuple(read(path).studies) for path in toy.records()} == {("tiny",)}
    assert toy.left == {"results"}
    times = [path.stat().st_mtime_ns for path in toy.records()]
    again = toy("-m", "study=tiny", "encoder=toy,broken", base=[])
    assert again.code == 1
    assert "4 cells, 2 have a record, 2 to run" in again.err
    assert "broken" in again.out
    assert "diverged" in again.out
    assert [path.stat().st_mtime_ns for path in toy.records()][:4] == times
    assert [read(path).status for path in toy.records()][4:] == ["diverged", "diverged"]
    table = again.out.splitlines()
    assert table[0].split() == ["encoder", "task", "seed", "status", "test", "record"]
    assert len(table) == 1 + 4


def test_a_cell_of_two_studies_is_run_once_and_names_both(toy: Toy) -> None:
    toy.write("study/other.yaml", {**STUDY, "name": "other"})
    assert toy("-m", "study=tiny", "encoder=majority", "seed=0", base=[]).code == 0
    before = read(toy.records()[0])
    assert toy("-m", "study=other", "encoder=majority", "seed=0", base=[]).code == 0
    after = read(toy.records()[0])
    assert len(toy.records()) == 1
    assert after.studies == ["other", "tiny"]
    assert after.ended == before.ended


def test_a_cell_of_a_study_is_the_run_of_its_overrides(toy: Toy) -> None:
    assert toy("-m", "study=tiny", "encoder=toy", "seed=1", base=[]).code == 0
    record = read(toy.records()[0])
    said = toy(*record.overrides, base=[])
    assert "has a record already" in said.out
    assert record.id in said.out


def test_an_ad_hoc_sweep_reports_every_mistake_before_anything_runs(toy: Toy) -> None:
    said = toy("-m", "encoder.dim=0,4", "task.data.rows=12,x")
    assert said.code == 2
    assert len(said.err.splitlines()) <= 3
    assert "encoder.dim: 0 is not allowed" in said.err
    assert "task.data.rows: 'x' is not a whole number" in said.err
    assert toy.left == set()


def test_a_cell_without_data_stops_no_other(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.data.base import DataError
    from tests.seqbench.toy import ToyData

    def check(self: ToyData) -> None:
        if self.rows == 12:
            raise DataError("task.data: the file is not there")

    monkeypatch.setattr(ToyData, "check", check)
    said = toy("-m", "task.data.rows=12,15")
    assert said.code == 1
    assert "not run" in said.out
    assert "task.data: the file is not there" in said.out
    assert len(toy.records()) == 1


def test_other_launchers_are_handed_the_cells(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a launcher that isn't Hydra's basic one, cells go through it as overrides that make the same ids."""
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher
    from hydra.core.plugins import Plugins

    batches: list[list[list[str]]] = []

    class Elsewhere(BasicLauncher):
        def launch(self, job_overrides: Any, initial_job_idx: int) -> Any:
            batches.append([list(cell) for cell in job_overrides])
            return super().launch(job_overrides, initial_job_idx)

    made = Elsewhere()

    def instantiate(self: Any, hydra_context: Any, task_function: Any, config: Any) -> Any:
        made.setup(hydra_context=hydra_context, task_function=task_function, config=config)
        return made

    monkeypatch.setattr(Plugins, "instantiate_launcher", instantiate)
    said = toy("-m", "study=tiny", "seed=0", "hydra/launcher=submitit_local", base=[])
    assert said.code == 0, said.err
    assert [len(batch) for batch in batches] == [2]
    assert all(cell[0] == "study=tiny" for cell in batches[0])
    ids = {cell.id for cell in plan_tiny(toy, "seed=0").cells}
    assert {path.parent.name for path in toy.records()} == ids
    assert {tuple(read(path).studies) for path in toy.records()} == {("tiny",)}


def cut(path: Path) -> None:
    path.write_text(path.read_text()[:100])


def edit(path: Path) -> None:
    path.write_text(path.read_text().replace('"value": 0.', '"value": 0.9', 1))


def version(path: Path) -> None:
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))


def swap(path: Path) -> None:
    """With that of another run."""
    other = next(p for p in path.parents[1].glob("*/record.json") if p != path)
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def rubbish(path: Path) -> None:
    """For the checkpoint of a run that was interrupted."""
    record = read(path)
    Store(path.parents[1]).write(record.model_copy(update={"status": "interrupted"}))
    (path.parent / "checkpoints").mkdir()
    for name in ("last", "best"):
        (path.parent / "checkpoints" / f"{name}.pt").write_bytes(b"PK" + b"x" * 100)


@pytest.mark.parametrize(
    "damage, hurt, says, jobs",
    [
        (cut, 1, "is no JSON object (cut off?)", 1),
        (edit, 1, "was edited after it was written", 1),
        (version, 1, "has schema_version 2", 1),
        (swap, 2, "in a folder of another name", 1),
        pytest.param(swap, 2, "in a folder of another name", 2, marks=pytest.mark.slow),
    ],
)
def test_damage_is_its_own_cells_matter(
    damage: Callable[[Path], None], hurt: int, says: str, jobs: int, toy: Toy
) -> None:
    """Planted in a store: told in a line, none used in silence, the other cells run and the table is printed."""
    assert toy("-m", "encoder=toy,majority", "seed=0").code == 0
    damage(toy.records()[0])
    records, damages = Store(toy.work / "results").all()
    assert (len(records), len(damages)) == (2 - hurt, hurt)
    assert says in damages[0].reason
    said = toy("-m", "encoder=toy,majority", "seed=0,1", f"jobs={jobs}")
    assert said.code == 1, said.err
    assert "Traceback" not in said.err
    table = said.out.splitlines()
    assert len(table) == 1 + 4
    assert [says in line and "not run" in line for line in table].count(True) == hurt
    assert ["finished" in line for line in table].count(True) == 4 - hurt
    assert toy("-m", "encoder=toy,majority", "seed=0,1", f"jobs={jobs}", "rerun=always").code == 0
    assert Store(toy.work / "results").all()[1] == []


def test_a_copied_record_is_told(toy: Toy) -> None:
    assert toy("-m", "seed=0,1").code == 0
    shutil.copytree(toy.records()[0].parent, toy.work / "results" / "copy")
    records, damages = Store(toy.work / "results").all()
    assert len(records) == 2
    assert [str(damage.path) for damage in damages] == [str(toy.work / "results" / "copy" / "record.json")]


def test_a_damaged_checkpoint_is_its_own_cells_matter(toy: Toy) -> None:
    assert toy("seed=0").code == 0
    rubbish(toy.records()[0])
    said = toy("-m", "seed=0,1")
    assert "Traceback" not in said.err
    assert sum("finished" in line for line in said.out.splitlines()) >= 1
    assert len(said.out.splitlines()) == 1 + 2
    assert said.code in (0, 1)  # 0 where an older one, or the beginning, takes its place


def test_a_full_disk_ends_a_sweep(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    said = toy("-m", "seed=0,1")
    assert said.code == 2
    assert "cannot be written to (no space left on device)" in said.err


def test_the_table_shows_what_varies(toy: Toy) -> None:
    said = toy("-m", "encoder.dim=4,6", "budget.steps=5")
    assert said.code == 0
    table = [line.split() for line in said.out.splitlines()]
    assert table[0] == ["encoder", "task", "encoder.dim", "seed", "status", "test", "record"]
    assert [row[2] for row in table[1:]] == ["4", "6"]
    assert "toy x toy, encoder.dim=4  hits" in said.err
    assert "toy x toy, encoder.dim=6  hits" in said.err
