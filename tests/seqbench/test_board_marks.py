"""What stands beside scores: verified runs, runs whose task has changed since, examples that were cut or left out."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from seqbench import leakage
from seqbench.board import accounting, collect, csv_table, latex, markdown, page, study
from seqbench.board.model import Board, Cell
from seqbench.board.summary import Method
from seqbench.board.table import build
from seqbench.record import Record, SplitFacts, Variation
from seqbench.records import lineage, verified
from seqbench.records.store import Store
from seqbench.records.verified import Verdict, Verified
from tests.seqbench import board_records as made


def board_of(results: Path, **keys: Any) -> Board:
    entries, problems = collect.read(results)
    how = Method(confidence=0.95, draws=100, seed=0)
    return build(title="t", entries=entries, expected=None, split="test", method=how, notices=problems, **keys)


def only(board: Board) -> Cell:
    [cell] = board.cells.values()
    return cell


def change(results: Path, record: Record, **changes: Any) -> Record:
    record = record.model_copy(update=changes)
    Store(results).write(record)
    return record


def with_files(results: Path, record: Record, **changed: str) -> Record:
    files = {**lineage.files(), **{name.replace("__", "/") + ".py": digest for name, digest in changed.items()}}
    return change(results, record, code=record.code.model_copy(update={"files": files}))


def verify(results: Path, record: Record, verdict: Verdict = "identical") -> None:
    folder = results / record.id
    it = Verified(
        id=record.id,
        record_sha256=verified.sha256_of(folder / "record.json"),
        verdict=verdict,
        reason="accuracy 0.5 then, 0.6 now",
        time="2026-11-22T10:00:00+00:00",
        machine_class=made.CPU,
        same_machine_class=True,
        code=record.code,
        tolerance=1e-6,
    )
    verified.write(folder, it)


def test_verified_where_every_scored_run_is(tmp_path: Path) -> None:
    records = [with_files(tmp_path, made.write(tmp_path, seed=seed)) for seed in (0, 1)]
    assert only(board_of(tmp_path)).marks == ()
    verify(tmp_path, records[0])
    [mark] = only(board_of(tmp_path)).marks
    assert (mark.kind, mark.text) == ("partly", "verified 1 of 2: seed 0 identical on 2026-11-22")
    verify(tmp_path, records[1], "within_tolerance")
    [mark] = only(board_of(tmp_path)).marks
    assert (mark.kind, mark.sign) == ("verified", "✓")
    assert "seed 1 within tolerance on 2026-11-22" in mark.text
    verify(tmp_path, records[1], "different")
    kinds = {mark.kind: mark.text for mark in only(board_of(tmp_path)).marks}
    assert set(kinds) == {"partly", "refuted"}
    assert "seed 1, 2026-11-22: accuracy 0.5 then, 0.6 now" in kinds["refuted"]
    change(tmp_path, records[0], reason="edited")  # a verdict is on a record's bytes
    assert [mark.kind for mark in only(board_of(tmp_path)).marks] == ["refuted"]
    (tmp_path / records[1].id / verified.NAME).write_text("{}")
    board = board_of(tmp_path)
    assert only(board).marks == ()
    assert any(verified.NAME in notice and "left out" in notice for notice in board.notices)
    assert not any(str(tmp_path) in notice for notice in board.notices)


def test_grey_where_the_tasks_code_has_changed_since(tmp_path: Path) -> None:
    record = made.write(tmp_path)
    record = change(
        tmp_path, record, config={**record.config, "task": {"_target_": "tasks.classification.Classification"}}
    )
    board = board_of(tmp_path)
    assert only(board).marks == ()
    assert any("no age can be told" in notice for notice in board.notices)
    with_files(tmp_path, record, encoders__tcn="0" * 16, tasks__forecasting="0" * 16)  # not what it stands on
    board = board_of(tmp_path)
    assert only(board).marks == ()
    assert not any("age" in notice for notice in board.notices)
    with_files(tmp_path, record, tasks__classification="0" * 16)
    [mark] = only(board_of(tmp_path)).marks
    assert (mark.kind, mark.text) == ("stale", "changed since 1 of 1 runs: tasks/classification.py")


def test_runs_that_are_not_invariant_are_marked(tmp_path: Path) -> None:
    record = made.write(tmp_path)
    same = Variation(verdict="same", rows=64)
    nothing = Variation(verdict="not_applicable", rows=0, reason="no rows")
    change(tmp_path, record, invariance={"padding": same, "workers_2": nothing})
    assert only(board_of(tmp_path)).marks == ()
    moved = Variation(verdict="moved", rows=64, moved=5, flipped=2)
    failed = Variation(verdict="failed", rows=0, reason="IndexError: out\nof range")
    loss = Variation(verdict="moved", rows=64, loss_difference=0.0123)
    change(tmp_path, record, invariance={"padding": same, "batch_1": moved, "workers_2": failed, "workers_0": loss})
    board = board_of(tmp_path)
    [mark] = only(board).marks
    assert mark.kind == "moved"
    assert mark.text == (
        "seed 0, batch 1: 5 of 64 predictions moved, 2 of them to another answer; "
        "seed 0, workers 2: failed: IndexError: out of range; seed 0, workers 0: the loss moved by 0.012"
    )
    assert "≈" in markdown.render(board)
    assert r"$^{\mathrm{m}}$" in latex.render(board)


def test_every_format_has_the_marks(tmp_path: Path) -> None:
    record = made.write(tmp_path, label="<b>it</b>")
    record = with_files(tmp_path, record, tasks__base="0" * 16)
    verify(tmp_path, record)
    board = board_of(tmp_path)
    content = page.render(board, out=tmp_path)
    assert 'class="number scored tied has-verified has-stale"' in content
    assert '<sup class="sign stale" title="changed since 1 of 1 runs: tasks/base.py">⊘</sup>' in content
    assert content.count("<b>it</b>") == 0
    text = markdown.render(board)
    assert "✓ ⊘ |" in text
    assert "- ⊘ &lt;b&gt;it&lt;/b&gt; on listops: changed since 1 of 1 runs: tasks/base.py" in text
    assert r"$^{\mathrm{v,o}}$" in latex.render(board)
    [line] = csv.DictReader(io.StringIO(csv_table.render(board)))
    assert line["marks"] == "verified stale"
    assert "tasks/base.py" in line["mark_notes"]


def facts(**keys: int) -> dict[str, SplitFacts]:
    return {
        "test": SplitFacts(**{"examples": 200, "positions": 900, "truncated": 0, "dropped": 0, **keys}, sha256="d" * 64)
    }


def test_what_was_fed_is_shown_and_compared_down_the_column(tmp_path: Path) -> None:
    for encoder in ("lstm", "tcn", "gru"):
        change(tmp_path, made.write(tmp_path, encoder=encoder), splits=facts())
    [column] = board_of(tmp_path).columns
    assert [account.line() for account in column.accounts] == ["test: 200 examples, 900 tokens, 0 truncated, 0 dropped"]
    assert column.notices == ()
    change(tmp_path, made.write(tmp_path, encoder="s4d"), splits=facts(positions=870, truncated=3))
    board = board_of(tmp_path)
    [column] = board.columns
    assert [account.line() for account in column.accounts] == [
        "test: 200 examples, 900 or 870 tokens, 0 or 3 truncated, 0 dropped"
    ]
    assert column.notices == (
        "listops: not all rows were given the same test split: 900 or 870 tokens; 0 or 3 truncated",
        "listops: 3 examples of the test split (1.5 %) were cut to the greatest length",
    )
    assert "- test: 200 examples, 900 or 870 tokens" in markdown.render(board)
    assert "900 or 870 tokens" in latex.render(board)
    assert "<td" in (content := page.render(board, out=tmp_path))
    assert ">900 or 870</td>" in content
    assert {line["tokens"] for line in csv.DictReader(io.StringIO(csv_table.render(board)))} == {"900 or 870"}


def test_dropped_examples_are_told() -> None:
    account = accounting.Account(split="train", examples=(50,), positions=(1,), truncated=(0,), dropped=(5,))
    assert accounting.notices([account], "x") == ["x: 5 examples of the train split (10 %) were left out"]


@pytest.mark.parametrize("allowed", [["encoders", "tasks", "torch.optim"], ["my_package"]])
def test_pairs_without_plan_say_why_they_can_t_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: list[str]
) -> None:
    """Nothing but our own classes is asked, whatever a record allows."""
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    from seqbench.composition.compose import own_loader
    from seqbench.studies.study import plan_sweep

    loader = own_loader()
    cells = {
        (cell.names.encoder, cell.names.task): cell
        for words in (
            ["encoder=repeat_last", "task=etth1"],
            ["encoder=lstm", "task=listops"],
            ["encoder=dlinear", "task=etth1"],
        )
        for cell in plan_sweep(words, loader=loader).cells
    }
    results = tmp_path / "results"
    for (encoder, task), cell in cells.items():
        record = made.write(results, encoder=encoder, task=task)
        change(results, record, config={**cell.config.resolved(), "allowed": allowed})
    record = made.write(results, encoder="foreign", task="etth1")
    change(
        results, record, config={**record.config, "encoder": {"_target_": "my_package.Mine"}, "allowed": ["my_package"]}
    )
    record = made.write(results, encoder="dlinear", task="theirs")
    foreign = {
        "encoder": cells["dlinear", "etth1"].config.encoder,
        "task": {"_target_": "my_package.Task"},
        "allowed": ["my_package"],
    }
    change(results, record, config={**record.config, **foreign})
    found = study.gather(results, study.Asked(), out=tmp_path).left_out
    assert set(found) == {("dlinear", "listops"), ("repeat_last", "listops")}
    assert found["repeat_last", "listops"] == "has no rule repeat_last"
    cell = board_of(results, left_out=found).cells["dlinear", "listops"]
    assert (cell.state, cell.notes) == ("not planned", (found["dlinear", "listops"],))
    assert board_of(results, left_out=found).cells["foreign", "listops"].state == "not run"


def test_a_verdict_stands_while_names_come_and_goes_with_a_number(tmp_path: Path) -> None:
    record = with_files(tmp_path, made.write(tmp_path))
    verify(tmp_path, record)
    named = change(
        tmp_path, record, studies=["later"], encoder=record.encoder.model_copy(update={"label": "another name"})
    )
    assert [mark.kind for mark in only(board_of(tmp_path)).marks] == ["verified"]
    [score] = [score for by in named.scores.values() for score in by.values()][:1]
    edited = {split: dict.fromkeys(by, score.model_copy(update={"value": 0.123})) for split, by in named.scores.items()}
    change(tmp_path, named, scores=edited)
    assert "verified" not in [mark.kind for mark in only(board_of(tmp_path)).marks]


def test_what_the_data_leaks_stands_under_its_column(tmp_path: Path) -> None:
    record = made.write(tmp_path)
    splits = {"train": record.splits["test"].model_copy(update={"sha256": "a" * 64, "in_train": 7})} | record.splits
    splits["test"] = splits["test"].model_copy(update={"in_train": 13})
    record = change(tmp_path, record, splits=splits)
    said = [text for text in board_of(tmp_path).columns[0].notices if "stand in train" in text]
    assert said == ["listops: 13 of 100 rows of test (13 %) stand in train, too"]
    report = leakage.Leakage(
        key=leakage.key_of(splits), task="x", shared=[], baselines=[], prior={}, warnings=["length alone tells"]
    )
    path = leakage.write(tmp_path, report)
    assert "listops: length alone tells" in board_of(tmp_path).columns[0].notices
    assert not [text for text in board_of(tmp_path).columns[0].notices if "stand in train" in text]
    path.write_text("{")
    [told] = [text for text in board_of(tmp_path).columns[0].notices if "leakage" in text]
    assert "delete it" in told
    assert str(tmp_path) not in told


def test_a_run_that_predicts_one_class_is_told_in_every_format(tmp_path: Path) -> None:
    records = [made.write(tmp_path, seed=seed) for seed in (0, 1, 2)]
    assert only(board_of(tmp_path)).marks == ()
    change(tmp_path, records[0], one_class={"valid": "no"})
    assert only(board_of(tmp_path)).marks == ()  # in another split than the board's
    change(tmp_path, records[1], one_class={"test": "<b>no</b>", "valid": "no"})
    board = board_of(tmp_path)
    [mark] = only(board).marks
    assert (mark.kind, mark.text) == ("one_class", "predicts one class, 1 of 3 runs: seed 1: <b>no</b>")
    assert "≡" in markdown.render(board)
    assert "c: predicts one class" in latex.render(board)
    [line] = csv.DictReader(io.StringIO(csv_table.render(board)))
    assert line["marks"] == "one_class"
    html = page.render(board, out=tmp_path)
    assert "predicts one class, 1 of 3 runs" in html
    assert "<b>no</b>" not in html
