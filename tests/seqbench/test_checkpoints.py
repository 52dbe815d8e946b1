"""Checkpoints: what is in them, how many are kept, what becomes of damaged ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from seqbench.run import run
from seqbench.training.progress import Event
from seqbench.training.resume import Checkpoints
from tests.runs.test_run import same_result
from tests.seqbench.toy_config import broken, toy_config


def test_a_checkpoint_of_a_run_is_plain_and_whole(tmp_path: Path) -> None:
    record = run(toy_config(tmp_path, broken("error", 23))).record
    folder = tmp_path / record.id / "checkpoints"
    assert {p.name for p in folder.iterdir()} - {"best-5.pt", "best-10.pt"} == {"last.pt", "previous.pt"}
    state = Checkpoints(folder).load("last")
    assert state is not None
    assert set(state) == {"weights", "optimizer", "schedule", "precision", "random", "feed", "progress", "stamp"}
    assert state["progress"]["step"] == 10
    assert state["feed"]["loader"] == {"epoch": 1, "position": 4}  # steps, six an epoch
    previous = Checkpoints(folder).load("previous")
    assert previous is not None
    assert previous["progress"]["step"] == 5
    assert (folder / f"best-{state['progress']['best_step']}.pt").is_file()
    assert state["stamp"]["run"] == record.id


# -- damage ------------------------------------------------------------------------------------------------------------
def state_of(step: int, best: int | None = None) -> dict[str, Any]:
    return {"weights": {"w": torch.full((2,), float(step))}, "progress": {"step": step, "best_step": best}}


SHAPES = {"w": torch.Size([2])}


def three(folder: Path, **stamp: str) -> Checkpoints:
    """Checkpoints at steps 1, 2 and 3, of which 2 was the best."""
    checkpoints = Checkpoints(folder, stamp)
    for step, best in ((1, 1), (2, 2), (3, 2)):
        if step == best:
            checkpoints.save_best(step, state_of(step))
        checkpoints.save_last(state_of(step, best))
    return checkpoints


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def turn_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def test_two_checkpoints_and_their_bests_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    kept = []
    for step, best in ((1, 1), (2, 1), (3, 3), (4, 3)):
        if step == best:
            checkpoints.save_best(step, state_of(step))
        checkpoints.save_last(state_of(step, best))
        kept.append(sorted(p.name for p in tmp_path.iterdir()))
    assert kept == [
        ["best-1.pt", "last.pt"],
        ["best-1.pt", "last.pt", "previous.pt"],
        ["best-1.pt", "best-3.pt", "last.pt", "previous.pt"],
        ["best-3.pt", "last.pt", "previous.pt"],
    ]
    assert [checkpoints.load(name)["progress"]["step"] for name in ("last", "previous")] == [4, 3]  # type: ignore[index]


@pytest.mark.parametrize("damage", [cut, turn_a_bit, empty])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_it_and_says_so(damage: Any, tmp_path: Path) -> None:
    three(tmp_path)
    damage(tmp_path / "last.pt")
    state, notes = Checkpoints(tmp_path).resume(SHAPES, best=True)
    assert state is not None
    assert state["progress"]["step"] == 2
    assert notes == [
        f"{tmp_path}/last.pt: is damaged (its checksum differs); went on from the checkpoint before it, of step 2"
    ]
    again = Checkpoints(tmp_path)
    assert again.peek() is not None
    again.resume(SHAPES, best=True)
    again.save_last(state_of(3, 2))  # the damaged one does not take the place of the whole one
    assert [again.load(name)["progress"]["step"] for name in ("last", "previous")] == [3, 2]  # type: ignore[index]


def test_a_checkpoint_whose_best_weights_are_lost_is_of_no_use(tmp_path: Path) -> None:
    three(tmp_path)
    cut(tmp_path / "best-2.pt")
    state, notes = Checkpoints(tmp_path).resume(SHAPES, best=False)  # who tests the last ones needs no others
    assert (state or {})["progress"]["step"] == 3
    assert notes == []
    state, notes = Checkpoints(tmp_path).resume(SHAPES, best=True)
    assert state is None
    assert len(notes) == 1
    assert notes[0].count("best-2.pt: is damaged") == 2
    assert notes[0].endswith("; started from the beginning")


def test_what_is_of_another_run_or_shape_is_refused(tmp_path: Path) -> None:
    three(tmp_path / "a", run="a")
    state, notes = Checkpoints(tmp_path / "a", {"run": "b"}).resume(SHAPES, best=True)
    assert state is None
    assert "last.pt: is of another run, a" in notes[0]
    three(tmp_path / "b", run="b")
    state, notes = Checkpoints(tmp_path / "b", {"run": "b"}).resume({"w": torch.Size([3])}, best=True)
    assert state is None
    assert "last.pt: has weights of other names or shapes (the code has changed)" in notes[0]
    assert Checkpoints(tmp_path / "none").resume(SHAPES, best=True) == (None, [])


def test_another_place_is_said(tmp_path: Path) -> None:
    three(tmp_path, run="a", torch="1", threads="2", source="x")
    state, notes = Checkpoints(tmp_path, {"run": "a", "torch": "2", "threads": "1", "source": "x"}).resume(
        SHAPES, best=True
    )
    assert state is not None
    assert notes == [
        "from step 3 on, torch is another: 2, before 1",
        "from step 3 on, the number of threads is another: 1, before 2",
    ]


@pytest.mark.parametrize(("names", "begins"), [(["last"], 10), (["last", "previous"], 0)])
def test_a_run_survives_damage(
    names: list[str], begins: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    config = toy_config(
        tmp_path / "cut", broken("interrupt", 25)
    )  # in step 13: evaluations at 5 and 10, and on leaving
    with pytest.raises(KeyboardInterrupt):
        run(config)
    folder = next((tmp_path / "cut").glob("*/checkpoints"))
    for name in names:
        cut(folder / f"{name}.pt")
    monkeypatch.setenv("SEQBENCH_TOY_HEALTHY", "1")
    events: list[Event] = []
    record = run(config, watch=events.append).record
    assert events[0].step == begins
    said = capfd.readouterr().err.splitlines()
    assert len(said) == len(record.notes) == 1
    assert said[0] == f"{folder}/{record.notes[0]}" or begins == 0
    assert record.notes[0].startswith("last.pt: is damaged (its checksum differs); ")
    assert record.resumed == 1
    straight = run(toy_config(tmp_path / "straight", broken("interrupt", 25))).record
    assert straight.notes == []
    assert same_result(record, straight)
