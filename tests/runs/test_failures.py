"""What goes wrong is a record: its status, its step, the last healthy checkpoint; and it is tried again when asked."""

from __future__ import annotations

import hashlib
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqbench.record import Record
from seqbench.records.store import Store
from seqbench.run import run
from seqbench.training.casualty import is_memory
from seqbench.training.health import PATIENCE, Deadline, Diverged, TimedOut, above, check_loss
from seqbench.training.resume import Checkpoints
from tests.seqbench.toy_cli import ALLOWED, BASE, Toy
from tests.seqbench.toy_config import broken, toy_config


def record_of(tmp_path: Path, how: str, at: int, **changes: Any) -> Record:
    return run(toy_config(tmp_path, broken(how, at) | changes)).record


def assert_saved(record: Record, tmp_path: Path, step: int) -> None:
    """The checkpoint that a record names is there, whole, of that step and with finite weights."""
    assert record.saved is not None
    assert record.saved.step == step
    path = tmp_path / record.id / record.saved.path
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record.saved.sha256
    state = Checkpoints(path.parent).load(path.stem)
    assert state is not None
    assert state["progress"]["step"] == step
    assert all(bool(torch.isfinite(weight).all()) for weight in state["weights"].values())


# -- diverged --------------------------------------------------------------------------------------------------------
def test_a_loss_of_nan_names_its_step_and_the_last_healthy_checkpoint(tmp_path: Path) -> None:
    record = record_of(tmp_path, "nan", 25)
    assert (record.status, record.failed_at_step) == ("diverged", 13)
    assert record.reason == "the training loss is nan at step 13; last healthy checkpoint: step 10"
    assert_saved(record, tmp_path, 10)
    early = record_of(tmp_path, "nan", 3, seed=1)
    assert (early.failed_at_step, early.saved) == (2, None)
    assert early.reason == "the training loss is nan at step 2; no checkpoint before that"


def test_weights_of_nan_are_not_saved(tmp_path: Path) -> None:
    """A gradient that is not finite in the very step before an evaluation: its checkpoint would not be healthy."""
    record = record_of(tmp_path, "weights", 20)
    assert (record.status, record.failed_at_step) == ("diverged", 10)
    assert record.reason == "the weights are not finite after step 10; last healthy checkpoint: step 5"
    assert_saved(record, tmp_path, 5)
    assert [point.step for point in record.curves] == [5]  # nor scored, so that they are never the best
    first = record_of(tmp_path, "weights", 10, seed=1)
    assert (first.status, first.failed_at_step, first.curves, first.best_step) == ("diverged", 5, [], None)
    assert not list((tmp_path / first.id).rglob("best-*.pt"))
    between = record_of(tmp_path, "weights", 14, seed=2, **{"trainer.save_every": 1e-6})  # saved after every step
    assert (between.status, between.failed_at_step) == ("diverged", 7)
    assert_saved(between, tmp_path, 6)


def test_a_loss_that_explodes(tmp_path: Path) -> None:
    record = record_of(tmp_path, "explode", 13, **{"budget.steps": 60})
    assert (record.status, record.failed_at_step) == ("diverged", 6 + PATIENCE)
    assert record.reason is not None
    assert record.reason.startswith("the training loss explodes: 1e+04 at step 26, above 10 times the first one (0.")
    off = record_of(tmp_path, "explode", 13, **{"budget.steps": 40, "trainer.explosion": None})
    assert off.status == "finished"


def test_what_exploded_by_one_factor_is_run_again_by_another(tmp_path: Path) -> None:
    """The factor is not in the id, for it changes no score; so it must not end a run for good."""
    changes = broken("explode", 3) | {"budget.steps": 40}
    first = run(toy_config(tmp_path, changes))
    assert first.record.status == "diverged"
    assert run(toy_config(tmp_path, changes)).skipped
    for factor in (None, 1e9):
        again = run(toy_config(tmp_path, changes | {"trainer.explosion": factor}))
        assert (again.record.id, again.skipped, again.record.status) == (first.record.id, False, "finished")
        assert run(toy_config(tmp_path, changes)).skipped  # what has finished did not explode
        (tmp_path / first.record.id / "record.json").unlink()
        assert run(toy_config(tmp_path, changes)).record.status == "diverged"
    lost = run(toy_config(tmp_path, broken("nan", 3)))
    assert lost.record.status == "diverged"
    assert run(toy_config(tmp_path, broken("nan", 3) | {"trainer.explosion": None})).skipped


