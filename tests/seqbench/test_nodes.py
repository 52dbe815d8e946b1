"""Nodes in Python are the command line's; what is built of them obeys the same checks."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import initialize_config_dir, version
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import seqbench
from encoders.base import InputSpec
from encoders.recurrent import Recurrent
from seqbench.composition.compose import CONFIGS, compose, config_loader, options
from seqbench.composition.nodes import compose_node, merged, missing_keys
from seqbench.errors import ConfigError
from tasks.classification import Classification

ROOT = CONFIGS.parent
SPEC = InputSpec(max_length=6, vocab_size=9)


@pytest.mark.parametrize(
    "group, name, overrides",
    [
        ("encoder", "lstm", ["encoder.dim=64"]),
        ("encoder", "encoder_only", ["encoder.layer.placement=post", "~encoder.patch", "+encoder.more=[1,x]"]),
        ("encoder", "published/roberta_base", ["encoder.layer.norm.eps=1e-3"]),
        ("task", "listops", ["task.data.train=7"]),
        ("task", "own_regression", ["own_data@task.data=conll", "task.data.train=x.conll"]),
    ],
)
def test_a_node_is_what_the_command_line_composes(group: str, name: str, overrides: list[str]) -> None:
    expected: Any = OmegaConf.to_container(compose(config_loader(), [f"{group}={name}", *overrides])[group])
    assert compose_node(group, name, overrides) == expected
    assert list(compose_node(group, name, overrides)) == list(expected)


def test_what_is_shared_is_no_choice_and_leaves_no_trace() -> None:
    loader = config_loader()
    names = options(loader, "encoder")
    assert {"bert", "published/bert_base"} <= set(names)
    assert not [name for name in names if Path(name).name in options(loader, "block")]
    for name in names:
        node = compose_node("encoder", name)
        assert "defaults" not in node
        assert missing_keys(node) == {"own": ["_target_"], "pretrained": ["path"]}.get(name, [])


def test_changes_merge_into_mappings_and_replace_parts() -> None:
    node = compose_node("encoder", "encoder_only")
    learned = {"_target_": "encoders.blocks.positions.Learned"}
    changed = compose_node("encoder", "encoder_only", changes={"position": learned, "layer": {"norm": {"eps": 1}}})
    assert changed["position"] == learned
    norm = {**node["layer"]["norm"], "eps": 1}
    assert changed["layer"] == {**node["layer"], "norm": norm}
    assert {k: v for k, v in changed.items() if k not in ("position", "layer")} == {
        k: v for k, v in node.items() if k not in ("position", "layer")
    }
    assert merged({"a": {"b": 1}, "c": 2}, {"a": 3, "c": {"d": 4}}) == {"a": 3, "c": {"d": 4}}


def test_a_folder_of_the_users_and_values_that_follow_others(tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    file = tmp_path / "encoder" / "mine.yaml"
    file.write_text("defaults: [/encoder/lstm@_here_, _self_]\ndepth: 1\nwidth: ${.dim}\n")
    mine = compose_node("encoder", "mine", changes={"dim": 12}, config_dir=str(tmp_path))
    assert mine == {
        "_target_": "encoders.recurrent.Recurrent",
        "cell": "lstm",
        "dim": 12,
        "depth": 1,
        "dropout": 0.1,
        "width": 12,
    }
    file.write_text("_target_: x.Y\n")
    assert compose_node("encoder", "mine", config_dir=str(tmp_path)) == {"_target_": "x.Y"}  # read anew
    with pytest.raises(ConfigError, match="encoder=mine: there is no such encoder"):
        compose_node("encoder", "mine")


def test_an_application_that_is_running_is_left_as_it_is(tmp_path: Path) -> None:
    alone = compose_node("encoder", "bert")
    before = version.getbase()
    with initialize_config_dir(str(tmp_path), version_base="1.2"):
        running, base = GlobalHydra.instance().hydra, version.getbase()
        assert compose_node("encoder", "bert") == alone
        with pytest.raises(ConfigError):
            compose_node("encoder", "brt")
        assert GlobalHydra.instance().hydra is running
        assert version.getbase() == base
    compose_node("encoder", "bert")
    assert not GlobalHydra.instance().is_initialized()
    version.VersionBase.instance().version_base = before


def test_threads_compose_at_once() -> None:
    names = ["bert", "lstm", "t5", "gpt2"] * 4
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda name: compose_node("encoder", name), names))
    assert made == [compose_node("encoder", name) for name in names]


@pytest.mark.parametrize(
    "group, name, overrides, said",
    [
        ("encoder", "lstmm", [], "encoder=lstmm: there is no such encoder"),
        ("encoders", "lstm", [], "encoders: there is no such group of configs"),
        ("encoder", "lstm", ["encoder.dmi=3"], r"encoder\.dmi: no such key \(did you mean encoder\.dim\?\)"),
        ("encoder", "lstm", ["encoder.dim"], "'encoder.dim' is not a readable override"),
        ("encoder", "lstm", ["encoder.dim=1,2"], r"encoder\.dim.*-m"),
    ],
)
def test_mistakes_are_said_as_on_the_command_line(group: str, name: str, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose_node(group, name, overrides)


def test_an_encoder_by_its_name() -> None:
    torch.manual_seed(0)
    encoder = seqbench.load_encoder("lstm", SPEC, dim=12)
    torch.manual_seed(0)
    same = Recurrent(cell="lstm", dim=12, depth=2, dropout=0.1, spec=SPEC)
    assert type(encoder) is Recurrent
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), same.parameters(), strict=True))


@pytest.mark.parametrize(
    "name, changes, said",
    [
        ("lstm", {"dmi": 3}, r"encoder\.dmi: no such key"),
        ("lstm", {"dim": 0}, r"encoder\.dim: 0 is not allowed"),
        ("encoder_only", {"layer": {"placement": "in"}}, r"encoder\.layer\.placement: 'in' is not one of"),
        ("encoder_only", {"dim": 30}, "encoder.heads: dim 30 can't be divided by 4"),
        ("pretrained", {}, r"encoder\.path: missing; give it a value"),
        ("lstm", {"_target_": "os.system"}, r"encoder\._target_: os\.system is not in a package"),
        ("lstm", {"_target_": "tasks.metrics.accuracy.Accuracy"}, "is not an Encoder"),
    ],
)
def test_an_encoder_that_can_t_be_is_refused(name: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        seqbench.load_encoder(name, SPEC, **changes)


def test_a_task_by_its_name() -> None:
    task = seqbench.load_task("listops", max_length=40, data={"train": 99, "valid": 3, "test": 3, "max_length": 40})
    assert isinstance(task, Classification)
    task.setup()
    assert len(task.lengths("train")) == 99
    assert task.spec.max_length == 40
    with pytest.raises(ConfigError, match=r"task\.data\.train: missing"):
        seqbench.load_task("own_classification")


def test_the_package_is_light_until_it_is_used() -> None:
    code = (
        "import sys, seqbench\n"
        "assert not {'torch', 'hydra', 'pydantic'} & set(sys.modules)\n"
        "assert seqbench.compose_node('encoder', 'lstm')['dim'] == 128\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
        "assert callable(seqbench.load_task) and not hasattr(seqbench, 'load_tsk')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
