"""Rows of a board against each other: ranks, aggregates, floors, what is told of races."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seqbench.board import summary, words
from seqbench.board.model import Board
from seqbench.record import Status
from tests.seqbench import board_records as made
from tests.seqbench.test_board_table import board_of, cell


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    results = tmp_path_factory.mktemp("board") / "results"
    made.study(results)
    return board_of(results)


def test_a_row_that_failed_ranks_last_and_says_so(board: Board) -> None:
    rows = {row.label: row for row in board.rows}
    broken = rows["encoder_decoder"]  # no run on ETTh1 has finished
    assert (broken.partial, broken.told) == (False, ("1 failed",))
    rivals = sum(cell(board, row.id, "etth1").mean is not None for row in board.rows if not row.trivial)
    ranks = []
    for column in ("atis_slots", "listops", "stsb"):
        means = [cell(board, row.id, column).mean for row in board.rows if not row.trivial]
        mine = cell(board, "encoder_decoder", column).mean
        assert mine is not None
        ranks.append(1 + sum(mean > mine for mean in means if mean is not None))
    assert broken.mean_rank == pytest.approx((sum(ranks) + rivals + 1) / 4)
    assert rows["lstm"].told == ("seeds failed on 1",)
    assert rows["encoder_only (depth=6)"].partial
    order = [row.partial for row in board.rows if not row.trivial]
    assert order == sorted(order)  # rows without a place in some task stand below


def test_every_aggregate_has_its_interval(board: Board) -> None:
    row = next(row for row in board.rows if row.label == "encoder_only (depth=2)")
    for value, ends in (
        (row.mean_rank, row.rank_interval),
        (row.win_rate, row.win_interval),
        (row.iqm, row.iqm_interval),
    ):
        assert value is not None
        assert ends is not None
        assert ends[0] <= value <= ends[1]
    assert row.iqm_tasks == 3  # STS-B's trivial row has no score
    assert any("for want of a trivial row: stsb" in notice for notice in board.notices)


def test_races_with_other_precision_clipping_or_accumulation_are_told(tmp_path: Path) -> None:
    made.write(tmp_path, encoder="lstm")
    made.write(tmp_path, encoder="gru", trainer__precision="bf16-mixed", trainer__clip=None, trainer__accumulate=4)
    made.write(tmp_path, encoder="tcn", trainer__workers=3)  # where it runs is no part of the race
    notices = board_of(tmp_path).columns[0].notices
    for key in ("precision", "clip", "accumulate"):
        assert any(f"trainer.{key} is not the same" in notice for notice in notices), (key, notices)
    assert not any("workers" in notice for notice in notices)


def test_many_equal_rows_are_seldom_told_apart(tmp_path: Path) -> None:
    draw = np.random.default_rng(12)
    for row in range(6):
        for seed in range(3):
            values = np.random.default_rng(3).normal(size=100) + draw.normal(size=100) + 0.3 * draw.normal()
            made.write(tmp_path, task="etth1", encoder=f"e{row}", seed=seed, statistics={"value": values})
    board = board_of(tmp_path)
    assert board.comparisons == 15
    assert "for that one difference and uncorrected, and narrower" in words.method(board)
    assert all(found.tied and found.places == (1, 6) for found in board.cells.values())


def test_a_task_of_two_decodings_says_why_it_has_two_columns(tmp_path: Path) -> None:
    made.write(tmp_path, task__data__rows=900)
    assert "columns, not rows" not in words.method(board_of(tmp_path))
    made.write(tmp_path, task__data__rows=901)
    assert len(board_of(tmp_path).columns) == 2
    assert "are scores of different tasks: columns, not rows" in words.method(board_of(tmp_path))


def test_what_nothing_is_known_of_counts_as_not_told(tmp_path: Path) -> None:
    for encoder, value in (("lstm", 0.9), ("gru", 0.5)):
        for seed in (0, 1):
            made.write(tmp_path, encoder=encoder, seed=seed, value=value)
    board = board_of(tmp_path)
    for row in ("lstm", "gru"):
        found = cell(board, row, "listops")
        assert (found.tied, found.p, found.places, found.low) == (True, None, (1, 2), None)
        assert found.basis == "2 seeds of the same score, no statistics per example: no interval"
    assert [row.rank_interval for row in board.rows] == [None, None]
    assert "if only since nothing is known of its error" in words.method(board)


def test_the_best_of_two_floors_is_the_floor(tmp_path: Path) -> None:
    for encoder, value in (("lstm", 0.9), ("gru", 0.7)):
        made.write(tmp_path, encoder=encoder, value=value)
    for encoder, value in (("majority", 0.1), ("repeat_last", 0.5)):
        made.write(tmp_path, encoder=encoder, family="trivial", value=value)
    assert {row.label: row.iqm for row in board_of(tmp_path).rows if not row.trivial} == pytest.approx(
        {"lstm": 1.0, "gru": 0.5}
    )


@pytest.mark.parametrize(("status", "told"), [("interrupted", ()), ("diverged", ("seeds failed on 1",))])
def test_an_interrupted_run_is_as_good_as_not_run(tmp_path: Path, status: Status, told: tuple[str, ...]) -> None:
    made.write(tmp_path, seed=0, value=0.9)
    made.write(tmp_path, seed=1, status=status, reason="x")
    made.write(tmp_path, encoder="majority", family="trivial", value=0.1)
    row = board_of(tmp_path).rows[0]
    assert row.told == told
    assert row.iqm == pytest.approx(0.5 if told else 1.0)


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_seed_each_is_said_to_be_about_two_models(tmp_path: Path, seeds: int) -> None:
    for i, encoder in enumerate(("lstm", "gru")):
        for seed in range(seeds if encoder == "gru" else 1):
            made.write(tmp_path, encoder=encoder, seed=seed, statistics=made.hits(0.9 - 0.4 * i, 200, 5 * i + seed))
    board = board_of(tmp_path)
    alone = seeds == 1
    assert (f"In 1 of 1 comparisons the rows have {summary.ONE_SEED}." in board.notices) == alone
    assert ("these two trained models, not their encoders" in words.method(board)) == alone
    assert (summary.ONE_SEED in cell(board, "gru", "listops").basis) == alone
    assert summary.ONE_SEED not in cell(board, "lstm", "listops").basis
