"""Plans of many cells: what each of them is by itself, by few compositions and few looks at the same node."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import OmegaConf

from seqbench import build, config
from seqbench.build import build_task, outlined
from seqbench.composition import compositions, guard
from seqbench.composition.compose import CONFIGS, compose, config_loader, names_of, own_loader
from seqbench.composition.nodes import compose_node
from seqbench.errors import ConfigError
from seqbench.meta import ELEMENTWISE, OnMeta
from seqbench.records import identity
from seqbench.studies import study
from seqbench.studies.study import plan, plan_sweep
from tests.seqbench.toy_cli import Toy
from tests.seqbench.toy_config import TREE

SWEEP = [
    "encoder=lstm,encoder_only,majority",
    "task=scan,digits,listops",
    "optimizer.lr=0.001,0.01",
    "seed=0,1,2",
    "budget.steps=20",
]


def alone(overrides: list[str], name: str | None) -> tuple[str, config.RunConfig]:
    """Id and config of a cell that Hydra composes whole and that is checked by itself, nothing shared with others."""
    cfg = compose(own_loader(), overrides)
    names = names_of(cfg.hydra.runtime.choices).model_copy(update={"study": name})
    bare = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    made = config.load_config(bare, names, overrides)
    return identity.run_id(made, build_task(made)), made


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, "quickstart", "families"])
def test_a_cell_of_a_plan_is_what_it_is_by_itself(name: str | None) -> None:
    made = plan_sweep(SWEEP) if name is None else plan(name)
    cells = made.cells if name is None else made.cells[:: max(1, len(made.cells) // 12)]
    assert len(cells) >= 12
    for cell in cells:
        this, own = alone(cell.overrides, name)
        assert (cell.id, cell.config.resolved()) == (this, own.resolved())
        assert cell.config.names == own.names


def test_work_grows_with_what_differs_and_not_with_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compositions, reads of files, looks at nodes and JSON of ids: as many for 10 seeds and 5 rates as for one."""

    def counted(*more: str) -> dict[str, int]:
        counts = dict.fromkeys(("compositions", "files", "looks", "json"), 0)

        def counting(name: str, function: Any) -> Any:
            def call(*args: Any, **keys: Any) -> Any:
                counts[name] += 1
                return function(*args, **keys)

            return call

        loader = own_loader()
        with monkeypatch.context() as patch:
            patch.setattr(compositions, "compose", counting("compositions", compose))
            patch.setattr(loader.repository, "load_config", counting("files", loader.repository.load_config))
            patch.setattr(study, "examine", counting("looks", config.examine))
            patch.setattr(identity, "_canonical", counting("json", identity._canonical))
            made = plan_sweep(["encoder=lstm,gru", "task=scan,digits", *more], loader=loader)
        counts["cells"] = len(made.cells)
        return counts

    seeds = ",".join(map(str, range(10)))
    few, many = counted("seed=0", "optimizer.lr=0.001"), counted(f"seed={seeds}", "optimizer.lr=0.001")
    assert (few.pop("cells"), many.pop("cells")) == (4, 40)
    assert few == many
    assert few["compositions"] <= 3
    rates = counted("seed=0", "optimizer.lr=0.001,0.002,0.003,0.004,0.005")
    assert (rates["cells"], rates["compositions"], rates["files"]) == (20, few["compositions"], few["files"])
    assert rates["looks"] == few["looks"] + 4  # each further optimizer


def test_nodes_are_looked_at_together_where_they_are_equal_alone() -> None:
    """Numbers that Python takes for equal are other values in a config; what is wrong is said of each row."""
    node = compose_node("encoder", "lstm")
    look = study._remembering()
    for changes in ({}, {"dim": 1}, {"dim": 1.0}, {"dim": True}, {"dropout": 0}, {"dropout": 0.0}, {"dim": {1, 2}}):
        for allowed in (["encoders"], ["tasks"]):
            changed = {**node, **changes}
            expected = config.examine(changed, "encoder", allowed)
            assert repr(look(changed, "encoder", allowed)) == repr(expected)
            look(changed, "encoder", allowed)[1].append("of one row")
            assert repr(look({**changed}, "encoder", allowed)) == repr(expected)
    assert look({**node}, "encoder", ["encoders"])[0] is look(node, "encoder", ["encoders"])[0]


