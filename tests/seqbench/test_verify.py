"""Runs again from their records: identical where they are, named where they differ, never 'verified' when damaged."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqbench import provenance, verified
from seqbench.board import collect
from seqbench.errors import RecordError
from seqbench.record import Record
from seqbench.run import run
from seqbench.store import Store, read
from seqbench.verify import command, details
from seqbench.verify.judge import verify
from tests.seqbench.toy_config import broken, toy_config
from tests.seqbench.verifying import ALLOWED, edit, outcome, records, said, unheard


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with two toy runs, one of them trained with another number of threads in its config."""
    results = tmp_path_factory.mktemp("made") / "results"
    for changes in ({}, {"seed": 1, "encoder.dim": 6}):
        assert run(toy_config(results, {"budget.steps": 8, **changes})).record.status == "finished"
    return results


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / "results"))


# -- what is the same --------------------------------------------------------------------------------------------------
def test_all_are_identical_and_the_old_records_untouched(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    code, out, err = said(capsys, "run=all", f"results={results}", ALLOWED)
    assert (code, unheard(err)) == (0, "")
    assert out.count(": identical: 4 scores, 28 predictions") == 2
    assert out.endswith("2 of 2 verified\n")
    after = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    new = {path for path in after if path not in before}
    assert {path.name for path in new} == {"verified.json"}
    assert {path: after[path] for path in before} == before
    for path in records(results):
        found = verified.read(path.parent)
        assert found is not None
        assert found.verdict == "identical"
        assert found.passed
        assert found.same_machine_class
        assert (found.rows, found.rows_moved, found.largest_difference) == (28, 0, 0.0)
        assert found.differences == []


@pytest.mark.parametrize(
    "changes",
    [
        {"tune": {"trials": 3, "sampler": "random", "seed": 5, "space": {"optimizer.lr": {"low": 0.001, "high": 0.1}}}},
        {"budget.match": "params", "budget.target": 2500},
    ],
    ids=["tuned", "matched"],
)
def test_what_was_found_is_run_again_and_not_looked_for(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = toy_config(tmp_path, {"budget.steps": 8})
    record = run(toy_config(tmp_path, {"budget.steps": 8, **changes})).record
    if record.tuning is None:
        assert record.config["encoder"]["dim"] != base.encoder["dim"]
    else:
        assert record.config["optimizer"]["lr"] != base.optimizer["lr"]
    for place in ("seqbench.match._solve", "seqbench.run.tuned"):
        monkeypatch.setattr(place, lambda *_: pytest.fail("looked for again"))
    found = outcome(capsys, f"run={record.id}", f"results={tmp_path}")
    assert (found["verdict"], found["rows"]) == ("identical", 28)


def test_what_no_trial_has_found_is_not_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = {"optimizer.lr": {"low": 0.001, "high": 0.1}}
    tune = {"trials": 2, "sampler": "random", "seed": 5, "space": space}
    path = tmp_path / run(toy_config(tmp_path, {"budget.steps": 8, "tune": tune})).record.id / "record.json"
    honest = path.read_text()

    def another(record: dict[str, Any]) -> None:
        record["config"]["optimizer"]["lr"] = record["config"]["tune"]["chosen"]["optimizer.lr"] = 0.5

    for change in (
        another,
        lambda record: record.update(tuning=None),
        lambda record: record["config"]["tune"].update(chosen=None),
        lambda record: record["tuning"].update(chosen=7),
        lambda record: record["config"]["optimizer"].update(lr=0.5),
    ):
        path.write_text(honest)
        edit(path, change)
        found = outcome(capsys, f"run={path}", f"results={tmp_path}")
        assert found["verdict"] == "impossible"
        assert "trial" in found["reason"]


def test_a_record_is_found_by_id_beginning_path_and_folder(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = records(results)[0]
    for name in (path.parent.name, path.parent.name[:6], str(path), str(path.parent)):
        assert outcome(capsys, f"run={name}", f"results={results}")["id"] == path.parent.name


def test_a_bare_record_is_compared_by_scores_and_known_predictions(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "published" / "toy.json"
    bare.parent.mkdir()
    shutil.copy(records(results)[0], bare)
    assert outcome(capsys, f"run={bare}")["rows"] == 28, "the record's checksum of the predictions tells"
    edit(bare, lambda record: record.update(predictions=None))
    alone = outcome(capsys, f"run={bare.parent}")
    assert (alone["verdict"], alone["rows"]) == ("identical", 0)
    assert "has no predictions" in alone["reason"]
    assert (bare.parent / "toy.verified.json").is_file()


def test_a_divergence_comes_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = run(toy_config(tmp_path, {**broken("nan", 7), "budget.steps": 8})).record
    assert record.status == "diverged"
    found = outcome(capsys, f"run={record.id}", f"results={tmp_path}")
    assert found["verdict"] == "identical"
    assert f"diverged at step {record.failed_at_step}" in found["reason"]
    edit(tmp_path / record.id / "record.json", lambda r: r.update(failed_at_step=2))
    assert outcome(capsys, f"run={record.id}", f"results={tmp_path}")["verdict"] == "different"
    edit(
        tmp_path / record.id / "record.json",
        lambda r: (r.update(failed_at_step=record.failed_at_step), r["splits"]["train"].update(truncated=40)),
    )
    edited = outcome(capsys, f"run={record.id}", f"results={tmp_path}")
    assert edited["verdict"] == "different"
    assert "again, but " in edited["reason"]
    assert "split train: truncated 40 -> " in " ".join(edited["differences"])


def test_runs_that_did_not_finish_are_left_out_of_all(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = records(results)
    edit(one, lambda record: record.update(status="interrupted", reason="stopped by SIGINT"))
    code, out, _ = said(capsys, "run=all", f"results={results}", ALLOWED)
    assert code == 0
    assert "1 of 1 verified; 1 left out" in out
    alone = outcome(capsys, f"run={one.parent.name}", f"results={results}")
    assert alone["verdict"] == "impossible"
    assert not (other.parent / "verified.json").read_text().startswith("x")


# -- elsewhere ---------------------------------------------------------------------------------------------------------
def shift(split: str, by: float) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        record["scores"][split]["hits"]["value"] += by
        record["predictions"] = None

    return change


@pytest.mark.parametrize(
    "field, value, verdict",
    [
        (None, None, "different"),
        ("machine_class", "another CPU, 1 thread", "within_tolerance"),
        ("deterministic", False, "different"),
        ("python", "3.99.1", "within_tolerance"),
        ("packages", {"torch": "1.0"}, "within_tolerance"),
        ("packages", {"wandb": "0.1"}, "different"),
    ],
)
def test_a_small_difference_passes_elsewhere_alone(
    results: Path, capsys: pytest.CaptureFixture[str], field: str | None, value: Any, verdict: str
) -> None:
    path = records(results)[0]

    def change(record: dict[str, Any]) -> None:
        shift("test", 0.01)(record)
        if field == "packages":
            record["environment"]["packages"].update(value)
        elif field:
            record["environment"][field] = value

    edit(path, change)
    found = outcome(capsys, f"run={path}")
    assert found["verdict"] == verdict
    assert found["largest_difference"] == pytest.approx(0.01)
    edit(path, shift("test", 0.02))
    assert outcome(capsys, f"run={path}")["verdict"] == "different", "beyond the tolerance everywhere"
    assert outcome(capsys, f"run={path}", "tolerance=0.04")["verdict"] == verdict


def test_a_run_by_the_clock_has_a_tolerance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    budget = {"budget.steps": None, "budget.seconds": 0.05}
    record = run(toy_config(tmp_path, budget)).record
    found = outcome(capsys, f"run={record.id}", f"results={tmp_path}", "tolerance=1")
    assert found["verdict"] in ("identical", "within_tolerance")
    assert any(line.startswith("budget.seconds: 0.05") for line in found["differences"])


def test_what_differs_is_named(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = records(results)[0]

    def change(record: dict[str, Any]) -> None:
        record["code"]["files"] |= {"tasks/base.py": "0", "tasks/data/scan.py": "0", "seqbench/fit.py": "0"}
        record["environment"]["packages"]["torch"] = "2.12.0"
        record["environment"]["machine_class"] = "abacus, 1 thread"
        record["scores"]["test"]["hits"]["value"] += 0.3
        record["predictions"] = None

    edit(path, change)
    code, out, _ = said(capsys, f"run={path}", ALLOWED)
    assert code == 1
    torch = provenance.packages()["torch"]
    for line in (
        "code: tasks/base.py changed",
        "code: seqbench/fit.py changed",
        "code: 1 files that the run does not stand on changed",
        f"package torch: 2.12.0 -> {torch}",
        "machine class: abacus, 1 thread -> ",
    ):
        assert f"\n  {line}" in out


def test_no_training_is_paid_for_data_of_another_checksum(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it was run")

    monkeypatch.setattr("seqbench.run.run", never)
    one, other = records(results)
    edit(one, lambda record: record["splits"]["train"].update(sha256="0" * 64))
    found = outcome(capsys, f"run={one}")
    assert found["verdict"] == "impossible"
    assert "split train: examples sha256 000000000000 recorded, " in found["reason"]
    edit(other, lambda record: record["data"].append({"name": "train.tsv", "url": "file:x", "sha256": "1" * 64}))
    found = outcome(capsys, f"run={other}")
    assert "data file train.tsv: sha256 111111111111 recorded, missing here" in found["reason"]


# -- planted damage ----------------------------------------------------------------------------------------------------
def swap(results: Path) -> None:
    one, other = (path.parent for path in records(results))
    one.rename(results / "aside")
    other.rename(one)
    (results / "aside").rename(other)


def swap_predictions(results: Path) -> None:
    one, other = (path.parent / "predictions.parquet" for path in records(results))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def forged_predictions(results: Path) -> None:
    """Edited with the checksum mended: rows that are right by hand, statistics as they were."""
    path = records(results)[0]
    file = path.parent / "predictions.parquet"
    table = pq.read_table(file)
    table = table.set_column(2, "prediction", pa.array(['"yes"'] * table.num_rows, pa.string()))
    pq.write_table(table, file)
    edit(path, lambda record: record["predictions"].update(sha256=hashlib.sha256(file.read_bytes()).hexdigest()))


def first(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda results: edit(records(results)[0], change)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (lambda r: records(r)[0].write_bytes(records(r)[0].read_bytes()[:700]), "cut off"),
    "empty": (lambda r: records(r)[0].write_bytes(b""), "no JSON object"),
    "foreign version": (first(lambda r: r.update(schema_version=99)), "has schema_version 99"),
    "a field too many": (first(lambda r: r.update(extra=1)), "does not know"),
    "swapped folders": (swap, "swapped"),
    "swapped predictions": (swap_predictions, "not the file that the record names"),
    "truncated predictions": (
        lambda r: (records(r)[0].parent / "predictions.parquet").write_bytes(b"PAR1"),
        "not the file that the record names",
    ),
    "forged predictions": (forged_predictions, "predictions moved"),
    "edited score": (first(lambda r: r["scores"]["test"]["hits"].update(value=0.987654)), "edited"),
    "edited count": (first(lambda r: r["scores"]["test"]["hits"].update(n=15)), "edited"),
    "edited score, no predictions": (first(shift("test", 1e-6)), "test/hits"),
    "edited count, no predictions": (
        first(lambda r: (r["scores"]["test"]["hits"].update(n=15), r.update(predictions=None))),
        "test/hits",
    ),
    "a score too many": (
        first(lambda r: (r["scores"]["test"].update(more=r["scores"]["test"]["hits"]), r.update(predictions=None))),
        "test/more",
    ),
    "no scores": (first(lambda r: r.update(scores={})), "nothing to compare"),
    "edited seed": (first(lambda r: r.update(seed=5)), "edited"),
    "edited seed twice": (first(lambda r: (r.update(seed=5), r["config"].update(seed=5))), "makes the id"),
    "edited config": (first(lambda r: r["config"]["budget"].update(steps=9)), "makes the id"),
    "edited id": (first(lambda r: r.update(id="../../../../tmp/x")), "is no id"),
    "another task": (first(lambda r: r["config"]["task"].update(max_length=6)), "makes the id"),
    "unbuildable": (first(lambda r: r["config"]["encoder"].update(dim=-1)), "encoder.dim"),
    "config gone": (first(lambda r: r.update(config={})), "config"),
    "predictions elsewhere": (first(lambda r: r["predictions"].update(path="../../x")), "said to be in"),
}


FACTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    **{
        f"cost.{name}": (lambda r, name=name: r["cost"].update({name: r["cost"][name] * 3}), f"cost.{name} ")  # type: ignore[misc]
        for name in (*details.SIZES, *details.TRAINED, "flops_forward")
    },
    "a curve's value": (
        lambda r: r["curves"][0]["values"].update({"valid/loss": 0.001}),
        "curves: valid/loss at step ",
    ),
    "a curve's last bit": (
        lambda r: r["curves"][-1]["values"].update(
            {"valid/loss": r["curves"][-1]["values"]["valid/loss"] * (1 + 1e-15)}
        ),
        "curves: valid/loss at step 8",
    ),
    "a curve's value gone": (lambda r: r["curves"][0]["values"].pop("valid/hits"), "curves: valid/hits at step "),
    "a curve's steps": (lambda r: r["curves"][-1].update(step=7), "curves: "),
    "a curve's tokens": (lambda r: r["curves"][0].update(tokens=1), "curves: tokens at step "),
    "no curves": (lambda r: r.update(curves=[]), "curves: none -> "),
    "best step": (lambda r: r.update(best_step=1), "best_step 1 -> "),
    "a split's truncated": (lambda r: r["splits"]["train"].update(truncated=40), "split train: truncated 40 -> "),
    "a split's positions": (lambda r: r["splits"]["test"].update(positions=1), "split test: positions 1 -> "),
}


@pytest.mark.parametrize("name", FACTS)
def test_an_edited_fact_beside_the_scores_is_named(
    name: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, line = FACTS[name]
    path = records(results)[0]
    edit(path, change)
    found = outcome(capsys, f"run={path}")
    assert found["verdict"] == "different"
    assert f"4 scores, 28 predictions are as recorded, but {line}" in found["reason"]
    assert any(text.startswith(line) for text in found["differences"])
    assert details.NO_SEAL in found["differences"]
    assert {score["difference"] for score in found["scores"]} == {0.0}


@pytest.mark.parametrize("budget, free", [({}, False), ({"patience": 2}, True), ({"seconds": 9.0}, True)])
def test_elsewhere_facts_have_the_tolerance(results: Path, budget: dict[str, Any], free: bool) -> None:
    record = read(records(results)[0])
    record = record.model_copy(update={"config": {**record.config, "budget": {**record.config["budget"], **budget}}})

    def other(cost: dict[str, Any], value: float, best_step: int | None = None) -> Record:
        points = [p.model_copy(update={"values": {k: v + value for k, v in p.values.items()}}) for p in record.curves]
        changed = {"cost": record.cost.model_copy(update=cost), "curves": points, "best_step": best_step}
        return record.model_copy(update=changed)

    def found(again: Record) -> tuple[list[str], list[str]]:
        wrong, told = details.differences(record, again, 0.02)
        return [line.split()[0] for line in wrong], [line.split()[0] for line in told]

    tokens = record.cost.train_tokens
    assert tokens
    assert found(other({}, 0.01, record.best_step)) == ([], [])
    assert found(other({}, 0.01, 0)) == ([], ["best_step"])
    curves = [] if "seconds" in budget else ["curves:"]
    assert found(other({}, 0.03 * 5, record.best_step)) == (curves, [])
    assert found(other({"parameters": 1}, 0.0, record.best_step)) == (["cost.parameters"], [])
    much = found(other({"train_tokens": 2 * tokens}, 0.0, record.best_step))
    assert much == (([], ["cost.train_tokens"]) if free else (["cost.train_tokens"], []))
    assert found(other({"train_tokens": tokens + 1}, 0.0, record.best_step)) == ([], [])


def test_only_records_of_before_have_no_seal(results: Path) -> None:
    path = records(results)[0]
    assert details.unsealed(path, read(path)) is None
    edit(path, lambda record: None)
    assert details.unsealed(path, read(path)) == details.NO_SEAL
    edit(path, lambda record: record.update(ids=2))
    assert details.unsealed(path, read(path)) is None


def test_a_changed_package_of_the_users_own_is_named(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = records(results)[0]

    def change(record: dict[str, Any]) -> None:
        assert set(record["code"]["own"]) == {"tests"}
        record["code"]["own"]["tests"] = "0" * 64
        record["config"]["seed"] = record["seed"] = 5

    edit(path, change)
    found = outcome(capsys, f"run={path}")
    assert found["verdict"] == "different"
    assert "package tests: its source has changed" in found["differences"]


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told_and_never_verified(
    name: str, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant, reason = DAMAGE[name]
    path = records(results)[0]
    plant(results)
    code, out, err = said(capsys, f"run={path}", ALLOWED)
    assert (code, unheard(err)) == (1, "")
    lines = out.splitlines()
    assert reason in lines[0], out
    assert "identical" not in out
    assert "within" not in out
    assert outcome(capsys, f"run={path}")["verdict"] in ("different", "impossible")
    found = verified.read(path.parent)
    assert found is None or not found.passed


def test_a_verdict_is_about_what_the_record_said(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = records(results)[0]
    assert outcome(capsys, f"run={path}")["verdict"] == "identical"
    assert verified.read(path.parent) is not None
    edit(path, lambda record: record.update(seed=record["seed"] + 1))
    assert verified.read(path.parent) is None
    (path.parent / "verified.json").write_text("{")
    with pytest.raises(RecordError, match="verify again"):
        verified.read(path.parent)


# -- records from strangers --------------------------------------------------------------------------------------------
EVIL = """
import pathlib
pathlib.Path(__file__).with_name("ran").touch()
class Encoder:
    def __init__(self, **kwargs):
        pathlib.Path(__file__).with_name("ran").touch()
"""


@pytest.mark.parametrize("place", ["encoder", "task", "optimizer", "task.data", "task.metrics.0", "encoder.dim"])
def test_nothing_outside_the_users_packages_is_touched(
    place: str, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stranger.py").write_text(EVIL)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = records(results)[0]

    def plant(record: dict[str, Any]) -> None:
        record["config"]["allowed"] = ["stranger", "encoders", "tasks", "torch", "os", "tests"]
        *sections, last = place.split(".")
        node: Any = record["config"]
        for section in sections:
            node = node[section]
        where: Any = int(last) if last.isdigit() else last
        node[where] = {"_target_": "stranger.Encoder"}
        if place == "encoder":
            record["encoder"]["target"] = "stranger.Encoder"

    edit(path, plant)
    found = outcome(capsys, f"run={path}")
    assert found["verdict"] == "impossible"
    assert not (tmp_path / "ran").exists()
    assert "stranger" not in sys.modules


def test_what_the_record_allows_does_not_count(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, f"run={records(results)[0]}")
    assert code == 1
    assert "tests.seqbench.toy.ToyEncoder is not in a package that configs may use" in out


def test_a_strangers_words_reach_the_terminal_harmlessly(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = records(results)[0]
    edit(path, lambda record: record["encoder"].update(label="\x1b[2Jcleared\nidentical"))
    _, out, _ = said(capsys, f"run={path}", ALLOWED)
    assert "\x1b" not in out
    title, seal = out.splitlines()
    assert title.endswith(": identical: 4 scores, 28 predictions")
    assert seal.startswith("  although the record has no seal")


ESCAPE = "\x1b]0;title\x07\x1b[2J\x9b"


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update({ESCAPE: 1}),
        lambda record: record.update(schema_version=ESCAPE),
        lambda record: record["splits"].update({ESCAPE: {}}),
        lambda record: record.update(id=ESCAPE),
    ],
    ids=["key", "version", "section", "id"],
)
def test_nor_does_what_is_said_of_a_damaged_record(
    change: Callable[[dict[str, Any]], Any], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = records(results)[0]
    edit(path, change)
    code, out, err = said(capsys, f"run={path}", ALLOWED)
    assert code == 1
    notices = [damage.reason for damage in Store(results).all()[1]]
    (path.parent / "verified.json").write_text(json.dumps({ESCAPE: 1}))
    with pytest.raises(RecordError) as caught:
        verified.read(path.parent)
    left_out = collect.read(results)[1]
    assert len(notices) == len(left_out) == 1
    for text in (*out.splitlines(), err.rstrip("\n"), *notices, *left_out, str(caught.value)):
        assert text.isprintable(), repr(text)


def test_a_time_limit_of_the_machine_that_made_it_does_not_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run(toy_config(tmp_path, {"budget.steps": 8, "trainer.time_limit": 600.0})).record
    edit(tmp_path / record.id / "record.json", lambda r: r["config"]["trainer"].update(time_limit=1e-6))
    assert outcome(capsys, f"run={record.id}", f"results={tmp_path}")["verdict"] == "identical"


def test_neither_logger_nor_results_of_the_record_are_used(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = records(results)[0]
    place = tmp_path / "elsewhere"
    loggers = {"csv": {"every": 1}, "tensorboard": {"every": 1}}
    edit(path, lambda record: record["config"].update(results=str(place), logger=loggers))
    record = Record.model_validate_json(path.read_text())
    monkeypatch.setattr("seqbench.attempt.open_sinks", lambda options, about: [] if not options else 1 / 0)
    allowed = ["encoders", "tasks", "torch.optim", "tests.seqbench.toy"]
    assert verify(path, record, allowed=allowed, tolerance=0.0).verdict == "identical"
    assert not place.exists()


# -- the command -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "arguments, text",
    [
        ((), "run: which one?"),
        (("run=0123456789abcdef",), "run: 0123456789abcdef is neither the id"),
        (("run=all", "results=nowhere"), "results: no record under nowhere"),
        (("run=all", "reslts=x"), "reslts"),
        (("all",), "'all' is not key=value"),
        (("run=all", "tolerance=-1"), "tolerance"),
        (("run=all", "tolerance=much"), "tolerance: 'much' is not a number"),
        (("run=all", "allowed=[tasks,"), "allowed"),
        (("run=all", "study=nothing"), "study: no record of the study nothing"),
    ],
)
def test_mistakes_are_told_in_a_line(
    arguments: tuple[str, ...], text: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = () if any(a.startswith("results=") for a in arguments) else (f"results={results}",)
    code, out, err = said(capsys, *arguments, *places)
    assert (code, out) == (2, "")
    assert text in err
    assert len(err.splitlines()) <= 3


def test_an_interrupt_is_no_verdict(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("seqbench.verify.judge.verify", stop)
    assert said(capsys, "run=all", f"results={results}")[0] == command.INTERRUPTED
    assert not list(results.rglob("verified.json"))


def test_help_lists_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "--help")
    assert code == 0
    assert all(f"{key}:" in out for key in command.Settings.model_fields)
