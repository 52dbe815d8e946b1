"""The board on unequal rows: differences named, matches told with what they leave over, tuned rows marked."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from seqbench.board import budgets, markdown, page, tuned
from seqbench.board.entries import Entry
from seqbench.board.model import Board
from seqbench.board.summary import Method
from seqbench.board.table import build
from seqbench.record import MatchFacts, Record, TrialFacts, TuningFacts
from tests.seqbench import board_records as made


def match_of(reached: float, **keys: Any) -> MatchFacts:
    given: dict[str, Any] = {"of": "params", "count": "all", "target": 1e6, "tolerance": 0.02, "solved": {}} | keys
    return MatchFacts(reached=reached, leftover=(reached - given["target"]) / given["target"], **given)


def tuning_of(*values: float | None, sampler: str = "random", **keys: Any) -> TuningFacts:
    trials = [
        TrialFacts(number=i, settings={}, status="finished" if v is not None else "diverged", value=v)
        for i, v in enumerate(values)
    ]
    given: dict[str, Any] = {"seed": 0, "space": {}, "metric": "accuracy", "best": "max", "chosen": 0} | keys
    return TuningFacts(sampler=sampler, trials=trials, **given)


def record_of(folder: Path, encoder: str, parameters: int = 100_000, **keys: Any) -> Record:
    return made.write(folder, encoder=encoder, parameters=parameters).model_copy(update=keys)


def board_of(*records: Record) -> Board:
    return build(
        title="t",
        entries=[Entry(record=record, folder=Path(record.id)) for record in records],
        expected=None,
        split="test",
        method=Method(confidence=0.95, draws=100, seed=0),
    )


def test_what_differs_is_named(tmp_path: Path) -> None:
    rows = [[record_of(tmp_path, "lstm", 210_000)], [record_of(tmp_path, "tcn", 1_020_000)]]
    (notice,) = budgets.notices(rows, "scan")
    assert notice.startswith(
        "scan: the rows differ in parameters 210k to 1.02M; training FLOPs 1.26T to 6.12T; latency"
    )
    assert budgets.notices(rows[:1], "scan") == []


def test_what_was_measured_on_a_busy_machine_is_not_called_equal(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"of": "latency", "count": None, "target": 6.0, "tolerance": 0.2}
    rows = [
        [record_of(tmp_path, name, match=match_of(6.0, spread=spread, **keys))]
        for name, spread in (("a", 0.2), ("b", 0.0))
    ]
    assert "matched on latency, ms at 6 within 0.0 %" in budgets.notices(rows, "scan")[0]
    rows[0] = [record_of(tmp_path, "a", match=match_of(6.0, spread=0.21, **keys))]
    (notice, *_) = budgets.notices(rows, "scan")
    assert "1 of 2 were measured no surer than 21 %" in notice
    assert notice.endswith("the rows can't be called equal")


@pytest.mark.parametrize(("parameters", "told"), [(101_900, False), (102_100, True)])
def test_two_per_cent_are_equal(tmp_path: Path, parameters: int, told: bool) -> None:
    rows = [[record_of(tmp_path, "lstm")], [record_of(tmp_path, "tcn", parameters)]]
    assert any("parameters" in notice for notice in budgets.notices(rows, "x")) == told


def test_a_match_says_what_it_leaves_over(tmp_path: Path) -> None:
    near = [[record_of(tmp_path, name, match=match_of(r))] for name, r in (("lstm", 1_013_000), ("tcn", 999_000))]
    assert budgets.notices(near, "x")[0] == "x: matched on parameters at 1M within 1.3 %"
    for far in (1_030_000, 970_000):
        missed = [near[0], [record_of(tmp_path, "gru", match=match_of(far))]]
        assert "up to 3.0 % off: the rows are not equal" in budgets.notices(missed, "x")[0]
    mixed = [near[0], [record_of(tmp_path, "gru")]]
    assert "1 of 2 runs are matched" in budgets.notices(mixed, "x")[0]
    other = [near[0], [record_of(tmp_path, "gru", match=match_of(2e6, target=2e6))]]
    assert "on 2 targets: the rows are not equal" in budgets.notices(other, "x")[0]


@pytest.mark.parametrize("draws", range(1, 7))
def test_expected_best_by_all_subsets(draws: int) -> None:
    values = [*np.random.default_rng(3).normal(size=6).tolist(), 0.5]
    expected = fmean(max(subset) for subset in itertools.combinations(values, draws))
    assert tuned.expected_best(values, draws) == pytest.approx(expected)


def test_expected_best_is_of_one_to_all() -> None:
    assert tuned.expected_best([3.0, 1.0, 2.0], 1) == pytest.approx(2.0)
    assert tuned.expected_best([3.0, 1.0, 2.0], 3) == 3.0
    for draws in (0, 4):
        with pytest.raises(ValueError, match=f"draws: {draws} of 3"):
            tuned.expected_best([3.0, 1.0, 2.0], draws)


def test_the_curve_of_losses_of_failures_and_of_sequences() -> None:
    assert tuned.curve(tuning_of(3.0, 1.0, 2.0, best="min")) == pytest.approx([2.0, 4 / 3, 1.0])
    assert tuned.curve(tuning_of(0.2, None, 0.8)) == pytest.approx([0.4, 0.6, 0.8])
    assert tuned.curve(tuning_of(0.2, 0.1, 0.8, sampler="tpe")) == [0.2, 0.2, 0.8]
    assert tuned.curve(tuning_of(None)) == []


def test_tuned_and_untuned_rows_are_marked(tmp_path: Path) -> None:
    records = [
        record_of(tmp_path, "lstm", tuning=tuning_of(0.2, 0.4)),
        record_of(tmp_path, "tcn"),
        record_of(tmp_path, "gru", tuning=tuning_of(0.2, 0.4, 0.6)),
    ]
    board = board_of(*records)
    marked = {cell.row for cell in board.cells.values() if any(mark.kind == "tuned" for mark in cell.marks)}
    assert {row.label for row in board.rows if row.id in marked} == {"lstm", "gru"}
    notices = "\n".join(board.columns[0].notices)
    assert "not tuned, unlike the others, so no fair pair with them: tcn" in notices
    assert "the rows were not tuned alike: 2 searches" in notices
    lines = [trials.line() for trials in board.columns[0].trials]
    assert "lstm, validation accuracy expected of the best of n trials: 1: 0.3, 2: 0.4" in lines
    assert all(f"- {line}" in markdown.render(board) for line in lines)
    drawn = page.payload(board, out=tmp_path)["trials"]
    labels = [row.label for row in board.rows]
    assert {labels[line["row"]]: line["points"] for line in drawn} == {
        "lstm": pytest.approx([0.3, 0.4]),
        "gru": pytest.approx([0.4, 1.6 / 3, 0.6]),
    }
    html = page.render(board, out=tmp_path)
    table = html.partition('<section id="trials"')[2].partition("</section>")[0]
    cells = [tuple(re.findall(r'class="number">([^<]+)', row)) for row in table.split("<tr")[1:]]
    assert cells[0] == ("1", "2", "3")
    assert set(cells[1:]) == {("30.0", "40.0", "–"), ("40.0", "53.3", "60.0")}


def test_nothing_is_drawn_where_no_row_was_tuned(tmp_path: Path) -> None:
    board = board_of(record_of(tmp_path, "lstm"), record_of(tmp_path, "tcn", tuning=tuning_of(None)))
    assert page.payload(board, out=tmp_path)["trials"] == []
    assert '<section id="trials"' not in page.render(board, out=tmp_path)
