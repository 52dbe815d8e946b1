"""Equal budgets: what is solved against brute force and against counts of real encoders; ids, records, refusals."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import version

from encoders.base import Grid, InputSpec, Sequences, States
from seqbench.build import PairError, build_encoder, build_task
from seqbench.composition.compose import own_loader
from seqbench.composition.compositions import Compositions
from seqbench.config import RunConfig, check_config
from seqbench.errors import ConfigError
from seqbench.matching import cache as match_cache
from seqbench.matching import match
from seqbench.matching import measure as match_measure
from seqbench.records.identity import run_id
from seqbench.records.store import write_atomic
from seqbench.run import run
from seqbench.studies.study import plan_sweep
from tasks.base import Task
from tasks.data.jhmdb_pose import SKELETON
from tests.seqbench.toy import VOCABULARY, ToyEncoder
from tests.seqbench.toy_cli import Toy
from tests.seqbench.toy_config import toy_config

ROOT = Path(__file__).resolve().parents[2]
SIZED = sorted(
    path.stem
    for path in (ROOT / "configs" / "encoder").glob("*.yaml")
    if path.stem not in ("own", "pretrained", "majority", "random", "repeat_last", "source_mean", "biases", "dlinear")
)
SMALLEST = {"transunet": 3e6}  # parameters at least, whatever the width: of its CNN and decoder
OTHERS = {  # what encoders read that not every task feeds
    "informer": InputSpec(max_length=64, channels=3, target_length=24),
    "mca": InputSpec(max_length=64, vocab_size=40, streams={"context": InputSpec(max_length=1, channels=200)}),
    "skeletonmae": InputSpec(max_length=16, channels=30, graph=SKELETON),
    "transunet": InputSpec(max_length=16, channels=256, grid=Grid(rows=4, columns=4, patch=16)),
}
LINES = {"dim": 12, "dropout": 0.2}


class Wide(ToyEncoder):
    """As ToyEncoder, its width called otherwise and even, with layers beside it."""

    width = "size"
    along = ("inner",)

    def __init__(self, *, size: int, inner: int, depth: int, spec: InputSpec) -> None:
        if size % 4:
            raise ValueError(f"size: {size} is not a multiple of 4")
        super().__init__(dim=size, dropout=0.0, spec=spec)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(size, inner) for _ in range(depth))


class Waits(ToyEncoder):
    """Takes a tenth of a millisecond for each unit of its width."""

    def forward(self, source: Sequences) -> States:
        time.sleep(1e-4 * self.dim)
        return super().forward(source)


WIDE = {"_target_": "tests.runs.test_match.Wide", "size": 8, "inner": 16, "depth": 2}
ALLOWED = ["tests", "encoders", "torch.optim"]


def config_of(folder: Path, target: float, changes: dict[str, Any] | None = None) -> RunConfig:
    return toy_config(folder, {"budget.match": "params", "budget.target": target, "allowed": ALLOWED} | (changes or {}))


def real(config: RunConfig) -> int:
    """Parameters of the encoder and head, built as a run builds them."""
    task = build_task(config)
    task.setup()
    encoder = build_encoder(config, task.spec)
    task.attach(encoder)
    own = {id(p): p.numel() for p in [*encoder.parameters(), *task.parameters()]}
    return sum(own.values())


# -- every configured encoder --------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def compositions() -> Compositions:
    version.setbase("1.3")
    return Compositions(own_loader())


@pytest.fixture(scope="module")
def shared() -> dict[str, Task]:
    return {}


def composed(made: Compositions, *overrides: str) -> RunConfig:
    tree, names = made.make(["budget.match=params", *overrides])
    return check_config(tree, names, list(overrides))


@pytest.mark.parametrize("name", SIZED)
def test_every_encoder_comes_within_two_per_cent_at_a_million(
    compositions: Compositions, shared: dict[str, Task], tmp_path: Path, name: str
) -> None:
    target = SMALLEST.get(name, 1e6)
    config = composed(compositions, f"encoder={name}", "task=digits", f"budget.target={target}", f"results={tmp_path}")
    spec = OTHERS.get(name, InputSpec(max_length=64, channels=3))
    try:
        solved = match.matched(config, shared)
        parameters = real(solved)
    except ConfigError:  # reads channels alone, or what only some tasks feed
        task = build_task(toy_config(tmp_path))
        task.spec = spec
        solved = match.matched(config, {json.dumps(config.task, sort_keys=True): task})
        encoder = build_encoder(solved, task.spec)
        parameters = sum(p.numel() for p in encoder.parameters()) + 2 * encoder.dim + 2
    assert abs(parameters - target) <= 0.02 * target
    kept = {key for key in config.encoder if f"encoder.{key}" not in (solved.budget.matched or {})}
    assert {key: solved.encoder[key] for key in kept} == {key: config.encoder[key] for key in kept}


@pytest.mark.parametrize("name", ["encoder_only", "tcn", "lstm"])
def test_both_keeps_the_proportion_of_width_and_depth(
    compositions: Compositions, shared: dict[str, Task], tmp_path: Path, name: str
) -> None:
    given = [f"encoder={name}", "task=digits", "budget.target=3e6", "budget.vary=both", f"results={tmp_path}"]
    config = composed(compositions, *given)
    solved = match.matched(config, shared)
    assert abs(real(solved) - 3e6) <= 0.02 * 3e6
    ratio = [c.encoder["dim"] / c.encoder["depth"] for c in (config, solved)]
    assert ratio[1] == pytest.approx(ratio[0], rel=0.35)
    assert solved.encoder["depth"] != config.encoder["depth"]


def test_what_has_no_width_says_so_in_one_line(compositions: Compositions, tmp_path: Path) -> None:
    config = composed(compositions, "encoder=dlinear", "task=digits", "budget.target=1e6", f"results={tmp_path}")
    with pytest.raises(PairError, match=r"encoder dlinear gives its constructor no dim.*budget\.match=null") as error:
        match.matched(config)
    assert "\n" not in str(error.value)
    floor = composed(compositions, "encoder=majority", "task=digits", "budget.target=1e6", f"results={tmp_path}")
    assert match.matched(floor) is floor


# -- what is counted -----------------------------------------------------------------------------------------------
def params(dim: int) -> int:
    """Of ToyEncoder and ToyTask, by formula."""
    return VOCABULARY * dim + dim * dim + dim + 2 * dim + 2 * dim + 2


@pytest.mark.parametrize(
    ("count", "goal"),
    [("all", params(37)), ("encoder", params(37) - 2 * 37 - 2), ("body", params(37) - 2 * 37 - 2 - VOCABULARY * 37)],
)
def test_which_parameters_count(tmp_path: Path, count: str, goal: int) -> None:
    solved = match.matched(config_of(tmp_path, goal, {"budget.count": count, "budget.tolerance": 0.001}))
    assert solved.budget.matched == {"encoder.dim": 37}
    assert solved.encoder["dim"] == 37


def test_names_and_steps_are_the_encoders_own(tmp_path: Path) -> None:
    solved = match.matched(config_of(tmp_path, 20_000, {"encoder": WIDE}))
    assert solved.budget.matched is not None
    assert set(solved.budget.matched) == {"encoder.size", "encoder.inner"}
    assert solved.encoder["size"] % 4 == 0
    assert solved.encoder["depth"] == 2
    assert abs(real(solved) - 20_000) <= 0.01 * 20_000


def test_depth_alone(tmp_path: Path) -> None:
    goal = real(toy_config(tmp_path, {"allowed": ALLOWED, "encoder": WIDE | {"depth": 9}}))
    solved = match.matched(config_of(tmp_path, goal, {"encoder": WIDE, "budget.vary": "depth"}))
    assert (solved.encoder["depth"], solved.encoder["size"], solved.encoder["inner"]) == (9, 8, 16)


def test_operations_by_formula(tmp_path: Path) -> None:
    config = toy_config(tmp_path, {})
    task = build_task(config)
    task.setup()
    length = int(np.sort(task.lengths("train"))[len(task.lengths("train")) // 2])
    goal = 3 * (2 * length * 25 * 25 + 2 * 25 * 2)  # forward, and backward for inputs and weights
    solved = match.matched(config_of(tmp_path, goal, {"budget.match": "flops"}))
    assert solved.encoder["dim"] == 25


def test_latency_of_a_known_time_and_the_first_solution_stands(tmp_path: Path) -> None:
    changes = {"budget.match": "latency", "encoder": {"_target_": "tests.runs.test_match.Waits", **LINES}}
    config = config_of(tmp_path, 6.0, changes)
    solved = match.matched(config)
    assert 35 < solved.encoder["dim"] <= 60
    (file,) = (tmp_path / match.FOLDER).glob("*.json")
    file.write_bytes(match_cache.content(file, {"encoder.dim": solved.encoder["dim"] + 1}))
    assert match.matched(config).encoder["dim"] == solved.encoder["dim"] + 1


def test_a_latency_is_the_least_that_five_rounds_agree_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(match_measure, "SECONDS", 0.0)  # a pass a round
    steady = iter([5.0, 9.0, 5.1, 5.0, 30.0, 5.2, 5.05])
    found = match_measure.timed(lambda: next(steady))
    assert (found.ms, round(found.spread, 9)) == (5.0, 0.04)
    assert next(steady, None) is None  # as soon as five agree, and not before
    busy = iter([8.0, 5.0, 7.0, 6.0, 9.0] + [20.0] * 20)
    found = match_measure.timed(lambda: next(busy))
    assert (found.ms, round(found.spread, 9)) == (5.0, 0.8)
    assert next(busy, None) is None


def test_how_unsure_a_latency_is_stands_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"budget.match": "latency", "encoder": {"_target_": "tests.runs.test_match.Waits", **LINES}}
    config = match.with_sizes(config_of(tmp_path, 6.0, changes), {"encoder.dim": 50})
    task = build_task(config)
    task.setup()
    monkeypatch.setattr(match, "latency", lambda *_: match_measure.Timed(5.7, 0.31))
    found = match.facts(config, build_encoder(config, task.spec), task)
    assert found is not None
    assert (found.reached, found.spread, round(found.leftover, 9)) == (5.7, 0.31, -0.05)


# -- config, id, record --------------------------------------------------------------------------------------------
def test_a_matched_run_is_the_run_of_its_numbers(tmp_path: Path) -> None:
    config = config_of(tmp_path, 2500)
    record = run(config).record
    assert record.status == "finished"
    dim = record.config["encoder"]["dim"]
    assert dim == min(range(1, 99), key=lambda d: abs(params(d) - 2500))
    assert record.match is not None
    assert record.match.reached == record.cost.parameters == params(dim)
    assert record.match.leftover == pytest.approx((params(dim) - 2500) / 2500)
    assert abs(record.match.leftover) <= record.match.tolerance == 0.02
    plain = toy_config(tmp_path, {"encoder.dim": dim})
    assert run_id(plain, build_task(plain)) == record.id
    again = check_config(record.config, config.names, [], allowed=ALLOWED, found=True)  # nothing is solved again
    assert match.matched(again) is again
    assert run(again).skipped
    assert run(config).skipped


def test_a_solution_is_read_where_it_stands_and_made_anew_where_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, 2500)
    first = match.matched(config)
    with monkeypatch.context() as patch:
        patch.setattr(match, "_solve", lambda *_: pytest.fail("solved again"))
        assert match.matched(config) == first
    (file,) = (tmp_path / match.FOLDER).glob("*.json")
    file.write_text('{"encoder.dim": ')
    assert match.matched(config) == first


@pytest.mark.parametrize(
    "planted",
    [
        {"encoder.dim": 8},
        {"encoder.dim": 0},
        {"encoder.dim": -3},
        {"encoder.dim": True},
        {"encoder.dim": 10**30},
        {"encoder.dim": 39, "encoder.dropout": 1},
        {"encoder.heads": 3},
        {"dim": 39},
        {},
    ],
    ids=str,
)
@pytest.mark.parametrize("of", ["params", "flops", "latency"])
def test_what_lies_there_and_cannot_be_the_solution_is_solved_anew(
    tmp_path: Path, planted: dict[str, Any], of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if of == "latency":
        monkeypatch.setattr(match, "_solve", lambda *_: {"encoder.dim": 39})  # takes its time, and is not looked at
    goal = {"params": params(39), "flops": 50_000, "latency": 6.0}[of]
    config = config_of(tmp_path, goal, {"budget.match": of, "budget.tolerance": 0.05})
    first = match.matched(config)
    (file,) = (tmp_path / match.FOLDER).glob("*.json")
    good = file.read_text()
    file.write_text(json.dumps(planted))  # as files of before, without a checksum
    assert match.matched(config) == first
    assert file.read_text() == good
    file.write_bytes(match_cache.content(file, planted))
    if of == "latency" and planted == {"encoder.dim": 8}:  # what was measured stands
        assert match.matched(config).encoder["dim"] == 8
        return
    assert match.matched(config) == first
    assert file.read_text() == good
    near = {"encoder.dim": first.encoder["dim"] + (of == "latency")}
    file.write_bytes(match_cache.content(file, near))
    assert match.matched(config).budget.matched == near


@pytest.mark.parametrize("of", ["params", "latency"])
def test_a_damaged_or_edited_solution_is_told_and_solved_anew(
    tmp_path: Path, of: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if of == "latency":
        monkeypatch.setattr(match, "_solve", lambda *_: {"encoder.dim": 39})
    config = config_of(tmp_path, {"params": params(39), "latency": 6.0}[of], {"budget.match": of})
    first = match.matched(config)
    (file,) = (tmp_path / match.FOLDER).glob("*.json")
    good = file.read_text()
    stray = match_cache.content(Path("another.json"), {"encoder.dim": 39}).decode()
    for damage in (good.replace("39", "40"), good[:20], "[]", '{"solved": {"encoder.dim": "39"}}', stray):
        file.write_text(damage)
        capsys.readouterr()
        assert match.matched(config) == first
        assert file.read_text() == good
        err = capsys.readouterr().err
        assert err.startswith(f"{file}: ")
        assert err.splitlines()[0].endswith("; it is solved anew")
    capsys.readouterr()
    assert match.matched(config) == first
    assert capsys.readouterr().err == ""
    file.write_text(json.dumps({"encoder.dim": 39}))  # of before: what can be counted again is believed, and only that
    monkeypatch.setattr(match, "_solve", lambda *_: {"encoder.dim": 38})
    assert match.matched(config).encoder["dim"] == (38 if of == "latency" else 39)


def test_of_a_depth_the_width_beside_it_is_held_and_what_cannot_be_built_is_no_solution(tmp_path: Path) -> None:
    goal = real(toy_config(tmp_path, {"allowed": ALLOWED, "encoder": WIDE | {"depth": 9}}))
    config = config_of(tmp_path, goal, {"encoder": WIDE, "budget.vary": "depth", "budget.tolerance": 9.0})
    first = match.matched(config)
    (file,) = (tmp_path / match.FOLDER).glob("*.json")
    file.write_text(json.dumps({"encoder.size": 12, "encoder.inner": 16, "encoder.depth": 9}))
    assert match.matched(config) == first
    both = config_of(tmp_path / "both", goal, {"encoder": WIDE, "budget.vary": "both", "budget.tolerance": 9.0})
    first = match.matched(both)
    (file,) = (tmp_path / "both" / match.FOLDER).glob("*.json")
    file.write_text(json.dumps({"encoder.size": 7, "encoder.inner": 16, "encoder.depth": 9}))  # no multiple of 4
    assert match.matched(both) == first


@pytest.mark.parametrize("given", ["{}", "{encoder.dim: 12}", "{encoder.dim: 0}", "3"])
def test_a_solution_cannot_be_given(toy: Toy, given: str) -> None:
    words = ["budget.match=params", "budget.target=2500"]
    found = toy(*(f"+{word}" for word in words), f"+budget.matched={given}")
    assert found.code == 2, found.out
    assert "budget.matched: " in found.err
    assert "can't be given" in found.err
    assert len(found.err.strip().splitlines()) <= 2
    assert not toy.left


def test_of_many_at_once_one_solution_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(path: Path, content: bytes) -> None:
        time.sleep(0.02)  # so that all have looked before the first has written, if nothing holds them
        write_atomic(path, content)

    monkeypatch.setattr(match_cache, "write_atomic", slowly)
    path = tmp_path / match.FOLDER / "a.json"
    for damage in (None, '{"encoder.dim": '):
        if damage:
            path.write_text(damage)
        with ThreadPoolExecutor(8) as pool:
            kept = list(pool.map(lambda dim: match_cache.keep(path, {"encoder.dim": dim}, lambda *_: True), range(8)))
        assert len({one["encoder.dim"] for one in kept}) == 1
        assert match_cache.read(path) == (kept[0], True)
        assert [file.name for file in path.parent.iterdir()] == ["a.json"]


def test_what_was_solved_is_held(tmp_path: Path) -> None:
    solved = match.matched(config_of(tmp_path, 2500))
    tampered = solved.model_copy(update={"encoder": solved.encoder | {"dim": 12}})
    with pytest.raises(ConfigError, match=r"encoder\.dim was solved as .*budget\.matched=null"):
        match.matched(tampered)


def test_out_of_reach_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PairError, match=r"budget\.target: 10 parameters are out of reach of encoder toy.*dim 1"):
        match.matched(config_of(tmp_path, 10))


def test_a_target_needs_to_be_of_something(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"budget\.target: null, with match params"):
        toy_config(tmp_path, {"budget.match": "params"})
    with pytest.raises(ConfigError, match=r"budget\.match: null, with a target"):
        toy_config(tmp_path, {"budget.target": 5.0})


def test_a_sweep_solves_each_cell_and_leaves_out_what_cannot_be(tmp_path: Path) -> None:
    given = ["encoder=lstm,tcn,majority,dlinear", "task=digits", "seed=0,1", f"results={tmp_path}"]
    plan = plan_sweep([*given, "budget.match=params", "budget.target=50000"], loader=own_loader())
    solved = {(c.names.encoder, c.config.seed): c.config.encoder.get("dim") for c in plan.cells}
    assert solved["lstm", 0] == solved["lstm", 1] != solved["tcn", 0]
    assert solved["majority", 0] is None
    assert [(out.encoder, out.reason) for out in plan.left_out] == [("dlinear", "can't be matched: no dim to solve")]
    for cell in plan.cells:
        assert cell.id == run_id(cell.config, build_task(cell.config))