def test_nodes_are_looked_at_apart_by_what_is_asked_of_them() -> None:
    """Equal nodes at another place, of another kind, or made with other arguments, have other mistakes."""
    node = {**compose_node("encoder", "lstm"), "none_such": 1}
    look = study._remembering()
    asked: list[tuple[str, dict[str, Any]]] = [
        ("encoder", {}),
        ("pretrain.encoder", {}),
        ("encoder", {"kind": "tasks.base.Task"}),
        ("encoder", {"runtime": ("dim",)}),
    ]
    expected = [repr(config.examine(node, path, ["encoders"], **more)) for path, more in asked]
    assert len(set(expected)) == len(asked)
    assert [repr(look(node, path, ["encoders"], **more)) for path, more in asked] == expected


@pytest.mark.parametrize("values", ["false,true", "true,false"])
def test_a_pair_that_cannot_be_without_padding_is_left_out_with_that_setting_alone(values: str) -> None:
    words = ["encoder=gru", "task=digits"]
    made = plan_sweep([*words, f"trainer.padding_free={values}"])
    assert [cell.id for cell in made.cells] == [cell.id for cell in plan_sweep(words).cells]
    assert [cell.config.trainer.padding_free for cell in made.cells] == [False]
    (out,) = made.left_out
    assert (out.encoder, out.task) == ("gru", "digits")
    assert out.reason.startswith("trainer.padding_free: true, but encoder gru")
    with pytest.raises(ConfigError, match=r"^trainer.padding_free: true, but encoder gru"):
        plan_sweep([*words, "trainer.padding_free=true"])


def test_a_pair_that_cannot_be_is_told_by_each_of_its_names(toy: Toy) -> None:
    node = dict(compose_node("encoder", "bilstm"))
    for name in ("one", "other"):
        toy.write(f"encoder/{name}.yaml", node)
    made = plan_sweep(["encoder=one,other", "task=scan,digits"], loader=config_loader(str(toy.configs)))
    assert [(out.encoder, out.task) for out in made.left_out] == [("one", "scan"), ("other", "scan")]


