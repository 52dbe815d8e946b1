"""Budgets in steps, tokens, operations and seconds: where they end, what the schedule follows, how they resume."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seqbench.build import build_task
from seqbench.composition.sections import Budget
from seqbench.errors import ConfigError
from seqbench.record import Record
from seqbench.run import run
from seqbench.training.fit import batching_of
from seqbench.training.ledger import Progress
from seqbench.training.limits import Meter
from seqbench.training.progress import Event
from tests.seqbench.toy_config import toy_config

PLAIN = {"trainer.accumulate": 1, "encoder.dropout": 0.0, "budget.eval_every": 4}


def made(folder: Path, changes: dict[str, Any], **given: Any) -> Record:
    record = run(toy_config(folder, PLAIN | changes), **given).record
    assert record.status == "finished", record.reason
    return record


def totals(folder: Path, changes: dict[str, Any]) -> list[tuple[int, int]]:
    """(real positions, positions) after each step of some epochs, from the task's own loader."""
    config = toy_config(folder, PLAIN | changes)
    task = build_task(config)
    task.setup()
    loader = task.loader("train", batching=batching_of(config), seed=config.seed, shuffle=True)
    found, real, padded = [], 0, 0
    for _ in range(6):
        for batch in loader:
            real += int(batch.source.mask.sum())
            padded += batch.source.mask.numel()
            found.append((real, padded))
    return found


def test_tokens_end_at_the_first_step_that_reaches_them(tmp_path: Path) -> None:
    real = [r for r, _ in totals(tmp_path, {})]
    for goal, steps in ((real[10], 11), (real[10] + 1, 12)):
        record = made(tmp_path, {"budget.steps": None, "budget.tokens": goal})
        assert record.curves[-1].step == steps
        assert record.cost.train_tokens == real[steps - 1]


def test_operations_end_at_the_step_that_the_record_counts(tmp_path: Path) -> None:
    padded = [p for _, p in totals(tmp_path, {})]
    by_steps = made(tmp_path, {"budget.steps": 9})
    assert by_steps.cost.flops_train is not None
    a_position = by_steps.cost.flops_train / padded[8]
    record = made(tmp_path, {"budget.steps": None, "budget.flops": a_position * (padded[13] - 0.5)})
    assert record.curves[-1].step == 14
    assert record.cost.flops_train == pytest.approx(a_position * padded[13])


def test_counting_before_the_training_leaves_no_trace(tmp_path: Path) -> None:
    constant = {"schedule.kind": "constant", "schedule.warmup": 0.0, "encoder.dropout": 0.2}
    by_steps = made(tmp_path, constant | {"budget.steps": 9})
    assert by_steps.cost.flops_train is not None
    by_flops = made(tmp_path, constant | {"budget.steps": None, "budget.flops": by_steps.cost.flops_train})
    assert by_flops.curves[-1].step == 9
    assert by_flops.curves[-1].values == by_steps.curves[-1].values
    assert by_flops.checkpoint == by_steps.checkpoint


def test_seconds_are_those_of_training(tmp_path: Path) -> None:
    record = made(tmp_path, {"budget.steps": None, "budget.seconds": 0.4, "budget.eval_every": 1000})
    assert record.cost.train_seconds is not None
    assert 0.4 <= record.cost.train_seconds < 0.8
    assert record.curves[-1].values["train/lr"] == pytest.approx(0.03 * 0.05, rel=0.2)  # the schedule's floor


@pytest.mark.parametrize("kind", ["tokens", "flops"])
def test_the_schedule_follows_the_share_that_is_spent(tmp_path: Path, kind: str) -> None:
    linear = {"schedule.kind": "linear", "schedule.warmup": 0.0, "schedule.floor": 0.0, "budget.eval_every": 1}
    whole = totals(tmp_path, {})
    steps = 20
    goal = whole[steps - 1][0]
    if kind == "flops":
        cost = made(tmp_path, {"budget.steps": steps}).cost
        goal = cost.flops_train  # type: ignore[assignment]
    record = made(tmp_path, linear | {"budget.steps": None, f"budget.{kind}": goal})
    assert record.curves[-1].step == steps
    column = 0 if kind == "tokens" else 1
    for point in record.curves[:-1]:
        spent = whole[point.step - 1][column] / whole[steps - 1][column]
        assert point.values["train/lr"] / 0.03 == pytest.approx(1 - spent, abs=0.08)
    assert record.curves[-1].values["train/lr"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("kind", ["tokens", "flops"])
def test_killed_and_resumed_ends_the_same(tmp_path: Path, kind: str) -> None:
    goal: float = totals(tmp_path, {})[14][0]
    if kind == "flops":
        goal = made(tmp_path, {"budget.steps": 15}).cost.flops_train or 0.0
    changes = {"budget.steps": None, f"budget.{kind}": goal, "encoder.dropout": 0.2}

    def stop(event: Event) -> None:
        if event.kind == "step" and event.step == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "cut", changes, watch=stop)
    cut, whole = made(tmp_path / "cut", changes), made(tmp_path / "whole", changes)
    assert cut.resumed == 1
    assert cut.checkpoint == whole.checkpoint
    assert [(p.step, p.tokens, p.values) for p in cut.curves] == [(p.step, p.tokens, p.values) for p in whole.curves]


@pytest.mark.parametrize("kind", ["tokens", "flops", "seconds"])
def test_a_budget_that_is_spent_to_the_last_unit_is_over(kind: str) -> None:
    """Also where a run is taken up again just then: no step more."""
    feed: Any = SimpleNamespace(real=99, padded=200)
    budget = Budget.model_construct(**(dict.fromkeys(("steps", "tokens", "flops", "seconds")) | {kind: 100}))
    meter = Meter(budget=budget, accumulate=2, feed=feed, progress=Progress(), step_tokens=10.0, per_position=0.5)
    meter.progress.train_seconds, feed.padded = 99.0, 198
    assert meter.share() == 0.99
    assert meter.batches_left() > 0
    meter.progress.train_seconds, feed.real, feed.padded = 100.0, 100, 200
    assert meter.share() == 1
    assert meter.batches_left() == 0
    assert meter.steps(7) == 7
    meter.agreed = 50.0  # what the first rank's clock says counts, and not this one's
    assert meter.share() == (0.5 if kind == "seconds" else 1)


def test_exactly_one_end(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"budget\.steps: 20, with tokens 5; keep one, the others null"):
        toy_config(tmp_path, {"budget.tokens": 5})
    with pytest.raises(ConfigError, match=r"budget\.steps: null, .* would never end"):
        toy_config(tmp_path, {"budget.steps": None})