def test_spikes_are_healthy(tmp_path: Path) -> None:
    assert record_of(tmp_path, "spikes", 4, **{"budget.steps": 60}).status == "finished"
    generator = np.random.default_rng(0)
    for _ in range(200):  # heavy tails, a first loss that happens to be small: never PATIENCE of them in a row
        losses = np.exp(generator.normal(0, 1.2, 2000))
        in_a_row = 0
        first = float(np.quantile(losses, 0.1))
        for step, loss in enumerate(losses):
            in_a_row = above(step, float(loss), first=first, factor=10.0, already=in_a_row)


@pytest.mark.parametrize("first, factor", [(0.0, 10.0), (-3.0, 10.0), (1.0, None)])
def test_where_there_is_no_multiple_nothing_explodes(first: float, factor: float | None) -> None:
    assert above(1, 1e30, first=first, factor=factor, already=5) == 0


def test_exploding_is_counted_in_a_row() -> None:
    in_a_row = 0
    for step in range(PATIENCE - 1):
        in_a_row = above(step, 11.0, first=1.0, factor=10.0, already=in_a_row)
    assert in_a_row == PATIENCE - 1
    assert above(0, 9.9, first=1.0, factor=10.0, already=in_a_row) == 0
    with pytest.raises(Diverged, match=r"explodes: 11 at step 77, above 10 times the first one \(1\) for 20 steps"):
        above(77, 11.0, first=1.0, factor=10.0, already=in_a_row)
    for loss in (math.nan, math.inf, -math.inf):
        with pytest.raises(Diverged, match=r"at step 4$"):
            check_loss(4, loss)


# -- out of memory -----------------------------------------------------------------------------------------------------
def test_memory_that_is_not_there(tmp_path: Path) -> None:
    """A real request, for 2^62 bytes."""
    record = record_of(tmp_path, "memory", 25)
    assert (record.status, record.failed_at_step) == ("out_of_memory", 13)
    assert "can't allocate memory" in (record.reason or "") or "memory" in (record.reason or "")
    assert_saved(record, tmp_path, 10)


@pytest.mark.parametrize(
    "error, killed, expected",
    [
        (MemoryError(), False, True),
        (OSError(12, "Cannot allocate memory"), False, True),
        (RuntimeError("CUDA error: out of memory"), False, True),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed. "), True, True),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed. "), False, False),
        (RuntimeError("shapes cannot be multiplied"), True, False),
        (ValueError("not enough memory for jokes"), True, False),
    ],
)
def test_ways_to_run_out_of_memory(error: Exception, killed: bool, expected: bool) -> None:
    assert is_memory(error, killed=killed) is expected


# -- timed out ---------------------------------------------------------------------------------------------------------
def test_a_run_whose_time_is_over_goes_on_by_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = broken("sleep", 15) | {"trainer.time_limit": 1.0}
    heard: list[Deadline] = []
    with monkeypatch.context() as patch:
        patch.setattr(Deadline, "hear", lambda deadline: heard.append(deadline))
        cut = run(toy_config(tmp_path / "cut", slow)).record
    assert len(heard) == 1  # before the checkpoint of leaving is saved, so that no alarm comes again in that
    assert cut.status == "timed_out"
    assert cut.reason == "trainer.time_limit: 1 seconds are over; the same command goes on"
    assert cut.failed_at_step is not None
    assert 1 <= cut.failed_at_step < 20, "how far it comes is the machine's business"
    assert_saved(cut, tmp_path / "cut", cut.failed_at_step)
    monkeypatch.setenv("SEQBENCH_TOY_HEALTHY", "1")
    patient = slow | {"trainer.time_limit": 600.0}  # no part of the id
    again = run(toy_config(tmp_path / "cut", patient)).record
    straight = run(toy_config(tmp_path / "straight", patient)).record
    assert (again.status, again.resumed, again.saved) == ("finished", 1, None)
    assert again.predictions == straight.predictions
    assert again.checkpoint == straight.checkpoint
    assert [p.values for p in again.curves] == [p.values for p in straight.curves]


def test_a_step_that_does_not_end_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqbench.training.health.GRACE", 0.1)
    begun = time.monotonic()
    with pytest.raises(TimedOut, match=r"0\.1 seconds are over"), Deadline(0.1).enforced():
        time.sleep(20)
    assert time.monotonic() - begun < 5
    with Deadline(0.01).enforced():
        pass
    time.sleep(0.2)  # no alarm is left over
    assert not Deadline(None).reached


