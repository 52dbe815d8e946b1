"""Configs put together from few compositions: those that Hydra composes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf, open_dict

from seqbench.composition.compose import compose, config_loader, names_of, own_loader
from seqbench.composition.compositions import Compositions
from seqbench.config import resolve
from seqbench.errors import ConfigError
from seqbench.studies.study import plan_sweep
from tests.seqbench.toy_cli import Toy


def whole(cfg: DictConfig) -> dict[str, Any]:
    """Hydra's own composition as plain values, without Hydra's part."""
    with open_dict(cfg):
        del cfg["hydra"]
    return resolve(cfg)


# -- compositions --------------------------------------------------------------------------------------------------
def sets_of_overrides() -> list[list[str]]:
    found = [
        [f"encoder={encoder}", f"task={task}", f"seed={seed}", "optimizer.lr=0.5"]
        for encoder in ("lstm", "gru", "encoder_only")
        for task in ("digits", "listops")
        for seed in (0, 1)
    ]
    found += [
        ["encoder=lstm", "task=digits", "+encoder.extra={a:1}"],  # Hydra's own merging
        ["encoder=lstm", "task=digits", "~encoder.dropout"],
        ["encoder=lstm", "task=digits", "task.max_length=${encoder.dim}", "encoder.dim=3"],
        ["optimizer=sgd", "encoder=lstm", "task=digits"],  # other groups, another order
        ["encoder=published/bert_base", "task=digits"],
        ["encoder=lstm", "task=own_classification", "task.data.train=a.csv", "own_data@task.data=files"],
    ]
    return found


def test_what_is_put_together_is_what_hydra_composes() -> None:
    loader = config_loader()
    compositions = Compositions(loader)
    for overrides in sets_of_overrides():
        tree, names = compositions.make(overrides)
        cfg = compose(loader, overrides)
        assert names == names_of(cfg.hydra.runtime.choices), overrides
        assert tree == whole(cfg), overrides


def test_few_compositions_make_many_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = config_loader()
    asked: list[list[str]] = []

    def counted(given: Any, overrides: list[str]) -> Any:
        asked.append(overrides)
        return compose(given, overrides)

    monkeypatch.setattr("seqbench.composition.compositions.compose", counted)
    compositions = Compositions(loader)
    for encoder in ("lstm", "gru", "bilstm", "bag"):
        for task in ("digits", "listops", "scan", "mqar"):
            for seed in range(10):
                compositions.make([f"encoder={encoder}", f"task={task}", f"seed={seed}"])
    assert len(asked) == 1  # the files of the other choices have no defaults


def test_a_file_by_itself_is_what_hydra_composes_of_it() -> None:
    loader = own_loader()
    cfg = compose(loader, ["encoder=encoder_only", "task=digits"])
    assert loader.stands_alone("encoder", "encoder_only")
    assert not loader.stands_alone("encoder", "gru")
    assert loader.plain_file("encoder", "gpt2") is not None
    assert loader.stands_alone("encoder", "encoder_only")  # of the composition, whatever was read since
    files = [("encoder", "tcn"), ("task", "scan"), ("schedule", "constant"), ("logger", "csv")]
    files += [("encoder", "gpt2"), ("encoder", "roberta")]  # with defaults, and defaults of those
    for group, name in files:
        plain = loader.plain_file(group, name)
        cfg = compose(loader, [f"{group}={name}"])
        assert json.dumps(plain) == json.dumps(OmegaConf.to_container(cfg[group], resolve=False)), name
    assert loader.plain_file("task", "own_classification") is None  # an override may choose another of its defaults
    assert loader.plain_file("experiment", "kim_cnn") is None  # another package
    assert loader.plain_file("encoder", "none_such") is None


@pytest.mark.parametrize(
    "defaults",
    [
        "[/encoder/lstm, _self_]",  # below `encoder.encoder`, so somewhere else than the file's own keys
        "[/optimizer/sgd@_global_.optimizer, _self_]",
        "[override /optimizer: sgd, _self_]",
        "[/block: plain, _self_]",
        "['/encoder/${task}@_here_', _self_]",
        "[/encoder/none_such@_here_, _self_]",
    ],
)
def test_a_file_whose_defaults_do_more_takes_a_composition(toy: Toy, defaults: str) -> None:
    toy.write("encoder/more.yaml", f"defaults: {defaults}\n_target_: x.Y\n")
    overrides = ["encoder=more", "task=digits"]
    told: list[Any] = []
    for first in ([], [["encoder=gru", "task=digits"]]):  # composed first, and after one that stands alone
        compositions = Compositions(config_loader(str(toy.configs)))
        for before in first:
            compositions.make(before)
        try:
            told.append(compositions.make(overrides))
        except Exception as error:
            told.append(f"{type(error)}: {error}")
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "text",
    [
        "# @package _global_\nencoder: {depth: 2}\n",  # as lstm has it
        "# @package encoder\ndepth: 2\n",
    ],
)
def test_what_reaches_into_a_choice_reaches_into_all_of_them(toy: Toy, text: str) -> None:
    toy.write("experiment/deep.yaml", text)
    toy.write("encoder/toy_five.yaml", "_target_: x.Y\ndepth: 5\n")
    loader = config_loader(str(toy.configs))
    compositions = Compositions(loader)
    for encoder in ("lstm", "toy_five"):
        overrides = [f"encoder={encoder}", "task=digits", "experiment=deep"]
        tree, _ = compositions.make(overrides)
        assert tree == whole(compose(loader, overrides))
        assert tree["encoder"]["depth"] == 2
    assert not compositions.alone.get("encoder")


@pytest.mark.parametrize("encoder", ["plain", "more"])
def test_a_typed_choice_that_the_first_file_brings_too_is_kept_beside_others(encoder: str, toy: Toy) -> None:
    toy.write("encoder/brings.yaml", "defaults: [sub/s0, _self_]\nx: a\n")
    toy.write("encoder/plain.yaml", "x: b\n")
    toy.write("encoder/more.yaml", "defaults: [plain, _self_]\ny: c\n")
    toy.write("encoder/sub/s0.yaml", "k: 1\n")
    loader = own_loader(str(toy.configs))
    compositions = Compositions(loader)
    compositions.make(["encoder=brings", "task=digits", "+encoder/sub=s0"])
    assert list(compositions.alone) == ["task"]
    overrides = [f"encoder={encoder}", "task=digits", "+encoder/sub=s0"]
    assert compositions.make(overrides)[0] == whole(compose(loader, overrides))
    assert compositions.make(overrides)[0]["encoder"]["sub"] == {"k": 1}


@pytest.mark.parametrize("tasks", ["own_classification,digits", "digits,own_classification"])
def test_a_typed_choice_among_a_file_s_defaults_is_refused_of_files_without_it(tasks: str) -> None:
    words = ["encoder=majority", f"task={tasks}", "own_data@task.data=files", "task.data.train=a.csv"]
    with pytest.raises(ConfigError, match=r"^own_data@task.data: no such key"):
        plan_sweep(words, loader=own_loader())


def test_a_file_that_writes_elsewhere_what_stands_there_anyway_is_composed_whole(toy: Toy) -> None:
    toy.write("encoder/small.yaml", "dim: 8\n")
    toy.write("encoder/large.yaml", "dim: 16\n")
    toy.write("encoder/encoder/digits.yaml", "dim: 1\n")
    toy.write("encoder/encoder/listops.yaml", "dim: 2\n")
    toy.write("encoder/chooses.yaml", "defaults: ['${task}@_here_', _self_]\n")
    toy.write("optimizer/p.yaml", "lr: 1\n")
    toy.write("optimizer/q.yaml", "# @package _global_\noptimizer: {lr: 2}\nencoder: {dim: 8}\n")
    loader = config_loader(str(toy.configs))
    compositions = Compositions(loader)
    compositions.make(["encoder=small", "task=digits", "optimizer=p"])
    for overrides in (
        ["encoder=large", "task=digits", "optimizer=q"],
        ["encoder=chooses", "task=digits", "optimizer=p"],
        ["encoder=chooses", "task=listops", "optimizer=p"],
    ):
        assert compositions.make(overrides)[0] == whole(compose(loader, overrides))


def test_a_choice_with_effects_elsewhere_is_composed_whole(toy: Toy) -> None:
    toy.write("experiment/fast.yaml", "# @package _global_\ndefaults: [override /optimizer: sgd]\nbudget: {steps: 7}\n")
    toy.write("encoder/loud.yaml", "# @package _global_\nencoder: {_target_: x.Y}\nseed: 5\n")
    loader = config_loader(str(toy.configs))
    compositions = Compositions(loader)
    for overrides in (
        ["encoder=lstm", "task=digits"],
        ["encoder=loud", "task=digits"],
        ["encoder=loud", "task=listops", "experiment=fast"],
        ["encoder=lstm", "task=listops", "experiment=fast"],
    ):
        tree, names = compositions.make(overrides)
        cfg = compose(loader, overrides)
        assert names == names_of(cfg.hydra.runtime.choices)
        assert tree == whole(cfg)
    assert tree["budget"]["steps"] == 7
    assert names.optimizer == "sgd"


def test_making_a_config_changes_no_other(toy: Toy) -> None:
    compositions = Compositions(config_loader())
    before = compositions.make(["encoder=lstm", "task=digits"])[0]
    compositions.make(["encoder=lstm", "task=digits", "encoder.dim=3", "task.data={_target_: x}"])
    assert compositions.make(["encoder=lstm", "task=digits"])[0] == before
