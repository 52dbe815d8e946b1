"""Planning and sweeping: what a grid means, what is left out, what runs, what is not run again."""

from __future__ import annotations

import errno
import io
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, open_dict

from seqbench.cli import main
from seqbench.compose import compose, config_loader, names_of
from seqbench.compositions import Compositions
from seqbench.config import resolve
from seqbench.errors import ConfigError
from seqbench.grid import Grid, parse, read_study, read_sweep, write
from seqbench.progress import Event
from seqbench.store import Store, read
from seqbench.study import plan, plan_sweep
from seqbench.studybar import StudyBar, about, spell, ticking
from tests.seqbench.toy_cli import ALLOWED, BASE, STUDY, Toy

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
    from seqbench.grid import parse_one

    read = parse_one(f"k={write(value)}")
    assert not read.is_sweep_override()
    assert read.value() == value
    assert type(read.value()) is type(value)


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

    monkeypatch.setattr("seqbench.compositions.compose", counted)
    compositions = Compositions(loader)
    for encoder in ("lstm", "gru", "bilstm", "bag"):
        for task in ("digits", "listops", "scan", "mqar"):
            for seed in range(10):
                compositions.make([f"encoder={encoder}", f"task={task}", f"seed={seed}"])
    assert len(asked) == 1 + 3 + 3


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


# -- plans -----------------------------------------------------------------------------------------------------------
def plan_tiny(toy: Toy, *overrides: str) -> Any:
    return plan("tiny", [ALLOWED, *overrides], loader=config_loader(str(toy.configs)))


def test_a_plan_names_cells_by_the_ids_of_their_runs(toy: Toy) -> None:
    from seqbench.build import build_task
    from seqbench.identity import run_id

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
    assert "encoder.rule: 'x' is not one of majority, random, repeat_last" in text


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


# -- sweeps --------------------------------------------------------------------------------------------------------
def test_a_study_runs_what_is_missing_and_goes_on_after_a_failure(toy: Toy) -> None:
    said = toy("-m", "study=tiny", base=[])
    assert said.code == 0, said.err
    assert "study tiny: 4 cells, 0 have a record, 4 to run; 1 pair left out:" in said.err
    assert "repeat_last x toy: has no rule repeat_last" in said.err
    assert len(toy.records()) == 4
    assert {tuple(read(path).studies) for path in toy.records()} == {("tiny",)}
    assert toy.left == {"results"}
    times = [path.stat().st_mtime_ns for path in toy.records()]
    again = toy("-m", "study=tiny", "encoder=toy,broken", base=[])
    assert again.code == 1
    assert "4 cells, 2 have a record, 2 to run" in again.err
    assert "broken" in again.out
    assert "diverged" in again.out
    assert [path.stat().st_mtime_ns for path in toy.records()][:4] == times
    assert [read(path).status for path in toy.records()][4:] == ["diverged", "diverged"]
    table = again.out.splitlines()
    assert table[0].split() == ["encoder", "task", "seed", "status", "test", "record"]
    assert len(table) == 1 + 4


def test_a_cell_of_two_studies_is_run_once_and_names_both(toy: Toy) -> None:
    toy.write("study/other.yaml", {**STUDY, "name": "other"})
    assert toy("-m", "study=tiny", "encoder=majority", "seed=0", base=[]).code == 0
    before = read(toy.records()[0])
    assert toy("-m", "study=other", "encoder=majority", "seed=0", base=[]).code == 0
    after = read(toy.records()[0])
    assert len(toy.records()) == 1
    assert after.studies == ["other", "tiny"]
    assert after.ended == before.ended


def test_a_cell_of_a_study_is_the_run_of_its_overrides(toy: Toy) -> None:
    assert toy("-m", "study=tiny", "encoder=toy", "seed=1", base=[]).code == 0
    record = read(toy.records()[0])
    said = toy(*record.overrides, base=[])
    assert "has a record already" in said.out
    assert record.id in said.out


def test_an_ad_hoc_sweep_reports_every_mistake_before_anything_runs(toy: Toy) -> None:
    said = toy("-m", "encoder.dim=0,4", "task.data.rows=12,x")
    assert said.code == 2
    assert len(said.err.splitlines()) <= 3
    assert "encoder.dim: 0 is not allowed" in said.err
    assert "task.data.rows: 'x' is not a whole number" in said.err
    assert toy.left == set()


