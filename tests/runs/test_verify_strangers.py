"""Records from strangers: nothing of theirs runs, is read, or reaches the terminal as it is."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqbench.board import collect
from seqbench.errors import RecordError
from seqbench.record import Record
from seqbench.records import verified
from seqbench.records.store import Store
from seqbench.run import run
from seqbench.verify.judge import verify
from tests.seqbench.toy_config import toy_config
from tests.seqbench.verifying import ALLOWED, edit, outcome, records, said


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with two toy runs, one of them trained with another number of threads in its config."""
    results = tmp_path_factory.mktemp("made") / "results"
    for changes in ({}, {"seed": 1, "encoder.dim": 6}):
        assert run(toy_config(results, {"budget.steps": 8, **changes})).record.status == "finished"
    return results


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / "results"))


# -- records from strangers --------------------------------------------------------------------------------------------
EVIL = """
import pathlib
pathlib.Path(__file__).with_name("ran").touch()
class Encoder:
    def __init__(self, **kwargs):
        pathlib.Path(__file__).with_name("ran").touch()
"""


@pytest.mark.parametrize("place", ["encoder", "task", "optimizer", "task.data", "task.metrics.0", "encoder.dim"])
def test_nothing_outside_the_users_packages_is_touched(
    place: str, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stranger.py").write_text(EVIL)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = records(results)[0]

    def plant(record: dict[str, Any]) -> None:
        record["config"]["allowed"] = ["stranger", "encoders", "tasks", "torch", "os", "tests"]
        *sections, last = place.split(".")
        node: Any = record["config"]
        for section in sections:
            node = node[section]
        where: Any = int(last) if last.isdigit() else last
        node[where] = {"_target_": "stranger.Encoder"}
        if place == "encoder":
            record["encoder"]["target"] = "stranger.Encoder"

    edit(path, plant)
    found = outcome(capsys, f"run={path}")
    assert found["verdict"] == "impossible"
    assert not (tmp_path / "ran").exists()
    assert "stranger" not in sys.modules


def test_what_the_record_allows_does_not_count(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, f"run={records(results)[0]}")
    assert code == 1
    assert "tests.seqbench.toy.ToyEncoder is not in a package that configs may use" in out


def test_a_strangers_words_reach_the_terminal_harmlessly(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = records(results)[0]
    edit(path, lambda record: record["encoder"].update(label="\x1b[2Jcleared\nidentical"))
    _, out, _ = said(capsys, f"run={path}", ALLOWED)
    assert "\x1b" not in out
    title, seal = out.splitlines()
    assert title.endswith(": identical: 4 scores, 28 predictions")
    assert seal.startswith("  although the record has no seal")


ESCAPE = "\x1b]0;title\x07\x1b[2J\x9b"


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update({ESCAPE: 1}),
        lambda record: record.update(schema_version=ESCAPE),
        lambda record: record["splits"].update({ESCAPE: {}}),
        lambda record: record.update(id=ESCAPE),
    ],
    ids=["key", "version", "section", "id"],
)
def test_nor_does_what_is_said_of_a_damaged_record(
    change: Callable[[dict[str, Any]], Any], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = records(results)[0]
    edit(path, change)
    code, out, err = said(capsys, f"run={path}", ALLOWED)
    assert code == 1
    notices = [damage.reason for damage in Store(results).all()[1]]
    (path.parent / "verified.json").write_text(json.dumps({ESCAPE: 1}))
    with pytest.raises(RecordError) as caught:
        verified.read(path.parent)
    left_out = collect.read(results)[1]
    assert len(notices) == len(left_out) == 1
    for text in (*out.splitlines(), err.rstrip("\n"), *notices, *left_out, str(caught.value)):
        assert text.isprintable(), repr(text)


def test_a_time_limit_of_the_machine_that_made_it_does_not_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run(toy_config(tmp_path, {"budget.steps": 8, "trainer.time_limit": 600.0})).record
    edit(tmp_path / record.id / "record.json", lambda r: r["config"]["trainer"].update(time_limit=1e-6))
    assert outcome(capsys, f"run={record.id}", f"results={tmp_path}")["verdict"] == "identical"


def test_neither_logger_nor_results_of_the_record_are_used(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = records(results)[0]
    place = tmp_path / "elsewhere"
    loggers = {"csv": {"every": 1}, "tensorboard": {"every": 1}}
    edit(path, lambda record: record["config"].update(results=str(place), logger=loggers))
    record = Record.model_validate_json(path.read_text())
    monkeypatch.setattr("seqbench.training.attempt.open_sinks", lambda options, about: [] if not options else 1 / 0)
    allowed = ["encoders", "tasks", "torch.optim", "tests.seqbench.toy"]
    assert verify(path, record, allowed=allowed, tolerance=0.0).verdict == "identical"
    assert not place.exists()
