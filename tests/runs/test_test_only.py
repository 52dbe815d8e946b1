"""Runs that differ in what their test alone reads: one training, whose weights are those that each would have had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seqbench import pretraining
from seqbench.composition.nodes import compose_node
from seqbench.config import RunConfig
from seqbench.record import Record
from seqbench.records.store import Store
from seqbench.run import run
from seqbench.verify import command as verify
from tests.seqbench.toy_config import toy_config

TASK = {
    "_target_": "tasks.classification.Classification",
    "data": {
        "_target_": "tasks.data.prefix.Prefix",
        "share": 1.0,
        "of": "source",
        "limit": None,
        "data": {"_target_": "tasks.data.digits.Digits"},
    },
    "tokenizer": None,
    "max_length": 64,
    "readout": "mean",
    "label_smoothing": 0.0,
    "metrics": [{"_target_": "tasks.metrics.accuracy.Accuracy"}],
}
CHANGES = {
    "encoder": {"_target_": "encoders.tcn.TCN", "dim": 6, "depth": 1, "kernel_size": 3, "dropout": 0.1},
    "task": TASK,
    "budget.steps": 6,
    "budget.eval_every": 3,
    "allowed": ["encoders", "tasks", "torch.optim"],
    "logger": {},
}


def config_of(results: Path, share: float, **changes: Any) -> RunConfig:
    task = {**TASK, "data": {**TASK["data"], "share": share}}  # type: ignore[dict-item]
    return toy_config(results, {**CHANGES, "task": task, **changes})


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """A results folder, and the record of a run that tests half of each image."""
    results = tmp_path_factory.mktemp("results")
    return results, run(config_of(results, 0.5)).record


def test_it_takes_the_weights_of_the_run_that_trains(half: tuple[Path, Record]) -> None:
    results, record = half
    assert record.status == "finished"
    (parent,) = record.parents
    whole = run(config_of(results, 1.0))
    assert whole.skipped  # made for it, and an ordinary run
    assert (whole.record.id, whole.record.parents) == (parent, [])
    assert record.id != parent
    assert record.checkpoint is not None
    assert whole.record.checkpoint is not None
    assert record.checkpoint.sha256 == whole.record.checkpoint.sha256
    assert record.cost is not None
    assert (record.cost.train_seconds, record.cost.train_tokens, record.cost.flops_train) == (0, 0, 0)
    assert not record.curves
    assert record.scores["valid"] == whole.record.scores["valid"]
    assert record.splits["test"].positions * 2 == whole.record.splits["test"].positions
    assert record.splits["train"] == whole.record.splits["train"]


@pytest.mark.slow
def test_an_encoder_that_evaluation_runs_in_another_way_takes_the_weights_too(tmp_path: Path) -> None:
    """Its training is that of the first value, whose id it has as a parent; counted operations are its own."""
    encoder = compose_node("encoder", "latency_adjustable", changes={"dim": 8, "hidden": 16, "heads": 2, "depth": 2})
    task = {**TASK, "data": {"_target_": "tasks.data.digits.Digits"}, "readout": "first"}
    changes = {**CHANGES, "task": task, "budget.select": "last", "trainer.invariance_rows": 0}
    fast, whole = (
        run(toy_config(tmp_path, {**changes, "encoder": {**encoder, "speed_up": wanted}})).record
        for wanted in (1.8, 1.0)
    )
    assert (fast.status, fast.reason) == ("finished", None)
    assert fast.parents == [whole.id]
    assert whole.parents == []
    assert fast.checkpoint is not None
    assert whole.checkpoint is not None
    assert fast.checkpoint.sha256 == whole.checkpoint.sha256
    assert fast.cost.train_seconds == 0
    assert fast.cost.flops_forward is not None
    assert whole.cost.flops_forward is not None
    assert 1.7 < whole.cost.flops_forward / fast.cost.flops_forward < 2.0


def test_its_scores_are_those_of_a_training_of_its_own(
    half: tuple[Path, Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in `test_only` is read by no training: without the short cut the same bits come out."""
    monkeypatch.setattr(pretraining, "trainer_of", lambda config: None)
    alone = run(config_of(tmp_path, 0.5)).record
    assert alone.id == half[1].id
    assert alone.parents == []
    assert alone.curves
    assert alone.scores == half[1].scores
    assert alone.checkpoint is not None
    assert half[1].checkpoint is not None
    assert alone.checkpoint.sha256 == half[1].checkpoint.sha256


def test_it_is_verified(half: tuple[Path, Record], capsys: pytest.CaptureFixture[str]) -> None:
    results, record = half
    assert verify.main([f"run={record.id}", f"results={results}"]) == 0, capsys.readouterr()


def test_a_run_that_trains_for_itself(tmp_path: Path) -> None:
    assert pretraining.trainer_of(config_of(tmp_path, 1.0)) is None
    assert pretraining.trainer_of(config_of(tmp_path, 0.5)) is not None
    assert pretraining.trainer_of(config_of(tmp_path, 0.5, **{"trainer.devices": 2})) is None
    space = {"optimizer.lr": {"low": 0.001, "high": 0.01}}
    tune = {"trials": 2, "sampler": "random", "seed": 0, "space": space}
    assert pretraining.trainer_of(config_of(tmp_path, 0.5, tune=tune)) is None


@pytest.mark.parametrize("rerun, trains", [("never", "never"), ("failed", "failed"), ("always", "never")])
def test_the_run_that_trains_is_tried_again_where_it_failed_and_made_anew_never(rerun: str, trains: str) -> None:
    """`always` is of the run that was asked for: else each share of a sweep would train for itself."""
    trainer = pretraining.trainer_of(config_of(Path("results"), 0.5, rerun=rerun))
    assert trainer is not None
    assert trainer.rerun == trains


def test_a_failure_of_the_training_is_told(tmp_path: Path) -> None:
    """The run that trains has a record of what went wrong; this one says which."""
    config = config_of(tmp_path, 0.5, **{"trainer.time_limit": 1e-3})
    record = run(config).record
    assert record.status == "timed_out"
    assert record.reason is not None
    (parent,) = record.parents
    assert parent in record.reason
    trained = Store(tmp_path).find(parent)
    assert trained is not None
    assert trained.status == "timed_out"
