"""Checkpoints and random states: what goes in comes out, in plain containers."""

from __future__ import annotations

import math
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from seqbench import randomness
from seqbench.records.store import Store
from seqbench.run import run
from seqbench.training.ledger import Progress
from seqbench.training.progress import Event
from seqbench.training.resume import Checkpoints, weights
from tasks.loading import Loader
from tests.runs.test_run import folder_of, same_result
from tests.seqbench.test_checkpoints import three
from tests.seqbench.toy import ToyEncoder
from tests.seqbench.toy_config import broken, toy_config


def draw() -> list[float]:
    return [random.random(), float(np.random.rand()), float(np.random.randn()), float(torch.rand(()))]  # noqa: NPY002


def test_random_states_survive_a_checkpoint(tmp_path: Path) -> None:
    randomness.seed_all(3)
    draw()  # an odd number of normals: numpy holds one back
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save_last({"random": randomness.take(), "progress": {"best_step": None}})
    before = draw()
    randomness.seed_all(4)
    assert draw() != before
    state = checkpoints.load("last")
    assert state is not None
    randomness.put(state["random"])
    assert draw() == before


def test_isolated_leaves_no_trace_and_is_seeded() -> None:
    randomness.seed_all(0)
    with randomness.isolated(9):
        inside = draw()
    after = draw()
    randomness.seed_all(0)
    assert draw() == after
    randomness.seed_all(9)
    assert draw() == inside


def test_seeds_of_purposes_differ() -> None:
    seeds = {randomness.derive(seed, purpose) for seed in range(20) for purpose in ("encoder", "head", "training")}
    assert len(seeds) == 60
    assert randomness.derive(0, "encoder") == randomness.derive(0, "encoder") < 2**32


def test_weights_have_storage_of_their_own() -> None:
    module = nn.Linear(2, 2)
    copy = weights(module)
    before = copy["weight"].clone()
    with torch.no_grad():
        module.weight += 1
    assert torch.equal(copy["weight"], before)


@pytest.mark.parametrize(
    ("values", "best", "step"),
    [
        ([1.0, 2.0, 2.0, 1.5], "max", 2),
        ([1.0, 2.0, 0.5, 0.5], "min", 3),
        ([math.nan, 0.1, math.nan], "max", 2),
        ([math.nan, math.nan], "min", 1),
    ],
)
def test_the_best_is_the_first_of_the_best_and_nan_is_the_worst(values: list[float], best: str, step: int) -> None:
    progress = Progress()
    for i, value in enumerate(values, 1):
        if progress.is_gain(value, best):  # type: ignore[arg-type]
            progress.best_step, progress.best_value = i, value
    assert progress.best_step == step


# -- taken up again ----------------------------------------------------------------------------------------------------
def test_a_run_in_many_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy_config(tmp_path, broken("interrupt", 12))
    begun = []
    for _ in range(3):  # each attempt does six more steps and loses none of them
        events: list[Event] = []
        with pytest.raises(KeyboardInterrupt):
            run(config, watch=events.append)
        begun.append(events[0].step)
    assert begun == [0, 6, 12]
    cut = Store(tmp_path).all()[0][0]
    assert (cut.status, cut.failed_at_step, cut.resumed) == ("interrupted", 18, 2)
    monkeypatch.setenv("SEQBENCH_TOY_HEALTHY", "1")
    record = run(config).record
    assert record.resumed == 3
    assert [p.step for p in record.curves] == [5, 10, 15, 20]
    seconds = [p.seconds for p in record.curves]
    assert seconds == sorted(seconds)
    straight = run(toy_config(tmp_path / "straight", broken("interrupt", 12))).record
    assert same_result(record, straight)
    logs = [(folder_of(made) / "metrics.csv").read_text() for made in (record, straight)]
    assert logs[0] == logs[1]


