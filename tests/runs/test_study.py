"""Planning and sweeping: what a grid means, what is left out, what runs, what is not run again."""

from __future__ import annotations

from typing import Any

import pytest

from seqbench.cli import main
from seqbench.composition.compose import config_loader
from seqbench.errors import ConfigError
from seqbench.studies.grid import Grid, parse, read_study, read_sweep, write
from seqbench.studies.study import plan, plan_sweep
from tests.seqbench.toy_cli import ALLOWED, STUDY, Toy

FILE: dict[str, Any] = {
    "name": "s",
    "title": "S",
    "grid": [
        {"encoder": ["a", "b"], "task": ["x", "y"], "seed": [0, 1]},
        {"encoder": "floor", "task": "x"},
    ],
    "set": {"budget.steps": 100, "optimizer.lr": 0.1},
    "by_task": {"x": {"budget.steps": 200}},
    "by_encoder": {"a": {"budget.steps": 300}},
}


def cells(grid: Grid) -> set[str]:
    return {" ".join(cell.values()) for cell in grid.cells}


# -- grids ---------------------------------------------------------------------------------------------------------
def test_a_sweep_is_the_product_of_its_lists() -> None:
    grid = read_sweep(["encoder=a,b", "seed=0,1", "task=x"])
    assert [" ".join(cell.values()) for cell in grid.cells] == [
        "encoder=a seed=0 task=x",
        "encoder=a seed=1 task=x",
        "encoder=b seed=0 task=x",
        "encoder=b seed=1 task=x",
    ]
    assert grid.dimensions == ["encoder", "seed"]


def test_ranges_choices_and_lists() -> None:
    assert parse(["seed=range(0,3)"]) == {"seed": ["seed=0", "seed=1", "seed=2"]}
    assert parse(["optimizer.lr=choice(1e-3,1e-2)"])["optimizer.lr"] == ["optimizer.lr=0.001", "optimizer.lr=0.01"]
    assert parse(["a=[1,2]", "+b={c:1,d:2}", "~e"]) == {"a": ["a=[1,2]"], "b": ["+b={c:1,d:2}"], "e": ["~e"]}
    assert parse(["seed=1", "seed=2,3"]) == {"seed": ["seed=2", "seed=3"]}  # the last one is in force
    with pytest.raises(ConfigError, match=r"^lr: interval\(0,1\) has no end; list the values, lr=a,b,c$"):
        parse(["lr=interval(0,1)"])


def test_a_study_is_the_union_of_its_blocks() -> None:
    grid = read_study("s", FILE, [])
    assert len(grid.cells) == 2 * 2 * 2 + 1
    assert grid.study == "s"
    assert grid.dimensions == ["encoder", "task", "seed"]
    first = {**FILE["grid"][0], "seed": [0]}
    staged = read_study("s", {**FILE, "grid": [first, {**first, "pretrain": "lm", "budget.steps": 5}]}, [])
    assert staged.dimensions == ["encoder", "task", "pretrain", "budget.steps"]
    parts = [first, {**first, "pretrain": "lm", "pretrain.seed": 1}, {**first, "task": ["z"], "optimizer.lr": 0.3}]
    assert read_study("s", {**FILE, "grid": parts}, []).dimensions == ["encoder", "task", "pretrain"]
    named = [{**first, "label": "A", "encoder.dim": 8}, {**first, "label": "B", "encoder.dim": [16, 32]}]
    assert read_study("s", {**FILE, "grid": named}, []).dimensions == ["encoder", "task", "label", "encoder.dim"]
    named[1]["encoder.dim"] = 16
    assert read_study("s", {**FILE, "grid": named}, []).dimensions == ["encoder", "task", "label"]
    doubled = {**FILE, "grid": [*FILE["grid"], FILE["grid"][1]]}
    assert cells(read_study("s", doubled, [])) == cells(grid)


