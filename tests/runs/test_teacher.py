"""A run with a teacher: made before it, with the weights of its record, in the id; refused where nobody learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import safetensors.torch
import torch

from encoders.base import Encoder
from seqbench import pretraining
from seqbench.build import build_task
from seqbench.composition.nodes import compose_node
from seqbench.config import RunConfig
from seqbench.errors import ConfigError
from seqbench.records.identity import run_id
from seqbench.records.store import Store
from seqbench.run import run
from seqbench.verify import command as verify
from tasks.base import Task
from tasks.distillation import Distillation
from tests.seqbench.toy_config import TREE, toy_config

SIZES = {"pairs": 3, "symbols": 12, "train": 40, "valid": 8, "test": 8}
SMALL = {"dim": 12, "hidden": 16, "layer": {"attention": {"head_dim": 4}}}
BUDGET = {**TREE["budget"], "steps": 4, "eval_every": 2}
TAUGHT = {
    "encoder": compose_node("encoder", "return_of_encoder", changes=SMALL),
    "task": compose_node("task", "needle_list_taught", changes={"data": SIZES, "max_length": 16, "alpha": 0.9}),
    "budget": BUDGET,
    "allowed": ["encoders", "tasks", "torch.optim"],
    "trainer.accumulate": 1,
}


def config_of(results: Path, changes: dict[str, Any] | None = None, **stage: Any) -> RunConfig:
    teacher = {
        "name": "first",
        "teacher": "wide",
        "encoder": compose_node("encoder", "return_of_encoder_causal", changes={**SMALL, "dim": 24}),
        "task": compose_node("task", "needle_list", changes={"data": SIZES, "max_length": 16}),
        "protocol": {"train": "all"},
        "budget": BUDGET,
        "optimizer": TREE["optimizer"],
        "schedule": TREE["schedule"],
        "seed": None,
        **stage,
    }
    return toy_config(results, {**TAUGHT, "pretrain": teacher, **(changes or {})})


def id_of(config: RunConfig) -> str:
    return run_id(config, build_task(config))


@pytest.mark.slow
def test_the_teacher_is_a_run_of_its_own_whose_weights_teach(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[dict[str, torch.Tensor]] = []
    learn_from = Distillation.learn_from

    def watched(self: Distillation, encoder: Encoder, task: Task) -> None:
        given.append({f"encoder.{k}": v.clone() for k, v in encoder.state_dict().items()})
        given[-1] |= {f"task.{k}": v.clone() for k, v in task.state_dict().items()}
        learn_from(self, encoder, task)

    with mock.patch.object(Distillation, "learn_from", watched):
        record = run(config_of(tmp_path)).record
    assert record.status == "finished", record.reason
    teacher = Store(tmp_path).find(record.parents[0])
    assert teacher is not None
    assert (teacher.encoder.name, teacher.task.name, teacher.config["pretrain"]) == ("wide", "first", None)
    assert teacher.checkpoint is not None
    kept = safetensors.torch.load_file(tmp_path / teacher.id / teacher.checkpoint.path)
    (found,) = given
    assert found.keys() == kept.keys()
    assert all(torch.equal(found[name], value) for name, value in kept.items())
    alone = run(toy_config(tmp_path, {**TAUGHT, "task": {**TAUGHT["task"], "alpha": 0.0}})).record  # type: ignore[dict-item]
    assert alone.cost is not None
    assert record.cost is not None
    assert alone.cost.parameters == record.cost.parameters  # the teacher's are not its own
    assert alone.curves[0].values["train/loss"] != record.curves[0].values["train/loss"]
    assert run(config_of(tmp_path)).skipped
    assert verify.main([f"results={tmp_path}", f"run={record.id}"]) == 0, capsys.readouterr().out


def test_the_id_knows_the_teacher(tmp_path: Path) -> None:
    base = id_of(config_of(tmp_path))
    wider = compose_node("encoder", "return_of_encoder_causal", changes={**SMALL, "dim": 36})
    for stage in ({"encoder": wider}, {"seed": 3}, {"budget": {**BUDGET, "steps": 5}}):
        assert id_of(config_of(tmp_path, **stage)) != base
    assert id_of(config_of(tmp_path, teacher="another")) == base
    same = config_of(tmp_path, encoder=dict(TAUGHT["encoder"]))  # type: ignore[call-overload]
    plain = {"task": {**TAUGHT["task"], "alpha": 0.0}}  # type: ignore[dict-item]
    begins = config_of(tmp_path, plain, teacher=None, encoder={})
    assert pretraining.before(same).encoder == pretraining.before(begins).encoder  # type: ignore[union-attr]
    assert id_of(same) != id_of(begins)


@pytest.mark.parametrize(
    "changes, stage, message",
    [
        (
            {"task": compose_node("task", "needle_list", changes={"data": SIZES})},
            {},
            r"pretrain\.teacher: .* learns from none",
        ),
        ({"pretrain": None}, {}, r"task\.alpha: .* learns from a teacher then; give one"),
        ({}, {"teacher": None, "encoder": {}}, r"task\.alpha: .* learns from a teacher then; give one"),
        ({"trainer.devices": 2}, {}, r"trainer\.devices: a run with pretrain\.teacher is of one device"),
    ],
)
def test_who_does_not_learn_is_told(
    tmp_path: Path, changes: dict[str, Any], stage: dict[str, Any], message: str
) -> None:
    config = config_of(tmp_path, changes, **stage)
    task = build_task(config)
    with pytest.raises(ConfigError, match=message):
        pretraining.check(config, task)


def test_another_vocabulary_is_told(tmp_path: Path) -> None:
    other = compose_node("task", "needle_list", changes={"data": {**SIZES, "symbols": 13}, "max_length": 16})
    with pytest.raises(ConfigError, match=r"pretrain\.teacher: has a vocabulary of"):
        run(config_of(tmp_path, task=other))
