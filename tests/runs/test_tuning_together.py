"""Tuning again and by several processes: which trials are made anew, which are shared."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from encoders.base import Sequences, States
from seqbench import tuning
from seqbench.board import tuned as board
from seqbench.config import RunConfig
from seqbench.record import Record
from seqbench.records import lineage
from seqbench.records.claim import Claimed
from seqbench.records.store import read
from seqbench.run import run
from tests.runs.test_tuning import config_of, trial_records, trials_of
from tests.seqbench.toy import ToyEncoder
from tests.seqbench.toy_cli import Toy


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """The record of a tuned run."""
    record = run(config_of(tmp_path_factory.mktemp("tuned"))).record
    assert record.status == "finished"
    return record


# -- again, and together -------------------------------------------------------------------------------------------
def starts_of(config: RunConfig) -> int:
    """Trainings that a run began."""
    starts: list[int] = []
    record = run(config, watch=lambda event: starts.append(event.step) if event.kind == "start" else None).record
    assert record.status == "finished"
    assert set(starts) <= {0}
    return len(starts)


@pytest.mark.slow
def test_rerun_makes_the_trials_again_once_for_all_seeds(tmp_path: Path) -> None:
    assert starts_of(config_of(tmp_path, trials=2)) == 3
    assert starts_of(config_of(tmp_path, {"seed": 1}, trials=2)) == 1
    again = config_of(tmp_path, {"rerun": "always"}, trials=2)
    assert starts_of(again) == 3
    assert starts_of(again.model_copy(update={"seed": 1})) == 1
    assert starts_of(config_of(tmp_path, {"rerun": "always"}, trials=2)) == 3


def test_trials_of_another_version_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(config_of(tmp_path, trials=2)).record
    others = dict.fromkeys(["tasks/base.py", "encoders/base.py", "seqbench/board/page.py"], "0")
    monkeypatch.setattr(lineage, "_files_now", lambda: lineage.files() | others)
    second = run(config_of(tmp_path, {"seed": 1}, trials=2)).record
    files = ["tasks/base.py", "encoders/base.py"]
    assert [trial.changed for trial in trials_of(first)] == [[], []]
    assert [trial.changed for trial in trials_of(second)] == [files, files]
    assert board.notices({"a": ("toy", [first])}, "x") == []
    (told,) = board.notices({"a": ("toy", [first, second])}, "x")
    assert told == (
        "x: toy, 2 of 2 trials were made by another version of its code or data than the run "
        "(tasks/base.py, encoders/base.py); rerun=always makes them again"
    )


def test_random_trials_that_others_are_at_come_last(tuned: Record, tmp_path: Path) -> None:
    records = {record.config["optimizer"]["lr"]: record for record in trial_records(Path(tuned.config["results"]))}
    lrs = [trial.settings["optimizer.lr"] for trial in trials_of(tuned)]
    asked: list[float] = []
    notes: list[str] = []

    def held_twice(config: RunConfig, note: str) -> Record:
        notes.append(note)
        asked.append(config.optimizer["lr"])
        if asked[-1] == lrs[0] and asked.count(lrs[0]) < 3:
            raise Claimed("another process works on this run")
        return records[asked[-1]]

    _, facts = tuning.tuned(config_of(tmp_path), held_twice, lambda event: None)
    assert asked == [*lrs, lrs[0], lrs[0]]
    assert notes == [f"trial {i} of 4" for i in (1, 2, 3, 4, 1, 1)]
    assert facts == tuned.tuning


class Counted(ToyEncoder):
    """Writes a line for each training that it is in."""

    def forward(self, source: Sequences) -> States:
        if self.training and torch.is_grad_enabled() and not hasattr(self, "counted"):
            self.counted = True
            with open(os.environ["COUNTED"], "a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(0.5)
        return super().forward(source)


@pytest.mark.slow
def test_two_processes_share_the_trials_of_a_row(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTED", str(toy.work / "counted"))
    own = [
        "encoder._target_=tests.runs.test_tuning_together.Counted",
        "allowed=[encoders,tasks,torch.optim,tests]",
    ]
    sweep = ["-m", "seed=0,1", "jobs=2", "tune=random", "tune.trials=5", *own]
    said = toy(*sweep)
    assert said.code == 0, said.err
    first, second = (read(path) for path in toy.records())
    assert trials_of(first) == trials_of(second)
    assert len(trial_records(toy.work / "results")) == 5
    lines = (toy.work / "counted").read_text().split()
    assert len(lines) == 5 + 2
    assert len(set(lines)) == 2  # each seed's run, at least, in a process of its own
    assert toy(*sweep).code == 0
    assert len((toy.work / "counted").read_text().split()) == 7
