"""Calibration: lines that can be run, a page that is made from the records, goals that can be missed."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from seqbench import calibration
from seqbench.calibration import Figure, Line, publish, read_figures, read_lines, shown, table, with_table
from seqbench.errors import ConfigError
from seqbench.records.store import Store
from seqbench.run import run
from seqbench.studies.study import plan_sweep

LINES = read_lines()
FIGURES = read_figures(calibration.PUBLISHED)


def line(**changes: Any) -> Line:
    content = {
        "task": "`listops`",
        "model": "majority",
        "run": ["task=listops", "encoder=majority", "task.data.train=60", "task.data.valid=30", "task.data.test=50"],
        "seeds": [0],
        "metric": "accuracy",
        "name": "accuracy",
        "scale": "%",
        "digits": 1,
        "at_least": 5.0,
        "source": "nowhere",
        "looked_up": True,
    }
    return Line.model_validate(content | changes)


@pytest.mark.parametrize("name", LINES)
def test_a_line_composes_and_names_its_tasks_headline(name: str) -> None:
    from seqbench.build import build_task

    cell = plan_sweep(LINES[name].overrides()).cells[0]
    assert build_task(cell.config).headline.name == LINES[name].metric
    assert len(plan_sweep(LINES[name].overrides()).cells) == len(LINES[name].seeds)


def test_the_page_is_made_of_the_figures() -> None:
    page = calibration.PAGE.read_text()
    assert with_table(page, LINES, FIGURES) == page


@pytest.mark.parametrize("name", FIGURES)
def test_a_published_figure_is_the_mean_of_its_records(name: str) -> None:
    figure, this = FIGURES[name], LINES[name]
    records = [Store(calibration.PUBLISHED).find(run_id) for run_id in figure.ids]
    scores = [record.scores["test"][this.metric].value for record in records if record is not None]
    assert len(scores) == len(this.seeds)
    assert fmean(score for score in scores if score is not None) == pytest.approx(figure.mean, rel=1e-9)
    assert [record.seed for record in records if record is not None] == this.seeds
    assert all(record.status == "finished" and record.predictions is None for record in records if record is not None)


@pytest.mark.slow
def test_publishing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = {"there": line(), "absent": line(seeds=[0, 1])}
    monkeypatch.setattr(calibration, "read_lines", lambda: lines)
    results, into, page = tmp_path / "results", tmp_path / "published", tmp_path / "page.md"
    page.write_text(f"before\n{calibration.BEGIN}\nold\n{calibration.END}\nafter\n")
    (cell,) = plan_sweep([*lines["there"].overrides(), f"results={results}"]).cells
    record = run(cell.config).record
    told = publish(results, [], into, page)
    value = record.scores["test"]["accuracy"].value
    assert value is not None
    assert told[0].startswith(f"there: {100 * value:.1f} (")
    assert told[1] == "absent: not all runs are there: python scripts/calibration.py run absent"
    kept = Store(into).find(record.id)
    assert kept is not None
    assert kept.scores == record.scores
    assert str(tmp_path) not in (into / record.id / "record.json").read_text()
    assert sorted(path.name for path in (into / record.id).iterdir()) == ["record.json"]
    assert json.loads((into / calibration.FIGURES).read_text())["there"]["mean"] == value
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert f"| {100 * value:.1f} (" in text
    assert "not run" in text


@pytest.mark.parametrize(
    "goal, value, reached",
    [
        ({"at_least": 5.0}, 5.0, True),
        ({"at_least": 5.0}, 4.9, False),
        ({"at_least": None, "at_most": 5.0}, 5.1, False),
        ({"at_least": None, "within": 0.5, "published": 5.0}, 5.4, True),
        ({"at_least": None, "within": 0.5, "published": 5.0}, 4.4, False),
    ],
)
def test_a_goal_can_be_missed_and_the_table_says_so(goal: dict[str, Any], value: float, reached: bool) -> None:
    this = line(**goal)
    assert this.reached(value) is reached
    figure = Figure(mean=value / 100, low=value / 100 - 0.01, high=value / 100 + 0.01, basis="", ids=["a"])
    row = next(row for row in table({"x": this}, {"x": figure}).splitlines() if "listops" in row)
    assert row.endswith(f"| {'reached' if reached else 'missed'} |")
    assert f"{shown(this, figure)}" in row


def test_lines_without_a_goal_and_pages_without_a_place(tmp_path: Path) -> None:
    (tmp_path / "lines.yaml").write_text(json.dumps({"x": line().model_dump() | {"at_least": None}}))
    with pytest.raises(ConfigError, match=r"lines.yaml: x.*at_least, at_most"):
        read_lines(tmp_path / "lines.yaml")
    with pytest.raises(ConfigError, match="no place"):
        with_table("nothing", LINES, FIGURES)
