"""Records edited, swapped, cut off: named, and never verified."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqbench.errors import RecordError
from seqbench.record import Record
from seqbench.records import verified
from seqbench.records.store import read
from seqbench.run import run
from seqbench.verify import details
from tests.runs.test_verify import shift
from tests.seqbench.toy_config import toy_config
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
