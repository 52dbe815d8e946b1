"""Tuned runs verified: what was searched, which trial was taken, and the scores of trials made once more."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqbench.records.store import read
from seqbench.run import run
from tests.seqbench.toy_config import toy_config
from tests.seqbench.verifying import edit, outcome

LEFT = "tuning: 2 of 3 trials were not made again; trials=all makes them, too"
SPACE = {"optimizer.lr": {"low": 0.001, "high": 0.1}, "encoder.dropout": {"low": 0.0, "high": 0.3}}


@pytest.fixture(scope="module", params=["random", "tpe"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("tuned") / "results"
    tune = {"trials": 3, "sampler": request.param, "seed": 5, "space": SPACE}
    return results / run(toy_config(results, {"budget.steps": 8, "tune": tune})).record.id / "record.json"


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    """The record of a copy to damage; without the trials' own records, which verify does not need."""
    return Path(shutil.copytree(made.parent, tmp_path / "results" / made.parent.name)) / made.name


def test_the_trial_that_was_chosen_is_made_again_and_the_rest_is_told(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = outcome(capsys, f"run={path}")
    assert (found["verdict"], found["differences"]) == ("identical", [LEFT])
    every = outcome(capsys, f"run={path}", "trials=all")
    assert (every["verdict"], every["differences"]) == ("identical", [])
    none = outcome(capsys, f"run={path}", "trials=none")
    assert (none["verdict"], none["differences"]) == ("identical", [LEFT.replace("2 of", "3 of")])


def other_than_chosen(record: dict[str, Any]) -> int:
    return next(n for n in range(3) if n != record["tuning"]["chosen"])


def worsen(record: dict[str, Any], number: int) -> None:
    trial = record["tuning"]["trials"][number]
    trial["value"] -= 1e-9


def choose_another(record: dict[str, Any]) -> None:
    """Another trial with its settings, as if it had been the best."""
    number = other_than_chosen(record)
    trials = record["tuning"]["trials"]
    trials[number]["settings"] = trials[record["tuning"]["chosen"]]["settings"]
    trials[number]["value"] = trials[record["tuning"]["chosen"]]["value"] - 0.5
    record["tuning"]["chosen"] = number


EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "score of the chosen": (
        lambda r: r["tuning"]["trials"][r["tuning"]["chosen"]].update(value=9.0),
        "has the validation score 9.0, again ",
    ),
    "end of the chosen": (
        lambda r: r["tuning"]["trials"][r["tuning"]["chosen"]].update(status="diverged"),
        " diverged -> finished",
    ),
    "another chosen": (choose_another, "is chosen, but by the recorded scores it is "),
    "settings": (
        lambda r: r["tuning"]["trials"][other_than_chosen(r)]["settings"].update({"optimizer.lr": 0.05}),
        "other settings than the search suggests",
    ),
    "seed": (lambda r: r["tuning"].update(seed=6), "tuning: seed 6 -> 5"),
    "space": (lambda r: r["tuning"]["space"]["optimizer.lr"].update(high=0.2), "tuning: space "),
    "a trial less": (
        lambda r: r["tuning"].update(trials=[t for t in r["tuning"]["trials"] if t["number"] != other_than_chosen(r)]),
        "tuning: 2 trials in the record, 3 asked for by its config",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_tuning_is_named(name: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, text = EDITS[name]
    edit(path, change)
    found = outcome(capsys, f"run={path}")
    assert found["verdict"] == "different"
    assert any(line.startswith("tuning: ") and text in line for line in found["differences"]), found["differences"]
    assert {score["difference"] for score in found["scores"]} == {0.0}


def test_the_score_of_any_trial_is_held_against_the_trial_made_again(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = read(path)
    assert record.tuning is not None
    edit(path, lambda r: worsen(r, other_than_chosen(r)))
    assert LEFT in outcome(capsys, f"run={path}")["differences"]
    found = outcome(capsys, f"run={path}", "trials=all")
    assert found["verdict"] == "different"
    number = other_than_chosen({"tuning": {"chosen": record.tuning.chosen}})
    assert f"but tuning: trial {number} has the validation score " in found["reason"]
    edit(path, lambda r: r["environment"].update(machine_class="abacus, 1 thread"))
    assert outcome(capsys, f"run={path}", "trials=all")["verdict"] == "identical"  # elsewhere trials may move
    edit(path, lambda r: r["tuning"]["trials"][number].update(value=-0.1))
    assert outcome(capsys, f"run={path}", "trials=all")["verdict"] == "different"