def test_clocks_count_the_parts_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy_config(tmp_path, broken("interrupt", 12))
    monkeypatch.setattr("seqbench.training.facts.now", lambda: "2020-01-01T00:00:00+00:00")
    with pytest.raises(KeyboardInterrupt):
        run(config)
    monkeypatch.undo()
    path = next(tmp_path.glob("*/checkpoints"))
    state = Checkpoints(path).load("last")
    assert state is not None
    assert state["progress"]["wall"] > state["progress"]["seconds"] > state["progress"]["train_seconds"] > 0
    for name, seconds in (("wall", 3000.0), ("seconds", 2000.0), ("train_seconds", 1000.0)):
        state["progress"][name] = seconds
    Checkpoints(path, state["stamp"]).save_last(state)
    monkeypatch.setenv("SEQBENCH_TOY_HEALTHY", "1")
    record = run(config).record
    assert record.started == "2020-01-01T00:00:00+00:00" < record.ended
    assert record.cost.wall_seconds is not None
    assert record.cost.train_seconds is not None
    assert 3000 < record.cost.wall_seconds < 3060
    assert 1000 < record.cost.train_seconds < 1060
    assert 2000 < record.curves[-1].seconds < 2060


@pytest.mark.parametrize("at", [5, 20])
def test_stopped_in_an_evaluation_begins_with_it(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    forward, batches = ToyEncoder.forward, 0

    def watch(event: Event) -> None:
        nonlocal batches
        batches = 1 if (event.kind, event.step) == ("step", at) else 0

    def stopping(self: ToyEncoder, source: Any) -> Any:
        nonlocal batches
        if batches and not self.training:
            batches += 1
            if batches == 3:  # in the middle of it
                os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, source)

    config = toy_config(tmp_path / "cut")
    with monkeypatch.context() as patch:
        patch.setattr(ToyEncoder, "forward", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(config, watch=watch)
    cut = Store(tmp_path / "cut").all()[0][0]
    assert (cut.reason, cut.failed_at_step) == ("stopped by SIGTERM", at)
    assert [p.step for p in cut.curves] == list(range(5, at, 5))
    events: list[Event] = []
    record = run(config, watch=events.append).record
    assert [(e.kind, e.step) for e in events[:2]] == [("start", at), ("valid", at)]
    straight = run(toy_config(tmp_path / "straight")).record
    assert same_result(record, straight)
    logs = [(folder_of(made) / "metrics.csv").read_text() for made in (record, straight)]
    assert logs[0] == logs[1]


def test_a_second_signal_does_not_wait_for_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, calls, after = ToyEncoder.forward, 0, 0

    def stopping(self: ToyEncoder, source: Any) -> Any:
        nonlocal calls, after
        calls += self.training
        if calls == 15 and self.training:  # the first batch of step 8
            os.kill(os.getpid(), signal.SIGINT)
            after += 1
            os.kill(os.getpid(), signal.SIGINT)
            after += 1
        return forward(self, source)

    config = toy_config(tmp_path / "cut")
    with monkeypatch.context() as patch:
        patch.setattr(ToyEncoder, "forward", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    assert after == 1
    assert Store(tmp_path / "cut").all()[0][0].reason == "stopped by SIGINT"
    events: list[Event] = []
    record = run(config, watch=events.append).record
    assert events[0].step == 5  # the last evaluation: a half-done step is nothing
    assert same_result(record, run(toy_config(tmp_path / "straight")).record)


@pytest.mark.parametrize(("workers", "position"), [(0, 6), (1, 5), (0, 12)])
def test_stopped_while_it_waits_for_data(
    workers: int, position: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two steps, within one, and at an epoch's first batch."""
    iterate, taken = Loader.__iter__, 0

    def stopping(self: Loader) -> Iterator[Any]:
        nonlocal taken
        for batch in iterate(self):
            taken += self.shuffle
            if self.shuffle and taken == position + 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    changes = {"trainer.workers": workers}
    config = toy_config(tmp_path / "cut", changes)
    with monkeypatch.context() as patch:
        patch.setattr(Loader, "__iter__", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    state = Checkpoints(next((tmp_path / "cut").glob("*/checkpoints"))).load("last")
    assert state is not None
    step = (position + 1) // 2
    assert (state["progress"]["step"], state["feed"]["loader"]["position"]) == (step, step)
    record = run(toy_config(tmp_path / "cut", {"trainer.workers": 1 - workers})).record
    assert record.resumed == 1
    assert same_result(record, run(toy_config(tmp_path / "straight")).record)


def test_checkpoints_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step here; killed without a word, as SIGKILL does, nothing but the step under way is lost."""
    saved = []
    save = Checkpoints.save_last
    monkeypatch.setattr(
        Checkpoints, "save_last", lambda self, state: (saved.append(state["progress"]["step"]), save(self, state))
    )
    often = {"trainer.save_every": 1e-9, "budget.eval_every": None, "budget.select": "last"}
    config = toy_config(tmp_path, broken("error", 15) | often)
    assert run(config).record.status == "failed"
    assert saved == list(range(1, 8))
    saved.clear()
    run(toy_config(tmp_path, {"trainer.save_every": 3600, "budget.eval_every": None, "budget.select": "last"}))
    assert saved == [20]


def test_a_finished_run_leaves_no_checkpoints_if_killed_before_they_were_removed(tmp_path: Path) -> None:
    config = toy_config(tmp_path, {"budget.steps": 2, "budget.eval_every": 2})
    record = run(config).record
    folder = tmp_path / record.id
    three(folder / "checkpoints")
    (folder / ".record.json.123.tmp").write_bytes(b"{")
    outcome = run(config)
    assert outcome.skipped
    assert outcome.record == record
    assert not (folder / "checkpoints").exists()
    assert not (folder / ".record.json.123.tmp").exists()


def test_a_record_of_a_failure_keeps_its_checkpoints(tmp_path: Path) -> None:
    config = toy_config(tmp_path, broken("error", 13))
    record = run(config).record
    assert run(config).skipped
    assert (tmp_path / record.id / "checkpoints" / "last.pt").is_file()


# -- attempts that saved nothing, signals that waited ------------------------------------------------------------------
def test_attempts_that_saved_nothing_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy_config(tmp_path, broken("interrupt", 3))
    monkeypatch.setattr(
        "seqbench.training.course.Course.on_exception", lambda *args: None
    )  # as if killed: nothing is saved
    for times in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(config)
        assert Store(tmp_path).all()[0][0].resumed == times
    monkeypatch.setenv("SEQBENCH_TOY_HEALTHY", "1")
    assert run(config).record.resumed == 2
    assert run(toy_config(tmp_path, broken("interrupt", 3) | {"rerun": "always"})).record.resumed == 0


def test_a_signal_that_waits_in_a_step_that_fails_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record says what went wrong; who asked for a stop has it, too."""
    forward = ToyEncoder.forward

    def stopping(self: ToyEncoder, source: Any) -> Any:
        if self.training and getattr(self, "passes", 0) == 4:  # BrokenEncoder's fifth fails
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, source)

    monkeypatch.setattr(ToyEncoder, "forward", stopping)
    for how, status in (("nan", "diverged"), ("oom", "out_of_memory"), ("error", "failed")):
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            run(toy_config(tmp_path / how, broken(how, 5)))
        assert Store(tmp_path / how).all()[0][0].status == status


class Dying:
    """Gets a signal when it is removed, as whoever interrupts may happen to."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_in_a_destructor_stops_the_run_after_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = ToyEncoder.forward
    things: list[Dying] = []

    def watch(event: Event) -> None:
        if (event.kind, event.step) == ("step", 5):
            things.append(Dying())

    def stopping(self: ToyEncoder, source: Any) -> Any:
        if not self.training:
            things.clear()
        return forward(self, source)

    config = toy_config(tmp_path / "cut")
    with monkeypatch.context() as patch:
        patch.setattr(ToyEncoder, "forward", stopping)
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            run(config, watch=watch)
    cut = Store(tmp_path / "cut").all()[0][0]
    assert (cut.status, [point.step for point in cut.curves]) == ("interrupted", [5])
    record = run(config).record
    assert record.resumed == 1
    assert same_result(record, run(toy_config(tmp_path / "straight")).record)
