"""Runs again from their records: identical where they are, named where they differ, never 'verified' when damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqbench.errors import ConfigError
from seqbench.records import provenance, verified
from seqbench.run import run
from seqbench.verify import command
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
    for place in ("seqbench.matching.match._solve", "seqbench.run.tuned"):
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
    (bare.parent / "claims.json").write_text("{}")  # verdicts of claims, no record
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
        record["code"]["files"] |= {"tasks/base.py": "0", "tasks/data/scan.py": "0", "seqbench/training/fit.py": "0"}
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
        "code: seqbench/training/fit.py changed",
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


def test_ids_are_found_among_published_records_after_ones_own(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = records(results)[0]
    monkeypatch.setattr(command, "PUBLISHED", results)
    [found] = command.choose(command.read_settings([f"run={mine.parent.name}", f"results={tmp_path}"]))[0]
    assert found.path == mine
    monkeypatch.setattr(command, "PUBLISHED", tmp_path)
    [found] = command.choose(command.read_settings([f"run={mine.parent.name}", f"results={results}"]))[0]
    assert found.path == mine
    with pytest.raises(ConfigError, match="neither the id of a record"):
        command.choose(command.read_settings([f"run={mine.parent.name}", f"results={tmp_path}"]))


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
