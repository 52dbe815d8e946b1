"""Encoders and tasks whose scores hang on batch mates, padding or workers are caught; those that don't pass."""

from __future__ import annotations

import contextlib
import os
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import get_worker_info

from encoders.base import Sequences, States
from seqbench import invariance
from seqbench.build import build_encoder, judge
from seqbench.errors import ConfigError
from seqbench.record import Variation
from seqbench.run import run
from seqbench.training.evaluation import Evaluator
from tasks.loading import Batching
from tests.seqbench.toy import Hits, ToyData, ToyEncoder, ToyTask
from tests.seqbench.toy_config import toy_config


class PaddingLeak(ToyEncoder):
    """States see the mean over all positions, padding among them."""

    def forward(self, source: Sequences) -> States:
        states = super().forward(source)
        return replace(states, values=states.values + states.values.mean(1, keepdim=True))


class BatchStatistics(ToyEncoder):
    """States are normalised over the rows of the batch, in evaluation too."""

    def forward(self, source: Sequences) -> States:
        states = super().forward(source)
        return replace(states, values=states.values - 0.5 * states.values.mean((0, 1), keepdim=True))


class Restless(ToyEncoder):
    """Dropout that is never off."""

    def forward(self, source: Sequences) -> States:
        states = super().forward(source)
        return replace(states, values=F.dropout(states.values, 0.5, training=True))


class NeverAlone(ToyEncoder):
    """Fails on a batch of one row."""

    def forward(self, source: Sequences) -> States:
        if len(source.values) == 1:
            raise RuntimeError("expected more than 1 value")
        return super().forward(source)


class Balanced(ToyEncoder):
    """An auxiliary loss over the rows of the batch, which is no leak."""

    def forward(self, source: Sequences) -> States:
        states = super().forward(source)
        return replace(states, losses={"balance": states.values.std()})


class DrawingTask(ToyTask):
    """Batches with noise from the global generator, which worker processes seed in their own way."""

    def collate(self, split: str, rows: Any) -> Any:
        batch = super().collate(split, rows)
        noise = torch.randint(2, batch.source.values.shape)
        return replace(batch, source=replace(batch.source, values=(batch.source.values + noise) % 8))


class WorkerTask(ToyTask):
    """Batches that are others in worker processes."""

    def collate(self, split: str, rows: Any) -> Any:
        batch = super().collate(split, rows)
        if get_worker_info() is None:
            return batch
        return replace(batch, source=replace(batch.source, values=7 - batch.source.values))


class EqualData(ToyData):
    """Rows of one length."""

    def read(self, split: str) -> Any:
        return [replace(e, source=np.resize(e.source, 5)) for e in super().read(split)]


def checked(
    encoder: type[ToyEncoder], task: type[ToyTask] = ToyTask, data: type[ToyData] = ToyData, **changes: Any
) -> dict[str, Variation]:
    """An untrained toy checked against its own predictions."""
    made = task(data=data(rows=60, seed=1), metrics=[Hits()], max_length=8)
    made.setup()
    torch.manual_seed(0)
    built = encoder(dim=8, dropout=0.3, spec=made.spec)
    made.attach(built)
    evaluator = Evaluator(
        task=made,
        encoder=built,
        batching=Batching(tokens=40),
        device=torch.device("cpu"),
        precision=contextlib.nullcontext,
        workers=0,
        seed=3,
    )
    options = {"rows": 16, "precision": "32-true", "seconds": 1000.0, **changes}
    return invariance.check(evaluator, evaluator.run("test").predictions, **options)


def moved(found: dict[str, Variation]) -> set[str]:
    return {name for name, variation in found.items() if variation.verdict == "moved"}


