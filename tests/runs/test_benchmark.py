"""The benchmark: arithmetic, the page, the command line. No test here asserts a time."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from seqbench.benchmark import command, gpu, page
from seqbench.benchmark.base import Row, Settings, alone, alternate, compared, quantile

QUICK = Settings(repeats=1, quick=True, threads=1, seed=0, clock="wall")
LONG = {"startup", "gpu", "evaluation", "generation", "text"}  # more than two seconds, quick or not: imports
REAL = {"text"}  # on data of the kit


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[*([pytest.mark.slow] if n in LONG else []), *([pytest.mark.data] if n in REAL else [])])
        for n in command.measurements()
    ],
)
def test_every_measurement_gives_rows(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in REAL:
        monkeypatch.setenv("SEQBENCH_DATA", str(request.getfixturevalue("data_cache")))
    rows = command.run(name, QUICK)
    assert rows
    assert len({row.what for row in rows}) == len(rows)
    for row in rows:
        assert math.isfinite(row.ours)
        assert row.peer is None or row.peer > 0
        assert "|" not in "".join(page.cells(row))


def test_pairs_alternate_and_the_warm_up_is_thrown_away() -> None:
    asked: list[str] = []
    count = iter(range(100))

    def call(name: str) -> float:
        asked.append(name)
        return float(next(count))

    pairs = alternate(lambda: call("o"), lambda: call("p"), repeats=3, warmup=1)
    assert "".join(asked) == "op" + "op" + "po" + "op"
    assert pairs == [(2.0, 3.0), (5.0, 4.0), (6.0, 7.0)]


def test_the_ratio_is_the_median_of_the_pairs_ratios() -> None:
    pairs = [(1.0, 1.0), (8.0, 4.0), (9.0, 3.0), (2.0, 4.0), (4.0, 1.0)]  # ratios 1, 2, 3, 0.5, 4; medians 4 and 3
    row = compared("x", pairs, unit="ms", goal=2.0, better="lower")
    assert (row.ours, row.peer, row.ratio, row.repeats) == (4.0, 3.0, 2.0, 5)
    assert (row.low, row.high) == (pytest.approx(0.7), pytest.approx(3.6))
    assert row.reached
    assert replace(row, goal=1.99).reached is False
    assert replace(row, goal=1.99, better="higher").reached
    assert replace(row, goal=2.01, better="higher").reached is False
    assert replace(row, goal=None).reached is None


def test_a_row_without_a_peer_is_judged_by_itself() -> None:
    row = alone("x", [5.0, 1.0, 2.0], unit="s", goal=3.0, better="lower")
    assert (row.ours, row.peer, row.ratio, row.reached) == (2.0, None, None, True)
    assert replace(row, goal=1.0).reached is False
    assert page.cells(row) == ("x", "2.000 s", "", "", "at most 3 s", "reached", "3")


def test_quantiles_are_those_of_numpy() -> None:
    values = np.random.default_rng(0).normal(size=13).tolist()
    for share in (0.0, 0.1, 0.5, 0.93, 1.0):
        assert quantile(values, share) == pytest.approx(np.quantile(values, share))
    assert quantile([3.0], 0.9) == 3.0


@pytest.mark.parametrize(
    "value, shown",
    [(0.01234, "0.0123"), (1.23456, "1.235"), (12.3456, "12.35"), (1234.56, "1,235"), (1234567.8, "1,234,568")],
)
def test_numbers_have_four_digits(value: float, shown: str) -> None:
    assert page.number(value) == shown


def row(what: str = "a step") -> Row:
    return compared(what, [(1.0, 2.0)], unit="ms", goal=1.02, better="lower")


def test_the_page_keeps_the_other_sections() -> None:
    first = page.section("one", "The first.", [row()], command="python scripts/benchmark.py one", threads=1)
    assert "| a step | 1.000 ms | 2.000 ms | 0.500 (0.500 to 0.500) | at most 1.02 | reached | 1 |" in first
    assert "`python scripts/benchmark.py one`" in first
    assert "1 thread" in first
    made = page.with_section(page.HEAD, "one", first)
    assert made.startswith(page.HEAD)
    both = page.with_section(made, "two", "second\n")
    assert both.startswith(made)
    again = page.with_section(both, "one", "anew\n")
    assert "a step" not in again
    assert again.count("<!-- one -->") == 1
    assert again.endswith(both[both.index("<!-- two -->") :])
    assert page.with_section(again, "one", first) == both
    with pytest.raises(ValueError, match="end of one"):
        page.with_section("<!-- one -->\nno end\n", "one", "x")


def test_a_terminal_gets_columns() -> None:
    lines = page.text([row(), row("another, longer")]).splitlines()
    assert len({line.index("ms") for line in lines[1:]}) == 1


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    seen: list[Settings] = []

    def run(name: str, settings: Settings) -> list[Row]:
        seen.append(settings)
        return [row(name)]

    monkeypatch.setattr(command, "run", run)
    return seen


def test_the_command_writes_what_it_prints(
    tmp_path: Path, measured: list[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = tmp_path / "rows.json", tmp_path / "page.md"
    arguments = ["startup", "repeats=3", "seed=7", "clock=cpu", f"out={out}", "write=true", f"page={file}"]
    assert command.main(arguments) == 0
    assert measured == [Settings(repeats=3, quick=False, threads=1, seed=7, clock="cpu")]
    assert "0.500 (0.500 to 0.500)" in capsys.readouterr().out
    (kept,) = json.loads(out.read_text())["startup"]
    assert (kept["ratio"], kept["reached"]) == (0.5, True)
    assert file.read_text().startswith(page.HEAD)
    assert "`python scripts/benchmark.py startup repeats=3 clock=cpu seed=7`" in file.read_text()


def test_all_are_measured_where_none_is_named(measured: list[Settings]) -> None:
    assert command.main([]) == 0
    assert len(measured) == len(command.measurements())


@pytest.mark.parametrize(
    "argument, told",
    [
        ("startupp", "'startupp': no such measurement (did you mean startup?)"),
        ("repeat=3", "repeat: no such key (did you mean repeats?)"),
        ("repeats=0", "repeats: '0' is no whole number from 1"),
        ("clock=sun", "clock: 'sun' is neither wall nor cpu"),
        ("write=yes", "write: 'yes' is neither true nor false"),
    ],
)
def test_mistakes_are_told(
    argument: str, told: str, measured: list[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([argument]) == 2
    assert capsys.readouterr().err.strip() == told
    assert not measured


def test_help_names_the_measurements(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--help"]) == 0
    told = capsys.readouterr().out
    for name, title in command.measurements().items():
        assert f"{name} " in told
        assert title
        assert title in told


# -- gpu ---------------------------------------------------------------------------------------------------------------
def test_without_cuda_one_row_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (only,) = gpu.measure(replace(QUICK, quick=False))
    assert only.what == "skipped: torch finds no CUDA device here"
    assert only.reached is None


def test_batches_of_drawn_lengths_keep_to_the_budget() -> None:
    batches = gpu.batches_of(512, 1000, 4096, count=6, seed=0)
    assert len(batches) == 6
    lengths = np.concatenate([batch.source.mask.sum(1).numpy() for batch in batches])
    assert 1 <= lengths.min() < 64 < 256 < lengths.max() <= 512
    for batch in batches:
        assert batch.source.mask.numel() <= 4096
        assert not batch.source.values[~batch.source.mask].any()
        assert (batch.source.values[batch.source.mask] > 0).all()


def test_both_ways_of_a_case_make_the_same_loss_and_mfu_is_of_real_positions() -> None:
    case = gpu.Case(QUICK, "decoder_only", 24, torch.device("cpu"))
    assert case.padding > 0
    losses = []
    for packed in (False, True):
        case.module.encoder.packed = packed
        losses.append([case._loss(batch).item() for batch in case.batches])
    assert losses[0] == pytest.approx(losses[1], abs=2e-2)  # bfloat16
    real = sum(int(batch.source.mask.sum()) for batch in case.batches)
    assert case.real == real
    dim, hidden, vocabulary = 16, 32, 50
    weights = 4 * dim * dim + 2 * dim * hidden + dim * vocabulary
    squares = sum(int(n) ** 2 for batch in case.batches for n in batch.source.mask.sum(1))
    assert case.operations() == pytest.approx(3 * (2 * weights * real + 4 * dim * squares))