def test_a_cell_without_data_stops_no_other(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.data.base import DataError
    from tests.seqbench.toy import ToyData

    def check(self: ToyData) -> None:
        if self.rows == 12:
            raise DataError("task.data: the file is not there")

    monkeypatch.setattr(ToyData, "check", check)
    said = toy("-m", "task.data.rows=12,15")
    assert said.code == 1
    assert "not run" in said.out
    assert "task.data: the file is not there" in said.out
    assert len(toy.records()) == 1


def test_other_launchers_are_handed_the_cells(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a launcher that isn't Hydra's basic one, cells go through it as overrides that make the same ids."""
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher
    from hydra.core.plugins import Plugins

    batches: list[list[list[str]]] = []

    class Elsewhere(BasicLauncher):
        def launch(self, job_overrides: Any, initial_job_idx: int) -> Any:
            batches.append([list(cell) for cell in job_overrides])
            return super().launch(job_overrides, initial_job_idx)

    made = Elsewhere()

    def instantiate(self: Any, hydra_context: Any, task_function: Any, config: Any) -> Any:
        made.setup(hydra_context=hydra_context, task_function=task_function, config=config)
        return made

    monkeypatch.setattr(Plugins, "instantiate_launcher", instantiate)
    said = toy("-m", "study=tiny", "seed=0", "hydra/launcher=submitit_local", base=[])
    assert said.code == 0, said.err
    assert [len(batch) for batch in batches] == [2]
    assert all(cell[0] == "study=tiny" for cell in batches[0])
    ids = {cell.id for cell in plan_tiny(toy, "seed=0").cells}
    assert {path.parent.name for path in toy.records()} == ids
    assert {tuple(read(path).studies) for path in toy.records()} == {("tiny",)}


def cut(path: Path) -> None:
    path.write_text(path.read_text()[:100])


def edit(path: Path) -> None:
    path.write_text(path.read_text().replace('"value": 0.', '"value": 0.9', 1))


def version(path: Path) -> None:
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))


def swap(path: Path) -> None:
    """With that of another run."""
    other = next(p for p in path.parents[1].glob("*/record.json") if p != path)
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def rubbish(path: Path) -> None:
    """For the checkpoint of a run that was interrupted."""
    record = read(path)
    Store(path.parents[1]).write(record.model_copy(update={"status": "interrupted"}))
    (path.parent / "checkpoints").mkdir()
    for name in ("last", "best"):
        (path.parent / "checkpoints" / f"{name}.pt").write_bytes(b"PK" + b"x" * 100)


@pytest.mark.parametrize(
    "damage, hurt, says, jobs",
    [
        (cut, 1, "is no JSON object (cut off?)", 1),
        (edit, 1, "was edited after it was written", 1),
        (version, 1, "has schema_version 2", 1),
        (swap, 2, "in a folder of another name", 1),
        pytest.param(swap, 2, "in a folder of another name", 2, marks=pytest.mark.slow),
    ],
)
def test_damage_is_its_own_cells_matter(
    damage: Callable[[Path], None], hurt: int, says: str, jobs: int, toy: Toy
) -> None:
    """Planted in a store: told in a line, none used in silence, the other cells run and the table is printed."""
    assert toy("-m", "encoder=toy,majority", "seed=0").code == 0
    damage(toy.records()[0])
    records, damages = Store(toy.work / "results").all()
    assert (len(records), len(damages)) == (2 - hurt, hurt)
    assert says in damages[0].reason
    said = toy("-m", "encoder=toy,majority", "seed=0,1", f"jobs={jobs}")
    assert said.code == 1, said.err
    assert "Traceback" not in said.err
    table = said.out.splitlines()
    assert len(table) == 1 + 4
    assert [says in line and "not run" in line for line in table].count(True) == hurt
    assert ["finished" in line for line in table].count(True) == 4 - hurt
    assert toy("-m", "encoder=toy,majority", "seed=0,1", f"jobs={jobs}", "rerun=always").code == 0
    assert Store(toy.work / "results").all()[1] == []


def test_a_copied_record_is_told(toy: Toy) -> None:
    assert toy("-m", "seed=0,1").code == 0
    shutil.copytree(toy.records()[0].parent, toy.work / "results" / "copy")
    records, damages = Store(toy.work / "results").all()
    assert len(records) == 2
    assert [str(damage.path) for damage in damages] == [str(toy.work / "results" / "copy" / "record.json")]


def test_a_damaged_checkpoint_is_its_own_cells_matter(toy: Toy) -> None:
    assert toy("seed=0").code == 0
    rubbish(toy.records()[0])
    said = toy("-m", "seed=0,1")
    assert "Traceback" not in said.err
    assert sum("finished" in line for line in said.out.splitlines()) >= 1
    assert len(said.out.splitlines()) == 1 + 2
    assert said.code in (0, 1)  # 0 where an older one, or the beginning, takes its place


def test_a_full_disk_ends_a_sweep(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    said = toy("-m", "seed=0,1")
    assert said.code == 2
    assert "cannot be written to (no space left on device)" in said.err


def test_the_table_shows_what_varies(toy: Toy) -> None:
    said = toy("-m", "encoder.dim=4,6", "budget.steps=5")
    assert said.code == 0
    table = [line.split() for line in said.out.splitlines()]
    assert table[0] == ["encoder", "task", "encoder.dim", "seed", "status", "test", "record"]
    assert [row[2] for row in table[1:]] == ["4", "6"]
    assert "toy x toy, encoder.dim=4  hits" in said.err
    assert "toy x toy, encoder.dim=6  hits" in said.err


# -- the bar -------------------------------------------------------------------------------------------------------
class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_line_per_cell_without_a_terminal() -> None:
    stream, clock = io.StringIO(), Clock()
    cells = [("a", "lstm x digits", 100, "digits"), ("b", "lstm x scan", 300, "scan")]
    bar = StudyBar([*cells, ("c", "majority x scan", 0, "scan")], stream=stream, clock=clock)
    bar.start("a")
    clock.now = 10
    bar.finish("a", "accuracy 0.5")
    assert bar.left() == pytest.approx(30.5)  # 300 steps at 0.1 s, and a row without steps
    bar.start("b")
    clock.now = 20
    bar.watch("b", Event(kind="step", step=150, steps=300))
    assert bar.left() == pytest.approx(10.5)  # its own pace
    clock.now = 30
    bar.tick()
    bar.finish("b", "failed: x")
    bar.start("c")
    clock.now = 31
    bar.finish("c", "accuracy 0.1")
    bar.close()
    assert stream.getvalue().splitlines() == [
        "[1/3] lstm x digits  accuracy 0.5  10 s  (about 35 s left)",
        "[2/3] lstm x scan  failed: x  20 s  (about 5 s left)",
        "[3/3] majority x scan  accuracy 0.1  1 s",
    ]


def test_time_left_over_two_lanes() -> None:
    clock = Clock()
    cells = [(this, this.upper(), steps, "x") for this, steps in zip("abcd", (100, 100, 60, 20), strict=True)]
    bar = StudyBar(cells, lanes=2, stream=io.StringIO(), clock=clock)
    bar.start("a")
    bar.start("b")
    clock.now = 10
    bar.finish("a", "done")  # 0.1 s a step
    bar.start("c")
    bar.watch("b", Event(kind="step", step=50, steps=100))  # 0.2 s a step: ten more seconds
    assert bar.left() == pytest.approx(10)  # c takes 6 s, d 2 s after it
    bar.watch("b", Event(kind="step", step=100, steps=100))
    assert bar.left() == pytest.approx(6)  # d is taken by the lane of b


def test_one_line_that_is_drawn_anew_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "79")
    stream, clock = Terminal(), Clock()
    bar = StudyBar([("a", "A", 10, "x"), ("b", "B", 10, "x")], stream=stream, clock=clock)
    bar.start("a")
    clock.now = 5
    bar.watch("a", Event(kind="step", step=5, steps=10))
    drawn = stream.getvalue().rpartition("\r\x1b[K")[2]
    assert drawn == "[0/2] #####............... 5 s, about 15 s left  A 50%"  # 5 of this one, 10 of the next
    clock.now = 6
    bar.tick()  # nothing but time has gone by
    assert "] #####............... 6 s, about " in stream.getvalue().rpartition("\r")[2]
    clock.now = 10
    bar.finish("a", "done")
    assert stream.getvalue().count("\n") == 1  # finished cells stay, the bar does not
    bar.start("b")
    bar.say("B: a warning")
    assert "\r\x1b[KB: a warning\n\r\x1b[K[1/2] " in stream.getvalue()
    monkeypatch.setenv("COLUMNS", "40")
    bar.start("b")
    drawn = stream.getvalue().rpartition("\x1b[K")[2]
    assert drawn.endswith("B 0%")
    assert len(drawn) <= 39  # a longer line would not be overwritten
    bar.close()
    assert stream.getvalue().endswith("\x1b[K")


def test_the_clock_goes_on_while_a_cell_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    bar = StudyBar([("a", "A", 10, "x")], stream=stream)
    bar.start("a")
    drawn = stream.getvalue().count("\r")
    with ticking(bar):
        time.sleep(0.6)
    assert stream.getvalue().count("\r") > drawn
    threads = [thread.name for thread in threading.enumerate()]
    assert "study bar" not in threads


def test_times_as_people_say_them() -> None:
    assert [spell(s) for s in (0.4, 59, 61, 3599, 3600, 7500)] == [
        "0 s",
        "59 s",
        "1 min 1 s",
        "59 min 59 s",
        "1 h 0 min",
        "2 h 5 min",
    ]
    assert [about(s) for s in (0, 21, 54, 56, 150, 3569, 3590, 7520)] == [
        "about 5 s",
        "about 25 s",
        "about 55 s",
        "about 1 min",
        "about 2 min",
        "about 59 min",
        "about 1 h 0 min",
        "about 2 h 5 min",
    ]


def test_the_base_overrides_are_a_sweep_of_one(toy: Toy) -> None:
    assert toy("-m", "seed=3").code == 0
    assert read(toy.records()[0]).overrides == [*BASE, "seed=3"]
    assert not os.path.exists("multirun")


@pytest.mark.parametrize("columns", [80, 100, 60])
def test_what_runs_is_shown_with_its_seed(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    bar = StudyBar([("a", "encoder_only x dailydialog_plusplus, seed 12", 9, "k")], stream=stream, clock=Clock())
    bar.start("a")
    drawn = stream.getvalue().rpartition("\x1b[K")[2]
    assert "encoder_only x dailydialog_plusplus, seed 12 0%" in drawn
    assert len(drawn) < columns