@pytest.mark.parametrize("encoder", [ToyEncoder, Balanced])
def test_what_does_not_leak_is_the_same(encoder: type[ToyEncoder]) -> None:
    found = checked(encoder)
    assert list(found) == ["workers_0", "workers_2", "batch_1", "padding"]
    assert {variation.verdict for variation in found.values()} == {"same"}
    assert all(variation.rows >= 14 and variation.moved == 0 for variation in found.values())
    for name in ("workers_2", "batch_1", "padding"):
        assert found[name].loss_difference is not None
        assert found[name].loss_difference < 1e-5  # type: ignore[operator]


@pytest.mark.parametrize(
    "encoder, task, caught",
    [
        (PaddingLeak, ToyTask, {"batch_1", "padding"}),
        (BatchStatistics, ToyTask, {"batch_1", "padding"}),
        (Restless, ToyTask, {"batch_1", "padding"}),
        (ToyEncoder, WorkerTask, {"workers_2"}),
        (ToyEncoder, DrawingTask, {"workers_2", "batch_1", "padding"}),
    ],
)
def test_what_leaks_is_caught(encoder: type[ToyEncoder], task: type[ToyTask], caught: set[str]) -> None:
    found = checked(encoder, task)
    assert moved(found) >= caught
    assert all(found[name].reason for name in caught)
    if task is not DrawingTask and encoder is not Restless:
        assert moved(found) <= caught | ({"workers_0", "workers_2"} if encoder is BatchStatistics else set())


def test_a_row_that_can_not_be_read_alone_is_a_finding() -> None:
    found = checked(NeverAlone)
    assert found["batch_1"].verdict == "failed"
    assert found["batch_1"].reason == "RuntimeError: expected more than 1 value"
    assert found["workers_0"].verdict == "same"


def test_torchs_advice_on_workers_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one core torch warns that two workers are many; warnings are errors here, and would be a finding."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert checked(ToyEncoder)["workers_2"].verdict == "same"
    with pytest.warns(UserWarning, match="something else"), invariance._without_advice():
        warnings.warn("something else", UserWarning, stacklevel=1)


def test_rows_of_one_length_have_no_padding() -> None:
    assert checked(ToyEncoder, data=EqualData)["padding"].verdict == "not_applicable"


def test_time_is_bounded_and_a_cut_check_still_compares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invariance, "LEAST", 0.0)
    for encoder, verdict in ((ToyEncoder, "same"), (PaddingLeak, "moved")):
        found = checked(encoder, seconds=0.0)
        assert found["batch_1"].rows == 1
        assert found["padding"].verdict in (verdict, "not_applicable")


def test_how_far_predictions_are_apart() -> None:
    inf = float("inf")
    assert invariance.apart("a", "a") == 0
    assert invariance.apart("a", "b") == inf
    assert invariance.apart(["a", 1], ["a", 1]) == 0
    assert invariance.apart([1.0], [1.0, 2.0]) == inf
    assert invariance.apart({"rank": 1, "score": 2.0}, {"rank": 1, "score": 2.2}) == pytest.approx(0.1)
    assert invariance.apart(1.0, 1.001) == pytest.approx(1e-3)
    assert invariance.apart(0.0, 1e-4) == pytest.approx(1e-3), "relative to a tenth at least"
    assert invariance.apart(float("nan"), float("nan")) == 0
    assert invariance.apart(1.0, float("nan")) == invariance.HUGE
    one = np.array([1.0, 2.0], dtype=np.float32)
    assert invariance.apart(one, one + np.float32(0.5)) == pytest.approx(0.5)
    assert invariance.apart(torch.tensor([1.0]), torch.tensor([1.0])) == 0
    assert invariance.apart(np.array([1, 2]), np.array([1, 3])) == inf