def test_the_nearer_override_is_in_force() -> None:
    steps = {
        (cell["encoder"], cell["task"]): cell["budget.steps"].partition("=")[2]
        for cell in read_study("s", FILE, []).cells
    }
    assert steps == {
        ("encoder=a", "task=x"): "300",  # by_encoder over by_task over set
        ("encoder=a", "task=y"): "300",
        ("encoder=b", "task=x"): "200",
        ("encoder=b", "task=y"): "100",
        ("encoder=floor", "task=x"): "200",
    }
    typed = read_study("s", FILE, ["budget.steps=7"]).cells
    assert {cell["budget.steps"] for cell in typed} == {"budget.steps=7"}
    assert len(typed) == 9


def test_the_command_line_narrows_or_widens_the_grid() -> None:
    only = read_study("s", FILE, ["task=y"]).cells
    assert {cell["encoder"] for cell in only} == {"encoder=a", "encoder=b"}  # the floor is not on y
    row = read_study("s", FILE, ["encoder=mine"]).cells
    assert {(cell["encoder"], cell["task"]) for cell in row} == {("encoder=mine", "task=x"), ("encoder=mine", "task=y")}
    both = read_study("s", FILE, ["encoder=a,mine", "seed=5"]).cells
    assert {cell["encoder"] for cell in both} == {"encoder=a", "encoder=mine"}
    assert {cell["seed"] for cell in both} == {"seed=5"}
    more = read_study("s", FILE, ["optimizer.lr=1,2"]).cells
    assert len(more) == 2 * 9


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"grid": []}, "study/s.yaml: grid: has no block"),
        ({"grid": [{"encoder": "a"}]}, "study/s.yaml: grid.0.task: missing"),
        ({"gird": []}, "study/s.yaml: gird: no such key (did you mean grid?)"),
        ({"title": 3}, "study/s.yaml: title: 3 is not a text"),
        ({"by_task": {"z": {"seed": 1}}}, "study/s.yaml: by_task.z: the grid has no such task; there is x, y"),
        (
            {"by_encoder": {"flor": {}}},
            "study/s.yaml: by_encoder.flor: the grid has no such encoder (did you mean floor",
        ),
        ({"set": [1]}, "study/s.yaml: set: [1] is not a mapping"),
    ],
)
def test_a_wrong_study_file(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_study("s", {**FILE, **change}, [])
    assert str(caught.value).startswith(expected)
    with pytest.raises(ConfigError, match=r"study/s.yaml: is empty"):
        read_study("s", None, [])


@pytest.mark.parametrize(
    "value", [1, -2, 0.1, 1e-5, True, None, "a", "a b", 'it\'s "so"', "1", "a,b", "", [1, "x y"], {"k": [None]}]
)
def test_values_are_written_as_hydra_reads_them(value: Any) -> None:
    from seqbench.studies.grid import parse_one

    read = parse_one(f"k={write(value)}")
    assert not read.is_sweep_override()
    assert read.value() == value
    assert type(read.value()) is type(value)


# -- plans -----------------------------------------------------------------------------------------------------------
def plan_tiny(toy: Toy, *overrides: str) -> Any:
    return plan("tiny", [ALLOWED, *overrides], loader=config_loader(str(toy.configs)))


def test_a_plan_names_cells_by_the_ids_of_their_runs(toy: Toy) -> None:
    from seqbench.build import build_task
    from seqbench.records.identity import run_id

    planned = plan_tiny(toy)
    assert [cell.title for cell in planned.cells] == [
        "toy x toy, seed 0",
        "toy x toy, seed 1",
        "majority x toy, seed 0",
        "majority x toy, seed 1",
    ]
    for cell in planned.cells:
        assert cell.id == run_id(cell.config, build_task(cell.config))
        assert cell.config.names.study == "tiny"
        assert cell.config.overrides == cell.overrides
    assert planned.cells[0].config.encoder["dim"] == 6
    assert not any("study" in text for text in planned.cells[0].overrides)
    assert [(out.encoder, out.task, out.reason) for out in planned.left_out] == [
        ("repeat_last", "toy", "has no rule repeat_last")
    ]


def test_the_committed_studies_plan(toy: Toy) -> None:
    quick = plan("quickstart")
    tasks = {cell.names.task for cell in quick.cells}
    assert tasks == {"listops", "scan", "mqar", "digits", "python_code"}
    assert ("encoder_only", "scan", "needs a Decoder") in {(o.encoder, o.task, o.reason) for o in quick.left_out}
    families = {"encoder_only", "decoder_only", "encoder_decoder", "majority", "random"}
    for task in tasks:
        rows = {cell.names.encoder for cell in quick.cells if cell.names.task == task}
        assert families - rows <= ({"encoder_only"} if task == "scan" else set())
    assert len({cell.id for cell in quick.cells}) == len(quick.cells)


@pytest.mark.slow
def test_the_study_of_families_has_all_fourteen_tasks_and_three_seeds() -> None:
    whole = plan("families")
    assert len({cell.names.task for cell in whole.cells}) == 14
    assert {cell.config.seed for cell in whole.cells} == {0, 1, 2}
    seeds = plan("families", ["seed=range(0,40)"])
    assert len(seeds.cells) > 4000


def test_a_mistake_of_one_cell_stops_the_plan(toy: Toy) -> None:
    toy.write(
        "study/tiny.yaml", {**STUDY, "by_encoder": {"toy": {"encoder.dmi": 6}, "majority": {"encoder.rule": "x"}}}
    )
    with pytest.raises(ConfigError) as caught:
        plan_tiny(toy)
    text = str(caught.value)
    assert "encoder.dmi: no such key (did you mean encoder.dim?) (encoder=toy task=toy)" in text
    assert "encoder.rule: 'x' is not one of majority, random, repeat_last, source_mean, biases" in text


def test_a_key_that_one_task_of_a_sweep_lacks_is_told_with_the_cell(capsys: pytest.CaptureFixture[str]) -> None:
    """Whether or not the default task has the key; a key that no cell has is told once, without a cell."""
    line = ["-m", "encoder=lstm", "task=listops,own_classification", "task.data.columns.target=label"]
    assert main([*line, "task.data.train=absent.csv"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("task.data.columns.target: no such key; there is _target_, max_args")
    assert said.endswith("(encoder=lstm task=listops)\n")
    line = ["-m", "encoder=lstm,gru", "task=own_labelling,own_regression", "task.data.train=absent.conll"]
    assert main([*line, "task.data.tag_column=2"]) == 2
    first = "task.data.tag_column: no such key"
    said = capsys.readouterr().err
    assert said.startswith(first)
    assert said.splitlines()[0].endswith("(encoder=lstm task=own_regression)")
    assert main(["-m", "encoder=lstm,gru", "budget.stps=3"]) == 2
    assert capsys.readouterr().err == "budget.stps: no such key (did you mean budget.steps?)\n"


@pytest.mark.parametrize(
    ("typed", "keys", "remedy"),
    [
        ([], "budget.select: best", "set budget.select=last"),
        (["budget.select=last", "budget.patience=3"], "budget.patience: 3", "set budget.patience=null"),
        (["budget.select=last", "tune=random"], "tune", "leave tune out"),
        (["tune=random"], "budget.select: best, tune", "set budget.select=last, leave tune out"),
    ],
)
def test_nothing_is_chosen_by_a_split_that_training_has_seen(
    typed: list[str], keys: str, remedy: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused alone and in a sweep, before data is looked for: there is none here."""
    monkeypatch.setenv("SEQBENCH_DATA", "absent")
    for line in (["encoder=fcn", "task=ucr"], ["-m", "encoder=fcn", "task=ucr,digits"]):
        assert main([*line, *typed]) == 2
        said = capsys.readouterr().err.splitlines()
        assert said[0].startswith(f"{keys}: would choose by the valid split of ucr, which is no independent one (valid")
        assert said[1:] == [remedy]


def test_what_is_not_chosen_needs_no_independent_split() -> None:
    line = ["encoder=fcn,majority", "task=ucr", "budget.select=last"]
    assert len(plan_sweep(line).cells) == 2
    assert len(plan_sweep(["encoder=majority", "task=ucr"]).cells) == 1


def test_an_encoder_that_fits_no_task_is_a_mistake(toy: Toy) -> None:
    with pytest.raises(ConfigError, match=r"encoder.*heads"):
        plan("quickstart", ["encoder=encoder_only", "encoder.heads=3", "task=digits,listops"])


def test_nothing_left_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"^encoder_only x scan: needs a Decoder$"):
        plan("quickstart", ["encoder=encoder_only", "task=scan"])
