"""The typed config of a run: every key is checked, every combination that can't be is named."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from seqbench.composition.nodes import compose_node
from seqbench.config import RunConfig, check_config, load_config
from seqbench.errors import ConfigError
from tests.seqbench.toy_config import NAMES, TREE, toy_config

ROOT = Path(__file__).resolve().parents[2]


def wrong(key: str, value: Any, *, whole: bool = False) -> str:
    tree = copy.deepcopy(TREE) | {"results": "results"}
    *sections, last = key.split(".")
    node = tree
    for section in sections:
        node = node[section]
    node[last] = value
    with pytest.raises(ConfigError) as caught:
        check_config(tree, NAMES, [], allowed=tree["allowed"])
    return str(caught.value) if whole else str(caught.value).splitlines()[0]


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("seed", "yes", "seed: 'yes' is not a whole number"),
        ("seed", True, "seed: true is not a whole number"),
        ("seed", -1, "seed: -1 is not allowed; should be greater than or equal to 0"),
        ("seed", 2**32, "seed: 4294967296 is not allowed; should be less than 4294967296"),
        ("label", 3, "label: 3 is not a text; quote it"),
        ("deterministic", "yes", "deterministic: 'yes' is not true or false"),
        ("rerun", "alway", "rerun: 'alway' is not one of never, failed, always (did you mean always?)"),
        ("budgt", 3, "budgt: no such key (did you mean budget?)"),
        ("budget.stps", 3, "budget.stps: no such key (did you mean steps?)"),
        ("budget.steps", 0, "budget.steps: 0 is not allowed; should be greater than or equal to 1"),
        ("budget.steps", 1e3, "budget.steps: 1000.0 is not a whole number; write 1000"),
        ("budget.batch_tokens", 64, "budget.batch_size: 8, with batch_tokens 64; set one of the two"),
        ("budget.batch_size", None, "budget.batch_size: null, with batch_tokens null; set one of the two"),
        ("budget.eval_every", None, "budget.select: best, with eval_every null"),
        ("budget.select", "bset", "budget.select: 'bset' is not one of best, last (did you mean best?)"),
        ("protocol.train", "everything", "protocol.train: 'everything' is not one of all, head"),
        ("schedule.kind", "cosin", "schedule.kind: 'cosin' is not one of cosine"),
        ("schedule.warmup", 100, "schedule.warmup: 100 is not allowed; should be less than or equal to 1"),
        ("trainer.accelerator", "tpu", "trainer.accelerator: 'tpu' is not one of auto, cpu, gpu"),
        ("trainer.precision", "bf16", "trainer.precision: 'bf16' is not one of 32-true, 16-mixed, bf16-mixed"),
        ("trainer.precision", "16-mixed", "trainer.precision: 16-mixed does not train on a CPU"),
        ("trainer.devices", "two", "trainer.devices: 'two' is not a whole number nor one of auto"),
        ("trainer.accumulate", 3, "trainer.accumulate: 3 equal parts can't be made of budget.batch_size, 8"),
        ("trainer.clip", 0, "trainer.clip: 0 is not allowed; should be greater than 0"),
        ("trainer.workers", -1, "trainer.workers: -1 is not allowed"),
        ("logger.cvs", {}, "logger.cvs: no such key (did you mean csv?)"),
        ("logger.wandb", {"every": 3}, "logger.wandb.project: missing"),
        ("allowed", "encoders", "allowed: 'encoders' is not a list"),
        ("encoder", "lstm", "encoder: 'lstm' is no node; it needs a _target_"),
        ("encoder.dim", "abc", "encoder.dim: 'abc' is not a whole number"),
        ("encoder.dpout", 1, "encoder.dpout: no such key (did you mean dropout?)"),
        ("task.data.rows", 0, "task.data.rows: 0 is not allowed; should be greater than 0"),
        ("task.metrics", [], "task.metrics"),
        ("optimizer.lr", "high", "optimizer.lr: 'high' is not a number"),
        ("optimizer._target_", "torch.optim.AdmW", "optimizer._target_: torch.optim has no AdmW"),
        (
            "optimizer._target_",
            "torch.optim.lr_scheduler.StepLR",
            "optimizer._target_: torch.optim.lr_scheduler.StepLR",
        ),
    ],
)
def test_a_wrong_value_is_named(key: str, value: Any, expected: str) -> None:
    if key == "task.metrics":  # an empty list is the task's own business, at construction
        from seqbench.build import build_task

        with pytest.raises(ConfigError, match=r"task\.metrics: a task needs at least one"):
            build_task(toy_config(Path("results"), {key: value}))
        return
    assert wrong(key, value).startswith(expected)


def test_mistakes_of_all_sections_are_counted() -> None:
    text = wrong("budget", {"steps": "x"}, whole=True)
    assert len(text.splitlines()) == 3
    assert text.endswith("and 6 more mistakes")


def test_a_missing_value_and_a_dead_reference() -> None:
    cfg = OmegaConf.create(copy.deepcopy(TREE) | {"results": "r"})
    cfg.optimizer.lr = "???"
    with pytest.raises(ConfigError, match=r"optimizer.lr: missing; give it a value"):
        load_config(cfg, NAMES, [])
    cfg.optimizer.lr = "${nowhere}"
    with pytest.raises(ConfigError, match=r"optimizer.lr: .*'nowhere' not found"):
        load_config(cfg, NAMES, [])


def test_references_are_resolved_and_a_study_is_left_out() -> None:
    cfg = OmegaConf.create(copy.deepcopy(TREE) | {"results": "r", "study": {"name": "x"}, "experiment": None})
    cfg.task.data.seed = "${seed}"
    config = load_config(cfg, NAMES, ["seed=0"])
    assert config.task["data"]["seed"] == 0
    assert config.overrides == ["seed=0"]
    assert set(config.resolved()) == set(RunConfig.model_fields) - {"names", "overrides"}


def test_a_target_typed_anew_forgets_the_keys_that_it_lacks() -> None:
    tree = copy.deepcopy(TREE) | {"results": "r"}
    tree["encoder"] = {"_target_": "tests.seqbench.toy.ToyEncoder", "dim": 4, "dropout": 0.0, "heads": 3}
    with pytest.raises(ConfigError, match=r"encoder\.heads: no such key"):
        check_config(tree, NAMES, [], allowed=tree["allowed"])
    typed = ["encoder._target_=tests.seqbench.toy.ToyEncoder"]
    assert set(check_config(tree, NAMES, typed, allowed=tree["allowed"]).encoder) == {"_target_", "dim", "dropout"}
    with pytest.raises(ConfigError, match=r"encoder\.heads: no such key"):  # but not a key that was typed, too
        check_config(tree, NAMES, [*typed, "+encoder.heads=3"], allowed=tree["allowed"])


def test_so_does_a_part_whose_target_is_typed_anew() -> None:
    tree = copy.deepcopy(TREE) | {"results": "r"}
    tree["allowed"] = [*tree["allowed"], "encoders"]
    tree["encoder"] = compose_node("encoder", "encoder_only")
    before = copy.deepcopy(tree)
    typed = ["encoder.position._target_=encoders.blocks.positions.Learned"]
    tree["encoder"]["position"]["_target_"] = "encoders.blocks.positions.Learned"
    with pytest.raises(ConfigError, match=r"encoder\.position\.base: no such key"):
        check_config(tree, NAMES, [], allowed=tree["allowed"])
    found = check_config(tree, NAMES, typed, allowed=tree["allowed"]).encoder
    assert found["position"] == {"_target_": "encoders.blocks.positions.Learned"}
    assert {**found, "position": before["encoder"]["position"]} == before["encoder"]
    assert tree["encoder"]["position"]["base"] == 10000.0  # what was given stays as it was
    with pytest.raises(ConfigError, match=r"encoder\.position\.base: no such key"):
        check_config(tree, NAMES, [*typed, "encoder.position.base=5"], allowed=tree["allowed"])


def test_resolved_is_plain_json() -> None:
    import json

    resolved = toy_config(Path("results")).resolved()
    assert json.loads(json.dumps(resolved)) == resolved