# -- rerun=failed ------------------------------------------------------------------------------------------------------
class Slow:
    """What it raises in its destructor, Python tells and drops."""

    def __del__(self) -> None:
        time.sleep(3)


def test_an_alarm_that_is_lost_in_a_destructor_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[Any] = []
    monkeypatch.setattr("seqbench.training.health.GRACE", 0.1)
    monkeypatch.setattr("seqbench.training.health.AGAIN", 0.1)
    monkeypatch.setattr("sys.unraisablehook", lost.append)

    def work() -> None:
        Slow()
        assert len(lost) == 1
        time.sleep(3)

    begin = time.monotonic()
    with pytest.raises(TimedOut), Deadline(0.01).enforced():
        work()
    assert isinstance(lost[0].exc_value, TimedOut)
    assert time.monotonic() - begin < 2.9  # neither sleep went on to its end


def test_an_alarm_that_was_heard_does_not_disturb_what_is_saved_on_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqbench.training.health.GRACE", 0.05)
    monkeypatch.setattr("seqbench.training.health.AGAIN", 0.05)
    saved: list[bool] = []
    deadline = Deadline(0.01)

    def work() -> None:
        try:
            time.sleep(3)
        except TimedOut:
            deadline.hear()
            time.sleep(0.2)
            saved.append(True)
            raise

    with pytest.raises(TimedOut), deadline.enforced():
        work()
    assert saved


@pytest.mark.parametrize("how, status", [("nan", "diverged"), ("oom", "out_of_memory"), ("error", "failed")])
def test_failures_stand_until_they_are_asked_for(
    how: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(tmp_path, broken(how, 5))
    assert run(config).record.status == status
    monkeypatch.setenv("SEQBENCH_TOY_HEALTHY", "1")
    assert run(config).skipped
    again = run(config.model_copy(update={"rerun": "failed"}))
    assert (again.record.status, again.record.resumed) == ("finished", 0)
    assert (again.record.reason, again.record.failed_at_step) == (None, None)


@pytest.mark.slow
def test_a_status_each_with_real_processes(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven cells, each gone wrong in its own way, in two processes; then all of them again, healthy."""
    ways = {"nan": 3, "oom": 3, "error": 3, "kill": 13, "exit": 3, "sleep": 1, "explode": 3}
    for how, at in ways.items():
        toy.write(f"encoder/way_{how}.yaml", broken(how, at)["encoder"])
    encoders = ",".join(f"way_{how}" for how in ways)
    grid = ["-m", f"encoder={encoders}", *BASE[1:], "budget.steps=60", "trainer.time_limit=5", "jobs=2"]
    said = toy(*grid, base=[])
    assert said.code == 1, said.err
    found = {r.encoder.name.removeprefix("way_"): r for r in Store(toy.work / "results").all()[0]}
    assert {name: record.status for name, record in found.items()} == {
        "nan": "diverged",
        "oom": "out_of_memory",
        "error": "failed",
        "kill": "killed",
        "exit": "failed",
        "sleep": "timed_out",
        "explode": "diverged",
    }
    assert all(record.reason for record in found.values())
    assert found["kill"].reason == "the process was killed (signal 9, SIGKILL)"
    assert_saved(found["kill"], toy.work / "results", 10)
    assert "way_error x toy, seed 0: traceback in results/" in said.out
    assert (toy.work / "results" / found["error"].id / "error.log").is_file()
    monkeypatch.setenv("SEQBENCH_TOY_HEALTHY", "1")
    again = toy(*grid, "rerun=failed", base=[])
    assert again.code == 0, again.out
    assert {r.status for r in Store(toy.work / "results").all()[0]} == {"finished"}


@pytest.mark.slow
def test_a_worker_that_the_kernel_kills_for_memory(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kill is real; that the kernel counts it among those for memory is ours to pretend."""
    kills = iter(range(100))
    monkeypatch.setattr("seqbench.training.casualty.oom_kills", lambda: next(kills))
    toy.write("encoder/kill.yaml", broken("kill", 13)["encoder"])
    said = toy("-m", "encoder=kill,toy", *BASE[1:-1], ALLOWED, "jobs=2", base=[])
    assert said.code == 1
    found = {r.encoder.name: r for r in Store(toy.work / "results").all()[0]}
    assert found["kill"].status == "out_of_memory"
    assert "the system ran out of memory meanwhile" in (found["kill"].reason or "")
    assert found["toy"].status == "finished"
