"""What a sweep leaves for the board after it: entries that the board believes, and nothing where none can be left."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from seqbench.benchmark import made_up
from seqbench.board import collect, index, reading
from seqbench.records.store import NAME
from seqbench.studies import indexing
from seqbench.studies.indexing import Leaving
from tests.runs.test_cluster import Cluster
from tests.runs.test_cluster import cluster as cluster
from tests.seqbench.toy_cli import Toy

ROOT = Path(__file__).resolve().parents[2]
GRID = ["-m", "encoder=toy,majority", "seed=0,1", "budget.steps=2"]


@pytest.fixture
def _old_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files made just now count as settled."""
    monkeypatch.setattr(reading, "SETTLED", -(10**12))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    made_up.write(tmp_path / "results", made_up.Shape(encoders=3, tasks=5, seeds=2, examples=60))
    return tmp_path / "results"


def names_in(results: Path) -> list[str]:
    """Folders of records."""
    return sorted(name for name in os.listdir(results) if (results / name / NAME).exists())


def indexed(results: Path) -> int:
    """How many records a board would have from the index."""
    return reading.read_many(results, names_in(results), indexing.SPLIT).indexed


def leaving(results: Path) -> Leaving:
    """Of a sweep over all the records there."""
    return Leaving(dict.fromkeys(names_in(results), results))


@pytest.mark.usefixtures("_old_enough")
@pytest.mark.parametrize("how", ["one by one", "at once", "cluster"])
def test_a_sweep_leaves_an_index_that_the_board_uses(toy: Toy, how: str, request: pytest.FixtureRequest) -> None:
    more = {"one by one": [], "at once": ["jobs=2"], "cluster": ["hydra/launcher=slurm"]}[how]
    if how == "cluster":
        assert isinstance(request.getfixturevalue("cluster"), Cluster)
    said = toy(*GRID, *more)
    assert said.code == 0, said
    results = toy.work / "results"
    assert len(names_in(results)) == 4
    assert indexed(results) == 4
    fast = [(entry.record, entry.folder) for entry in collect.read(results, index=True)[0]]
    assert fast == [(entry.record, entry.folder) for entry in collect.read(results)[0]]


@pytest.mark.usefixtures("_old_enough")
def test_a_cell_that_is_run_anew_has_the_new_entry(toy: Toy) -> None:
    assert toy(*GRID).code == 0
    results = toy.work / "results"
    assert indexed(results) == 4
    before = {entry.folder: entry.record.started for entry in collect.read(results, index=True)[0]}
    assert toy(*GRID, "rerun=always", "encoder=toy").code == 0
    assert indexed(results) == 4
    after = {entry.folder: entry.record.started for entry in collect.read(results, index=True)[0]}
    assert sum(before[folder] != started for folder, started in after.items()) == 2


@pytest.mark.usefixtures("_old_enough")
@pytest.mark.parametrize("trouble", ["a file in its place", "refused", "an error of ours"])
def test_a_sweep_without_its_index_is_the_same(toy: Toy, trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError if trouble == "refused" else ValueError("wrong")

    usual = toy(*GRID, "results=usual")
    if trouble == "a file in its place":
        (toy.work / "results").mkdir()
        (toy.work / "results" / index.FOLDER).write_text("")
    else:
        monkeypatch.setattr(*((index.Index, "started") if trouble == "refused" else (reading, "leave")), refuse)
    said = toy(*GRID)
    assert said.code == 0
    assert len(said.err.splitlines()) == len(usual.err.splitlines())
    assert "wrong" not in said.err + said.out
    assert indexed(toy.work / "results") == 0


def test_a_failure_is_told_at_debug_level(results: Path, caplog: pytest.LogCaptureFixture) -> None:
    (results / index.FOLDER).write_text("")
    it = leaving(results)
    with caplog.at_level(logging.DEBUG):
        it.rest()
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert "no index is left" in caplog.text


@pytest.mark.usefixtures("_old_enough")
def test_entries_are_left_now_and_then(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "EVERY", 10)
    calls: list[int] = []
    leave = reading.leave

    def counted(where: Path, names: Sequence[str], split: str) -> set[str]:
        calls.append(len(names))
        return leave(where, names, split)

    monkeypatch.setattr(reading, "leave", counted)
    it = leaving(results)
    names = names_in(results)
    assert len(names) == 30
    for number, name in enumerate(names[:25], start=1):
        it.ended(name)
        assert len(calls) == number // 10
    assert calls == [10, 10]
    it.rest()
    assert calls == [10, 10, 10]
    it.rest()
    assert indexed(results) == 30


def test_what_is_too_young_is_tried_again(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SETTLED", 3600 * 10**9)
    monkeypatch.setattr(indexing, "EVERY", 10)
    it = leaving(results)
    for name in names_in(results)[:10]:
        it.ended(name)
    assert not list((results / index.FOLDER).iterdir())
    monkeypatch.setattr(reading, "SETTLED", -(10**12))
    for name in names_in(results)[10:20]:
        it.ended(name)
    assert len({name for _, shard in index.Index(results, "test").load() for name in shard.names}) == 20


@pytest.mark.usefixtures("_old_enough")
def test_entries_of_others_stay(results: Path) -> None:
    names = names_in(results)
    assert reading.leave(results, names[:20], "test") == set(names[:20])
    assert reading.leave(results, [*names[15:], "no such record"], "test") == set(names[15:])
    every = [name for _, shard in index.Index(results, "test").load() for name in shard.names]
    assert sorted(every) == names
    assert indexed(results) == len(names)


def test_no_torch_is_imported_for_it(results: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom seqbench.board import reading\n"
        "reading.SETTLED = -10**12\n"
        f"names = {names_in(results)!r}\n"
        f"assert reading.leave(Path({str(results)!r}), names, 'test') == set(names)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
