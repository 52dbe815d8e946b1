"""Made-up records, and the commands that measure with them: what they make, never how long it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqbench import cli
from seqbench.benchmark import boards, curve, made_up, planning
from seqbench.benchmark.base import Settings
from seqbench.board import collect, examples, page
from seqbench.board.curves import LINES, drawn
from seqbench.board.summary import Method
from seqbench.board.table import build
from seqbench.records.store import Store

SETTINGS = Settings(repeats=1, quick=True, threads=1, seed=0, clock="cpu")
SHAPE = made_up.Shape(encoders=3, tasks=5, seeds=2, examples=40)


def test_made_up_records_are_records_whose_predictions_give_their_scores(tmp_path: Path) -> None:
    made_up.write(tmp_path, SHAPE)
    records, damages = Store(tmp_path).all()
    assert not damages
    assert len(records) == SHAPE.records == 30
    assert {examples.read(entry, "test")[1] for entry in collect.read(tmp_path)[0]} == {None}
    assert {record.headline for record in records} == {"accuracy", "token_accuracy"}


def test_the_same_shape_makes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        made_up.write(tmp_path / name, SHAPE)
    files = [{p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*.*")} for n in ("one", "two")]
    assert files[0] == files[1]
    assert len(files[0]) == 2 * SHAPE.records


def test_shapes_have_as_many_records_as_asked_for() -> None:
    assert [made_up.shape_of(n).records for n in (1_000, 10_000, 100_000)] == [1_000, 10_000, 100_000]
    blocks = [planning.grid(400, 5, 5), planning.grid(40, 25, 10)]
    sizes = [1, 1]
    for i, block in enumerate(blocks):
        for values in block.values():
            assert len(set(values)) == len(values)
            sizes[i] *= len(values)
    assert sizes == [10_000, 10_000]


def test_a_large_page_links_its_records_and_draws_one_seed_of_each_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up.write(tmp_path, SHAPE)
    entries, _ = collect.read(tmp_path)
    method = Method(confidence=0.95, draws=100, seed=0)
    board = build(title="", entries=entries, expected=None, split="test", method=method)
    assert drawn(board.runs) is None
    small = page.payload(board, out=tmp_path)
    assert all("config" in run and run["curve"] for run in small["runs"])
    monkeypatch.setattr(page, "DETAILED", 29)
    monkeypatch.setattr("seqbench.board.curves.LINES", 29)
    large = page.payload(board, out=tmp_path)
    assert LINES > page.DETAILED
    assert (len(large["runs"]), large["parts"], large["thinned"]) == (30, [], True)
    for run, whole in zip(large["runs"], small["runs"], strict=True):
        assert "config" not in run
        assert run["record"].keys() == {"id", "best_step", "ended", "scores"}
        assert run["record"]["id"] == whole["record"]["id"]
        assert (tmp_path / run["path"]).is_file()
        assert bool(run["curve"]) == (run["seed"] == 0)


@pytest.mark.parametrize("place", ["s3://bucket/x", "file:///tmp/x", "memory://x"])
def test_nothing_is_run_at_an_address(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([f"results={place}"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"results: {place} is an address")
    assert f"mirror={place}" in told
    assert len(told.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_measurements_and_the_curve_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*boards.measure(SETTINGS), *planning.measure(SETTINGS)]
    assert [row.goal for row in rows] == [None, 3.0, 3.0, 3.0, None, 2.0]
    assert all(row.ours > 0 for row in rows)
    assert curve.main(["20", f"folder={tmp_path}"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("| 40 (2 x 5 x 4) |")
    assert curve.main(["many"]) == 2
