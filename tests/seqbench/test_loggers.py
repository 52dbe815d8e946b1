"""Loggers: a CSV by hand, TensorBoard and W&B read back from what they wrote, with no network."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from seqbench.run import run
from seqbench.training.loggers import About, Csv, log_every, open_sinks
from tests.seqbench.toy_config import toy_config

ROOT = Path(__file__).resolve().parents[2]


def about(folder: Path, start_step: int = 0) -> About:
    return About(
        id="a1",
        folder=folder,
        label="mine",
        encoder="toy",
        task="toy_task",
        study=None,
        seed=4,
        config={"lr": 1.0},
        metrics=["hits"],
        start_step=start_step,
    )


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_csv_by_hand(tmp_path: Path) -> None:
    sink = Csv(about(tmp_path), {"every": 1})
    sink.log(1, {"train/loss": 1 / 3, "train/lr": 0.1})
    sink.log(2, {"train/loss": 0.25, "train/lr": 0.1, "valid/loss": 0.5, "valid/hits": 1.0})
    header = "step,train/loss,train/lr,valid/loss,valid/hits"
    lines = [header, "1,0.3333333333333333,0.1,,", "2,0.25,0.1,0.5,1.0"]
    assert (tmp_path / "metrics.csv").read_text().splitlines() == lines
    Csv(about(tmp_path, start_step=1), {"every": 1})  # goes on from step 1: what came after is made again
    assert (tmp_path / "metrics.csv").read_text().splitlines() == lines[:2]
    Csv(about(tmp_path), {"every": 1})
    assert (tmp_path / "metrics.csv").read_text().splitlines() == lines[:1]


def test_csv_of_a_run_is_its_curve_and_what_lies_between(tmp_path: Path) -> None:
    record = run(toy_config(tmp_path, {"logger": {"csv": {"every": 4}}})).record
    lines = rows(tmp_path / record.id / "metrics.csv")
    assert [int(line["step"]) for line in lines] == [4, 5, 8, 10, 12, 15, 16, 20]
    for point in record.curves:
        line = next(line for line in lines if int(line["step"]) == point.step)
        assert {name: float(line[name]) for name in point.values} == point.values


def test_curves_do_not_depend_on_loggers(tmp_path: Path) -> None:
    short = {"budget.steps": 6, "budget.eval_every": 3}
    curves = []
    for name, logger in {"none": {}, "csv": {"csv": {"every": 1}}}.items():
        record = run(toy_config(tmp_path / name, short | {"logger": logger})).record
        curves.append([(p.step, p.values) for p in record.curves])
        assert (tmp_path / name / record.id / "metrics.csv").is_file() == (name == "csv")
    assert curves[0] == curves[1]


def test_every_is_of_the_one_that_wants_most() -> None:
    assert log_every({"csv": {"every": 20}, "wandb": {"every": 5}}) == 5
    assert log_every({}) is None


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "logger").glob("*.yaml")), ids=lambda path: path.stem)
def test_config_files_are_taken(path: Path, tmp_path: Path) -> None:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    assert toy_config(tmp_path, {"logger": content}).logger.model_dump(exclude_none=True).keys() == content.keys()


@pytest.mark.slow
def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = run(toy_config(tmp_path, {"logger": {"tensorboard": {"every": 10}}})).record
    events = EventAccumulator(str(tmp_path / record.id / "tensorboard"))
    events.Reload()
    hits = events.Scalars("valid/hits")
    assert [(e.step, pytest.approx(e.value)) for e in hits] == [(p.step, p.values["valid/hits"]) for p in record.curves]
    assert events.Scalars("final/test/hits")[0].value == pytest.approx(record.scores["test"]["hits"].value)


@pytest.mark.slow
def test_wandb_offline_is_told_what_its_users_expect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    seen: dict[str, Any] = {}
    started = wandb.init

    def init(**kwargs: Any) -> Any:
        made = started(**kwargs)
        finish = made.finish

        def look_and_finish(**how: Any) -> None:
            seen.update(summary=dict(made.summary), how=how)
            finish(**how)

        monkeypatch.setattr(made, "finish", look_and_finish)
        seen.update(kwargs)
        return made

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_MODE", "offline")
    settings = yaml.safe_load((ROOT / "configs" / "logger" / "wandb.yaml").read_text())
    config = toy_config(tmp_path, {"logger": settings, "budget.steps": 4, "budget.eval_every": 2}, study="mine")
    record = run(config).record
    assert record.status == "finished"
    expected = {"project": "seqbench", "group": "mine", "job_type": "toy", "name": "toy-toy-s0", "id": record.id}
    assert {key: seen[key] for key in expected} == expected
    assert seen["config"] == record.config
    assert seen["mode"] == "offline"
    assert seen["how"] == {"exit_code": 0}
    assert seen["summary"]["test/hits"] == record.scores["test"]["hits"].value
    assert seen["summary"]["cost/parameters"] == record.cost.parameters
    assert wandb.run is None  # finished: the next cell of a study gets its own
    assert list((tmp_path / record.id).rglob(f"run-{record.id}.wandb"))


def test_no_logger_no_sink(tmp_path: Path) -> None:
    assert open_sinks({}, about(tmp_path)) == []