@pytest.mark.parametrize("factor, moved, verdict", [(1.9, 14, "moved"), (1 + 1e-6, 0, "same")])
def test_a_predicted_number_that_moves_is_counted(factor: float, moved: int, verdict: str) -> None:
    """A difference below 1 and above the tolerance, in numbers alone: no class flips, no loss is another."""

    class Evaluator:
        def over(self, *_: Any, **__: Any) -> Any:
            again = dict.fromkeys(range(14), 2.0 * factor)
            return SimpleNamespace(predictions=again, losses=[(1.0, 14)], seconds=0.1)

    comparison = invariance._Comparison(
        evaluator=Evaluator(),  # type: ignore[arg-type]
        predictions=dict.fromkeys(range(14), 2.0),
        tolerance=invariance.TOLERANCE,
        seconds=1.0,
    )
    found, _ = comparison.of([np.arange(14)], expected=[(1.0, 14)])
    assert (found.moved, found.flipped, found.verdict) == (moved, 0, verdict)
    assert found.largest_difference == pytest.approx(factor - 1)


def test_tolerance_follows_precision() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    values = [invariance.tolerance_of(d, p) for d, p in ((cpu, "32-true"), (cuda, "32-true"), (cpu, "bf16-mixed"))]
    assert values == sorted(values)
    assert len(set(values)) == 3


def test_the_record_has_it_and_scores_stay(tmp_path: Path) -> None:
    plain = run(toy_config(tmp_path / "plain")).record
    record = run(toy_config(tmp_path / "checked", {"trainer.invariance_rows": 8})).record
    assert plain.invariance == {}
    assert {v.verdict for v in record.invariance.values()} == {"same"}
    assert 0 < record.invariance["workers_2"].rows <= 8, "a busy machine may break off"
    assert (record.id, record.scores, record.predictions) == (plain.id, plain.scores, plain.predictions)
    assert record.checkpoint == plain.checkpoint


SMALLER = {"cue_and_discs": ["task.data.train=4", "task.data.valid=2", "task.data.test=6"]}


@pytest.mark.slow
def test_all_configured_encoders_pass() -> None:
    """Each encoder in the first of these tasks that it can be with, untrained."""
    from seqbench.build import build_task
    from seqbench.composition.compose import CONFIGS, compose, names_of, own_loader
    from seqbench.config import RunConfig, check_config, resolve

    def config(*overrides: str) -> RunConfig:
        composed = compose(own_loader(), list(overrides))
        names = names_of(composed.hydra.runtime.choices)
        tree = {key: composed[key] for key in composed if key != "hydra"}
        from omegaconf import OmegaConf

        return check_config(resolve(OmegaConf.create(tree)), names, [])

    tasks = {}
    for name in ("listops", "digits", "waves", "cue_and_discs"):
        tasks[name] = build_task(config("encoder=bag", f"task={name}", *SMALLER.get(name, [])))
        tasks[name].setup()
    left = []
    for encoder in sorted(path.stem for path in (CONFIGS / "encoder").glob("*.yaml")):
        for name, task in tasks.items():
            try:
                chosen = config(f"encoder={encoder}", f"task={name}", *SMALLER.get(name, []))
                torch.manual_seed(1)
                built = build_encoder(chosen, task.spec)
                judge(built, task, task.spec, encoder_name=encoder, task_name=name)
            except ConfigError:
                continue
            if built.family == "trivial":
                break
            task.attach(built)
            evaluator = Evaluator(
                task=task,
                encoder=built,
                batching=Batching(tokens=4096),
                device=torch.device("cpu"),
                precision=contextlib.nullcontext,
                workers=0,
                seed=1,
            )
            rows = np.array([*invariance.sample_rows(len(task.lengths("test")), 4), int(task.lengths("test").argmax())])
            own = evaluator.over("test", [rows], workers=0).predictions
            found = invariance.check(evaluator, own, rows=4, precision="32-true", seconds=1000.0)
            assert {v.verdict for v in found.values()} <= {"same", "not_applicable"}, (encoder, found)
            break
        else:
            left.append(encoder)
    # rules of regression, and what reads molecules with a profile, or skeletons: of real data alone
    assert set(left) <= {"own", "pretrained", "biases", "source_mean", "mca", "skeletonmae"}, left