def test_an_encoder_is_built_once_for_tasks_that_feed_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []

    def counting(config: Any, spec: Any) -> Any:
        built.append(spec)
        return outlined(config, spec)

    monkeypatch.setattr(build, "outlined", counting)
    made = plan_sweep(["encoder=bilstm,encoder_decoder", "task=sst2,mr,atis_slots,tinyshakespeare,scan,scan_jump"])
    assert len(built) == 2 * 3
    assert len({str(spec) for spec in built}) == 3
    assert {(out.encoder, out.task, out.reason) for out in made.left_out} == {
        ("bilstm", "scan", "needs a Decoder"),
        ("bilstm", "scan_jump", "needs a Decoder"),
        ("encoder_decoder", "tinyshakespeare", "needs a causal encoder"),
        ("bilstm", "tinyshakespeare", "needs a causal encoder"),
    }


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_a_plan_of_several_processes_is_that_of_one(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["encoder=bilstm,encoder_decoder,lstm", "task=sst2,tinyshakespeare,scan", "seed=0,1"]
    alone = plan_sweep(words)
    monkeypatch.setattr(study, "workers", lambda parts: processes)
    shared = plan_sweep(words)
    assert [cell.id for cell in shared.cells] == [cell.id for cell in alone.cells]
    assert shared.left_out == alone.left_out
    assert len(alone.left_out) == 3
    with pytest.raises(ConfigError) as told:
        plan_sweep(["encoder=lstm,encoder_only", "encoder.dim=0", "task=sst2,mr"])
    monkeypatch.undo()
    with pytest.raises(ConfigError) as by_one:
        plan_sweep(["encoder=lstm,encoder_only", "encoder.dim=0", "task=sst2,mr"])
    assert str(told.value) == str(by_one.value)


@pytest.mark.parametrize("encoder", ["tcn", "s4d", "bigru", "encoder_decoder", "cnn"])
def test_an_outline_has_the_shapes_of_what_is_built(encoder: str) -> None:
    made = plan_sweep([f"encoder={encoder}", "task=sst2"]).cells[0].config
    spec = build_task(made).outline()
    outline, real = outlined(made, spec), build.build_encoder(made, spec)
    assert {n: p.shape for n, p in outline.named_parameters()} == {n: p.shape for n, p in real.named_parameters()}
    assert {n: b.shape for n, b in outline.named_buffers()} == {n: b.shape for n, b in real.named_buffers()}
    assert all(parameter.is_meta for parameter in outline.parameters())


def test_files_are_kept_for_one_plan_alone(tmp_path: Path) -> None:
    """A file that is edited between two plans of one loader counts in the second."""
    (tmp_path / "encoder").mkdir()
    file = tmp_path / "encoder" / "mine.yaml"
    dims = []
    loader = own_loader(str(tmp_path))
    for dim in (8, 16):
        file.write_text(f"_target_: encoders.recurrent.Recurrent\ndefaults: [/encoder/lstm@_here_]\ndim: {dim}\n")
        made = plan_sweep(["encoder=mine", "task=scan", "seed=0,1"], loader=loader)
        dims.append({cell.config.encoder["dim"] for cell in made.cells})
    assert dims == [{8}, {16}]


def test_a_composition_is_not_changed_by_those_before_it() -> None:
    loader = own_loader()
    asked = [
        ["encoder=lstm", "task=scan"],
        ["encoder=gru", "+encoder.more=1", "task=scan"],
        ["encoder=lstm", "task=scan"],
    ]
    fresh = [compose(own_loader(), each) for each in asked]
    with loader.keeping_files():
        assert [compose(loader, each) for each in asked] == fresh
    assert isinstance(loader, guard.GuardedLoader)
    assert loader._kept is None


@pytest.mark.parametrize("title", ["Plain", "${task.max_length} positions", "'???'"])
@pytest.mark.parametrize("more", [[], ["experiment=adds"], ["task=digits"]])
def test_a_study_says_the_same_whatever_was_composed_before(title: str, more: list[str], toy: Toy) -> None:
    toy.write("study/toy.yaml", f"name: toy\ntitle: {title}\ngrid: [{{encoder: toy, task: toy}}]\n")
    toy.write("experiment/adds.yaml", "# @package _global_\nstudy: {description: of the experiment}\n")
    loader = own_loader(str(toy.configs))
    fresh = study._content("toy", loader)
    loader.load_configuration("train", ["study=toy", *more], RunMode.MULTIRUN)
    assert loader.stands_alone("study", "toy") == (more != ["experiment=adds"])
    assert study._content("toy", loader) == fresh


def test_a_study_says_what_another_file_adds_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(CONFIGS, tmp_path / "configs")
    (tmp_path / "configs" / "study" / "toy.yaml").write_text("name: toy\ntitle: Toy\ngrid: [{encoder: a, task: b}]\n")
    adds = "# @package _global_\nstudy: {description: of the schedule}\n"
    (tmp_path / "configs" / "schedule" / "cosine.yaml").write_text(adds)
    monkeypatch.setattr("seqbench.composition.compose.CONFIGS", tmp_path / "configs")
    loader = own_loader()
    loader.load_configuration("train", ["study=toy"], RunMode.MULTIRUN)
    assert study._content("toy", loader)["description"] == "of the schedule"


def test_files_of_another_search_path_are_kept_apart(toy: Toy, tmp_path: Path) -> None:
    """The cells of a command that types one are composed without it."""
    (tmp_path / "there" / "study").mkdir(parents=True)
    for name in ("mine", "tiny"):
        content = f"name: {name}\ntitle: There\ngrid: [{{encoder: majority, task: digits}}]\n"
        (tmp_path / "there" / "study" / f"{name}.yaml").write_text(content)
    loader = own_loader(str(toy.configs))
    with loader.keeping_files():
        for name in ("mine", "tiny"):
            typed = [f"study={name}", f"hydra.searchpath=[file://{tmp_path}/there]"]
            loader.load_configuration("train", typed, RunMode.MULTIRUN)
            assert not loader.stands_alone("study", name)
        assert loader.plain_file("study", "mine") is None
        with pytest.raises(MissingConfigException):
            study._content("mine", loader)
        assert study._content("tiny", loader)["title"] == "Tiny"


def test_a_command_keeps_files_for_its_plans() -> None:
    loader = own_loader()
    with loader.keeping_files():
        kept = loader._kept
        with loader.keeping_files():
            compose(loader, ["encoder=lstm"])
            assert loader._kept is kept
        assert kept
        assert loader._kept is kept
    assert loader._kept is None


@pytest.mark.parametrize("value", ["${seed}", "${ seed }", "${..seed}", "${oc.select:seed}"])
def test_a_file_whose_value_is_made_of_the_seed_has_each_run_s_own(value: str, toy: Toy) -> None:
    """As a run by itself has it: not the first seed's for all, in a file as in an override."""
    budget = {**TREE["budget"], "eval_every": value}
    toy.write("budget/seeded.yaml", budget)
    loader = config_loader(str(toy.configs))
    base = ["encoder=majority", "task=listops"]
    made = plan_sweep([*base, "budget=seeded", "seed=3,4"], loader=loader).cells
    assert [(cell.config.seed, cell.config.budget.eval_every) for cell in made] == [(3, 3), (4, 4)]
    alone = [plan_sweep([*base, "budget=seeded", f"seed={seed}"], loader=loader).cells[0].id for seed in (3, 4)]
    assert [cell.id for cell in made] == alone
    typed = plan_sweep([*base, "budget=seeded", f"budget.steps={value}", "seed=3,4"], loader=loader).cells
    assert [cell.config.budget.steps for cell in typed] == [3, 4]


def test_a_value_that_is_the_seed_is_each_runs_own() -> None:
    made = plan_sweep(["encoder=majority", "task=listops", "budget.eval_every=${seed}", "seed=3,4"])
    assert [cell.config.budget.eval_every for cell in made.cells] == [3, 4]
    for cell in made.cells:
        assert cell.id == alone(cell.overrides, None)[0]


def test_ids_of_seeds_are_those_of_each() -> None:
    facts = {"seed": 3, "b": {"seed": 3, "text": 'ä \\ " seed'}, "a": [1.5, None, 1e-8]}
    expected = [identity.digest({**facts, "seed": seed}) for seed in (0, 7, 2**32 - 1)]
    assert identity.digests(facts, [0, 7, 2**32 - 1]) == expected
    for text in (identity.SEED, f'"{identity.SEED}"', f"x{identity.SEED}"):
        odd = {**facts, "text": text}
        assert identity.digests(odd, [5]) == [identity.digest({**odd, "seed": 5})]


@pytest.mark.parametrize("args", [(5,), (2, 9, 3), (9, 2, -2), (0,), (5, 5), (0.5, 3.0)])
@pytest.mark.parametrize("more", [{}, {"dtype": torch.float32}])
def test_an_outlined_arange_is_as_long_as_the_real_one(args: tuple[Any, ...], more: dict[str, Any]) -> None:
    with OnMeta():
        outline = torch.arange(*args, **more)
    real = torch.arange(*args, **more)
    assert (outline.shape, outline.dtype, outline.is_meta) == (real.shape, real.dtype, True)


@pytest.mark.parametrize("args", [(1, 2, 0), (3, 1)])
def test_an_arange_that_cannot_be_is_refused_in_an_outline_too(args: tuple[int, ...]) -> None:
    with OnMeta(), pytest.raises(RuntimeError):
        torch.arange(*args)


@pytest.mark.parametrize("dim", [-1, 0, 1, 2])
def test_outlined_norms_have_the_shape_of_torch_s(dim: int) -> None:
    v = torch.ones(2, 3, 4)
    with OnMeta():
        outline = torch.norm_except_dim(v.to("meta"), 2, dim)
    for real in (torch.norm_except_dim(v, 2, dim), torch.norm_except_dim(v.to("meta"), 2, dim)):
        assert (outline.shape, outline.dtype, outline.is_meta) == (real.shape, real.dtype, True)


def test_who_could_be_in_a_pair_is_looked_up_for_readers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(build, "encoders_that", lambda kind: asked.append(kind.__name__) or ("lstm", "gpt2"))
    assert len(plan_sweep(["encoder=bilstm,lstm", "task=scan"]).left_out) == 1
    assert asked == []
    bilstm = plan_sweep(["encoder=bilstm", "task=digits"]).cells[0].config
    scan = build_task(plan_sweep(["encoder=lstm", "task=scan"]).cells[0].config)
    with pytest.raises(ConfigError, match="bilstm is not one; decoders: lstm, gpt2"):
        build.check_pair(bilstm, scan)
    assert asked == ["Decoder"]


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("other", [2, 0.5, torch.ones(4, 1, 1), torch.ones(3, 2, dtype=torch.float64)])
def test_an_outlined_function_of_a_tensor_is_like_the_real_one(name: str, dtype: torch.dtype, other: Any) -> None:
    function, x = getattr(torch.Tensor, name), torch.ones(2, 3, dtype=dtype).t()
    others = () if name in ("cos", "sin", "exp", "log", "sqrt") else (other,)
    real = function(x, *others)
    with OnMeta():
        outline = function(x.to("meta"), *(o.to("meta") if isinstance(o, torch.Tensor) else o for o in others))
    assert (outline.shape, outline.dtype, outline.is_meta) == (real.shape, real.dtype, True)


def test_an_outline_keeps_what_a_gradient_goes_through() -> None:
    weight = torch.nn.Parameter(torch.ones(2, device="meta"))
    with OnMeta():
        assert (2 * weight).requires_grad
        assert not torch.zeros(2).mul(3).requires_grad
