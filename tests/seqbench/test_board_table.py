"""From records to rows, columns and cells: who stands where, what is averaged and what is never."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqbench.board import collect, examples, identity, text, words
from seqbench.board.entries import Expected
from seqbench.board.model import Board, Cell, Column
from seqbench.board.summary import Method
from seqbench.board.table import build
from seqbench.composition.sections import Trainer
from seqbench.record import DataFile, Status
from seqbench.records.decisive import TRAINER, TRAINER_IF_SET
from seqbench.records.store import Store
from tests.seqbench import board_records as made

HOW = Method(confidence=0.95, draws=200, seed=0)


def board_of(results: Path, **keys: Any) -> Board:
    entries, problems = collect.read(results)
    keys = {"expected": None, "split": "test", **keys}
    return build(title="made up", entries=entries, method=HOW, notices=problems, **keys)


def cell(board: Board, row: str, column: str) -> Cell:
    return board.cells[row, column]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    results = tmp_path_factory.mktemp("board") / "results"
    made.study(results)
    return board_of(results)


def test_rows_and_columns(board: Board) -> None:
    assert [column.label for column in board.columns] == ["atis_slots", "etth1", "listops", "stsb"]
    assert {row.label for row in board.rows} == {
        *("encoder_only (depth=2)", "encoder_only (depth=6)", "decoder_only", "encoder_decoder"),
        *("lstm", "dlinear", "majority"),
    }
    assert board.rows[-1].label == "majority"  # floors last, out of the ranking
    assert board.rows[-1].mean_rank is None
    assert len(board.cells) == 4 * 7


def test_means_are_over_finished_seeds(board: Board) -> None:
    found = cell(board, "lstm", "listops")
    values = [run.value for run in board.runs if (run.row, run.column) == ("lstm", "listops") and run.counted]
    assert found.seeds == (0, 1)
    assert found.mean == pytest.approx(np.mean([v for v in values if v is not None]))
    assert [run.record.status for run in found.failures] == ["diverged"]
    dead = cell(board, "encoder_decoder", "etth1")
    assert (dead.state, dead.mean, len(dead.failures)) == ("failed", None, 3)
    assert cell(board, "dlinear", "atis_slots").state == "not run"


def test_intervals_hold_the_mean_and_say_what_they_are_over(board: Board) -> None:
    found = cell(board, "encoder_only (depth=2)", "listops")
    assert found.low is not None
    assert found.high is not None
    assert found.mean is not None
    assert found.low < found.mean < found.high
    assert found.basis == "3 seeds x 600 examples"
    assert cell(board, "encoder_only (depth=6)", "listops").basis == "1 seed: 600 examples alone"
    without = cell(board, "lstm", "atis_slots")  # its Parquet file is missing
    assert (without.low, without.basis) == (None, "1 seed, no statistics per example: no interval")
    assert without.notes == ("seed 0: predictions.parquet is missing",)


def test_best_group(board: Board) -> None:
    tied = {row.label for row in board.rows if cell(board, row.id, "listops").tied}
    # the best has one seed and borrows the others' variance: with two or three seeds that leaves all but floors open
    assert tied == {"encoder_only (depth=2)", "encoder_only (depth=6)", "encoder_decoder", "decoder_only", "lstm"}
    assert not cell(board, "dlinear", "listops").tied
    assert cell(board, "dlinear", "etth1").best  # the least error
    assert not cell(board, "majority", "etth1").tied
    for column in board.columns:
        assert sum(cell(board, row.id, column.id).best for row in board.rows) == 1


def test_differences_to_the_best_are_those_of_means_with_an_interval(board: Board) -> None:
    for column in board.columns:
        there = [cell(board, row.id, column.id) for row in board.rows]
        [best] = [found for found in there if found.best]
        assert (best.difference, best.difference_interval) == (None, None)
        assert words.difference(best, column, board) == ""
        others = [found for found in there if found.mean is not None and not found.best]
        assert others
        for found in others:
            assert found.mean is not None
            assert best.mean is not None
            assert found.difference == pytest.approx(found.mean - best.mean)
            if found.difference_interval is not None:
                low, high = found.difference_interval
                assert low < found.mean - best.mean < high
                assert (low + high) / 2 == pytest.approx(found.difference)
                assert found.tied or not low <= 0 <= high, "told apart by p, so the interval is off 0"
    seen = words.difference(cell(board, "decoder_only", "listops"), column_of(board, "listops"), board)
    assert re.fullmatch(
        r"Less the best row: -\d+\.\d % \(95 % interval \[-[\d.]+, -?[\d.]+\], not corrected .*\)\.", seen
    )


def column_of(board: Board, name: str) -> Column:
    return next(column for column in board.columns if column.id == name)


def test_undefined_scores_are_a_dash_and_not_a_zero(board: Board) -> None:
    found = cell(board, "majority", "stsb")
    assert (found.state, found.mean) == ("undefined", None)


def test_a_seed_without_a_defined_score_is_not_left_out_of_a_mean(tmp_path: Path) -> None:
    made.write(tmp_path, task="stsb", seed=0, value=0.9)
    made.write(tmp_path, task="stsb", seed=1, value=None)
    found = cell(board_of(tmp_path), "encoder_only", "stsb")
    assert (found.state, found.notes[-1]) == ("undefined", "not defined for 1 of 2 seeds")


def test_scales(board: Board) -> None:
    by_label = {column.label: column for column in board.columns}
    assert by_label["listops"].scale.number(0.8714) == "87.1"
    assert by_label["etth1"].scale.number(0.3754) == "0.375"
    assert text.scale("%", [87.1], None).number(87.14) == "87.1"  # already in per cent
    assert text.scale("", [28.41], None).number(28.414) == "28.41"
    assert text.scale("", [], None).number(float("nan")) == text.DASH


def test_machine_classes_are_kept_apart(tmp_path: Path) -> None:
    for seed, machine in enumerate([made.CPU, made.CPU, made.GPU]):
        made.write(tmp_path, seed=seed, machine=machine, statistics=made.hits(0.5, 50, seed))
    board = board_of(tmp_path)
    found = cell(board, "encoder_only", "listops")
    assert [(line.machine, line.runs) for line in found.costs] == [(made.CPU, 2), (made.GPU, 1)]
    assert [line.values["wall_seconds"] for line in found.costs] == [40.5, 42.0]
    assert found.seeds == (0, 1, 2)  # quality is over all of them
    assert any("2 machine classes" in notice for notice in board.columns[0].notices)


def test_the_latest_run_of_a_seed_is_scored(tmp_path: Path) -> None:
    made.write(tmp_path, value=0.2, machine=made.CPU)
    latest = made.write(tmp_path, value=0.7, machine=made.GPU)
    Store(tmp_path).write(latest.model_copy(update={"ended": "2026-06-01T00:00:00Z"}))
    found = cell(board_of(tmp_path), "encoder_only", "listops")
    assert (found.mean, found.seeds) == (0.7, (0,))
    assert any("the latest of each seed" in note for note in found.notes)


def test_budgets_per_task_make_no_second_row_but_budgets_within_one_do(tmp_path: Path) -> None:
    for task, steps in (("listops", 100), ("stsb", 500)):
        made.write(tmp_path, task=task, encoder="lstm", budget__steps=steps)
    assert [row.label for row in board_of(tmp_path).rows] == ["lstm"]
    made.write(tmp_path, task="stsb", encoder="lstm", budget__steps=900)
    board = board_of(tmp_path)
    assert sorted(row.label for row in board.rows) == ["lstm (steps=100)", "lstm (steps=500)", "lstm (steps=900)"]
    assert any("budget.steps is not the same for all rows" in n for c in board.columns for n in c.notices)


@pytest.mark.parametrize(("items", "told"), [(800, True), (4000, False), (4100, False), (None, False)])
def test_unequal_numbers_of_labels_a_step_are_told(tmp_path: Path, items: int | None, told: bool) -> None:
    made.write(tmp_path, encoder="decoder_only", train_items=4000)
    made.write(tmp_path, encoder="encoder_only", train_items=items)
    notices = [n for c in board_of(tmp_path).columns for n in c.notices if "labels a step" in n]
    assert bool(notices) == told
    assert all("10 to 50" in notice for notice in notices)  # of 80 steps


def test_where_a_run_ran_is_no_setup(tmp_path: Path) -> None:
    made.write(tmp_path, seed=0, trainer__workers=0)
    made.write(tmp_path, seed=1, trainer__workers=4, trainer__accelerator="gpu", trainer__invariance_rows=32)
    made.write(tmp_path, seed=2, trainer__time_limit=9.0, trainer__explosion=50.0, trainer__padding_free=False)
    made.write(tmp_path, seed=3, trainer__tf32=False, budget__eval_batch_tokens=7)
    assert [row.label for row in board_of(tmp_path).rows] == ["encoder_only"]
    made.write(tmp_path, seed=4, trainer__padding_free=True)
    assert [row.label for row in board_of(tmp_path).rows] == [
        "encoder_only (padding_free=no)",
        "encoder_only (padding_free=yes)",
    ]


def test_keys_of_the_trainer_that_make_a_row_are_those_that_make_an_id() -> None:
    """Each key is one or the other: turned, it moves both or neither."""
    base = made.config("listops", "lstm", 0, results="")
    for key in Trainer.model_fields:
        other = {**base, "trainer": {**base["trainer"], key: "another"}}
        assert (identity.setup(base) != identity.setup(other)) == (key in (*TRAINER, *TRAINER_IF_SET)), key


def test_weights_of_a_run_before_are_told_by_its_name(tmp_path: Path) -> None:
    first = {"name": "lm", "teacher": None, "encoder": {}, "task": {"_target_": "tasks.T", "noise": 1}, "seed": None}
    made.write(tmp_path, pretrain=first)
    assert [row.label for row in board_of(tmp_path).rows] == ["encoder_only (pretrain=lm)"]
    made.write(tmp_path, pretrain=None)
    assert sorted(row.label for row in board_of(tmp_path).rows) == [
        "encoder_only (pretrain=lm)",
        "encoder_only (pretrain=none)",
    ]
    made.write(tmp_path, pretrain={**first, "task": {"_target_": "tasks.T", "noise": 2}})
    labels = [row.label for row in board_of(tmp_path).rows]
    assert len(labels) == 3
    assert sum("pretrain=lm" in label and "noise=2" in label for label in labels) == 1


def test_an_edited_encoder_of_ones_own_is_another_row(tmp_path: Path) -> None:
    """Seeds before and after an edit are not averaged; what a plan still misses is of the code of today."""
    for seed, own, when in ((0, "a", "02"), (1, "b", "03"), (0, "b", "04")):
        made_up = made.write(tmp_path, seed=seed, value=0.1 if own == "a" else 0.5, encoder_keys={"edit": own})
        update = {
            "config": made.config("listops", "encoder_only", seed, results="results"),
            "code": made_up.code.model_copy(update={"own": {"my_package": own * 64}}),
            "started": f"2026-01-{when}T00:00:00Z",
        }
        Store(tmp_path).write(made_up.model_copy(update=update))
    board = board_of(tmp_path)
    rows = {row.label: cell(board, row.label, "listops") for row in board.rows}
    assert {label: (found.mean, found.seeds) for label, found in rows.items()} == {
        "encoder_only (source of my_package=aaaaaa)": (0.1, (0,)),
        "encoder_only (source of my_package=bbbbbb)": (0.5, (0, 1)),
    }
    names = {"task": "listops", "column": "listops", "encoder": "encoder_only", "label": "encoder_only"}
    missing = Expected(id="x", seed=2, config=made.config("listops", "encoder_only", 2, results=""), **names)
    board = board_of(tmp_path, expected=[missing])
    found = cell(board, "encoder_only (source of my_package=bbbbbb)", "listops")
    assert [e.seed for e in found.missing] == [2]


def test_one_set_up_under_two_names_is_told(tmp_path: Path) -> None:
    """A first run named all on the command line, the other seeds by a file: their seeds belong together."""
    target = {"_target_": "my_package.MeanMLP"}
    made.write(tmp_path, seed=0, encoder="own", label="own", encoder_keys=target)
    for seed in (1, 2):
        made.write(tmp_path, seed=seed, encoder="own", label="mean_mlp", encoder_keys=target)
    made.write(tmp_path, seed=0, encoder="own", label="deeper", encoder_keys={**target, "depth": 3})
    (told,) = [notice for notice in board_of(tmp_path).notices if "several names" in notice]
    assert told.startswith("mean_mlp and own are runs of one set-up under several names")


def test_a_seed_in_the_encoder_that_follows_the_run_is_no_setup(tmp_path: Path) -> None:
    for seed in (0, 1):
        made.write(tmp_path, seed=seed, encoder_keys={"seed": seed})
    assert [row.label for row in board_of(tmp_path).rows] == ["encoder_only"]
    made.write(tmp_path, seed=2, encoder_keys={"seed": 7})
    assert len(board_of(tmp_path).rows) == 3


def test_other_examples_are_another_column(tmp_path: Path) -> None:
    made.write(tmp_path, seed=0, value=0.5, data_sha256="a" * 64)
    made.write(tmp_path, seed=1, value=0.6, data_sha256="a" * 64)
    made.write(tmp_path, seed=2, value=0.7, data_sha256="b" * 64)
    made.write(tmp_path, seed=3, status="failed", reason="no such file")  # goes with the more frequent one
    board = board_of(tmp_path)
    assert len({column.label for column in board.columns}) == 2
    found = {c.seeds: len(c.failures) for c in board.cells.values()}
    assert found == {(0, 1): 1, (2,): 0}


def test_spearman_is_aggregated_again(tmp_path: Path) -> None:
    from scipy.stats import spearmanr

    generator = np.random.default_rng(4)
    truth = generator.normal(size=80)
    statistics = {"prediction": truth + generator.normal(size=80), "reference": truth}
    value = float(spearmanr(statistics["prediction"], truth).statistic)
    made.write(tmp_path, task="stsb", value=value, statistics=statistics)
    found = cell(board_of(tmp_path), "encoder_only", "stsb")
    scores = []
    for _ in range(1000):
        rows = generator.integers(0, 80, size=80)
        scores.append(spearmanr(statistics["prediction"][rows], truth[rows]).statistic)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(scores, [0.025, 0.975])), abs=0.05)


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        ("other bytes", "its sha256 differs"),
        ("other score", "not one of tasks.metrics"),
        ("other score of ours", "the record says 0.9"),
        ("other rows", "other rows than the 70"),
        ("other metric", "no statistics of accuracy"),
    ],
)
def test_statistics_that_do_not_belong_to_the_score_are_refused(tmp_path: Path, harm: str, why: str) -> None:
    task = "etth1" if harm.endswith("ours") else "listops"
    record = made.write(tmp_path, task=task, statistics=made.hits(0.5, 60))
    path = tmp_path / record.id / "predictions.parquet"
    metric = record.headline or ""
    score = record.scores["test"][metric]
    changes: dict[str, Any] = {}
    if harm == "other bytes":
        path.write_bytes(path.read_bytes() + b"x")
    elif harm == "other metric":
        path.write_bytes(made.parquet_bytes("f1", made.hits(0.5, 60)))
        sha = hashlib.sha256(path.read_bytes()).hexdigest()
        changes["predictions"] = record.predictions.model_copy(update={"sha256": sha}) if record.predictions else None
    else:
        change: dict[str, Any] = {"n": 70} if harm == "other rows" else {"value": 0.9}
        changes["scores"] = {"test": {metric: score.model_copy(update=change)}}
    Store(tmp_path).write(record.model_copy(update=changes))
    found = cell(board_of(tmp_path), "encoder_only", task)
    assert found.low is None
    assert why in found.notes[0]


def test_statistics_are_those_of_the_split_in_order_of_its_rows(tmp_path: Path) -> None:
    statistics = made.hits(0.5, 60)
    made.write(tmp_path, statistics=statistics)  # the file has them backwards, and rows of validation after them
    found, why = examples.read(collect.read(tmp_path)[0][0], "test")
    assert why is None
    assert found is not None
    assert np.array_equal(found.values["value"], statistics["value"])


def test_no_class_outside_of_tasks_metrics_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "evil_metrics"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    results = tmp_path / "results"
    record = made.write(results, statistics={"a": np.ones(9)}, value=0.5)
    for target in ("evil_metrics.Metric", "tasks.metrics.base.NoSuch", "tasks.metrics.nowhere.F1", "os.system", "x"):
        score = record.scores["test"]["accuracy"].model_copy(update={"target": target})
        Store(results).write(record.model_copy(update={"scores": {"test": {"accuracy": score}}}))
        assert cell(board_of(results), "encoder_only", "listops").low is None


def test_broken_records_are_told(tmp_path: Path) -> None:
    made.write(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "record.json").write_text('{"schema_version": 1, "id": ')
    board = board_of(tmp_path)
    assert len(board.runs) == 1
    assert any(notice.startswith("Left out: broken/record.json") for notice in board.notices)
    assert not any(str(tmp_path) in notice for notice in board.notices)  # no path of this machine


def test_a_plan_shows_what_is_not_run_and_what_cannot_be(tmp_path: Path) -> None:
    record = made.write(tmp_path, encoder="lstm", seed=0, value=0.5)
    plan = [
        Expected(
            id=record.id if (task, seed) == ("listops", 0) else f"{task}{seed}",
            task=task,
            column=task,
            encoder="lstm",
            label="lstm",
            seed=seed,
            config=made.config(task, "lstm", seed, results="elsewhere"),
        )
        for task in ("listops", "stsb")
        for seed in (0, 1)
    ]
    plan.append(
        Expected(
            id="x",
            task="stsb",
            column="stsb",
            encoder="gru",
            label="gru",
            seed=0,
            config=made.config("stsb", "gru", 0, results=""),
        )
    )
    board = board_of(tmp_path, expected=plan, left_out={("gru", "listops"): "needs a Decoder"})
    half = cell(board, "lstm", "listops")
    assert (half.mean, half.seeds, [e.seed for e in half.missing]) == (0.5, (0,), [1])
    assert cell(board, "lstm", "stsb").state == "not run"
    never = cell(board, "gru", "listops")
    assert (never.state, never.notes) == ("not planned", ("needs a Decoder",))
    assert [(r.label, c.label) for c, r, _ in board.in_order()].count(("gru", "listops")) == 0
    assert len(board.missing) == 4


def test_columns_of_own_data_have_the_names_of_their_files(tmp_path: Path) -> None:
    """One column for a file, wherever it lies; two for two of the same name, told apart by what differs."""
    file = DataFile(name="reviews.csv", url="file:reviews.csv", sha256="a" * 64)
    common: dict[str, Any] = {"task": "own_classification", "task_label": "own_classification: reviews.csv"}
    for seed, path in enumerate(("reviews.csv", "/data/reviews.csv")):
        made.write(tmp_path, seed=seed, files=[file], task__data__rows=path, **common)
    assert [column.label for column in board_of(tmp_path).columns] == ["own_classification: reviews.csv"]
    made.write(tmp_path, files=[file], task__data__rows="reviews.csv", data_sha256="b" * 64, **common)
    assert [column.label for column in board_of(tmp_path).columns] == [
        "own_classification: reviews.csv (examples=bbbbbb)",
        "own_classification: reviews.csv (examples=dddddd)",
    ]
    made.write(tmp_path, task="own_classification", task_label="stars")
    assert board_of(tmp_path).columns[-1].label == "stars"
    assert board_of(tmp_path).columns[-1].task == "own_classification"


def test_own_data_under_a_new_name_is_the_same_column(tmp_path: Path) -> None:
    """Its bytes count; the newest run's name stands, and the other is told. A name that was given is the user's."""

    def ran(name: str, sha256: str, encoder: str, **keys: Any) -> None:
        file = DataFile(name=name, url=f"file:{name}", sha256=sha256)
        keys = {"task_label": f"own_classification: {name}", **keys}
        record = made.write(
            tmp_path, task="own_classification", encoder=encoder, files=[file], task__data__rows=f"in/{name}", **keys
        )
        Store(tmp_path).write(record.model_copy(update={"started": f"2026-01-0{len(list(tmp_path.iterdir()))}"}))

    ran("reviews.csv", "a" * 64, "lstm")
    ran("opinions.csv", "a" * 64, "gru")
    [column] = board_of(tmp_path).columns
    assert column.label == "own_classification: opinions.csv"
    assert column.notices[0].endswith("checksums, was also run as own_classification: reviews.csv")
    ran("opinions.csv", "b" * 64, "tcn")  # the same test examples: another training part
    ran("reviews.csv", "a" * 64, "cnn", task_label="stars")
    assert [column.label for column in board_of(tmp_path).columns] == [
        "own_classification: opinions.csv (files=a0fab1)",
        "own_classification: opinions.csv (files=ffe054)",
        "stars",
    ]


def test_a_failed_run_names_no_column(tmp_path: Path) -> None:
    """Whichever record comes first, what differs is told by those that finished."""
    for seed, rows in enumerate("aab"):
        made.write(tmp_path, seed=seed, data_sha256=rows * 64)
    for encoder in "defghijk":
        made.write(tmp_path, encoder=encoder, status="failed", reason="boom")
    assert [c.label for c in board_of(tmp_path).columns] == ["listops (examples=aaaaaa)", "listops (examples=bbbbbb)"]


class Own:
    """Records of runs on own files, each newer than the one before."""

    def __init__(self, results: Path) -> None:
        self.results, self.made = results, 0

    def ran(self, encoder: str, *, status: Status = "finished", typed: str | None = None, **files: str) -> None:
        """One on files: by name their content; the first names the column, but for what was typed."""
        self.made += 1
        names = [f"{name}.csv" for name in files]
        record = made.write(
            self.results,
            task="own_classification",
            task_label=typed or f"own_classification: {names[0]}",
            encoder=encoder,
            status=status,
            reason=None if status == "finished" else "boom",
            files=[
                DataFile(name=name, url=f"file:{name}", sha256=content * 64)
                for name, content in zip(names, files.values(), strict=True)
            ],
            task__data__rows=f"in/{names[0]}",
        )
        record.config["task_label"] = typed
        Store(self.results).write(record.model_copy(update={"started": f"2026-01-{self.made:02d}"}))

    def columns(self) -> dict[str, set[str]]:
        """Which encoders ran, by column."""
        board = board_of(self.results)
        found: dict[str, set[str]] = {column.label: set() for column in board.columns}
        for column, row, one in board.in_order():
            if one.seeds or one.failures:
                found[column.label].add(row.label)
        return found


def test_a_run_that_failed_on_own_data_stands_with_those_of_its_bytes(tmp_path: Path) -> None:
    own = Own(tmp_path)
    own.ran("tcn", status="failed", b="a")
    own.ran("lstm", a="a")
    assert own.columns() == {"own_classification: a.csv": {"lstm", "tcn"}}
    own.ran("gru", b="a")
    own.ran("cnn", status="failed", c="a")
    assert own.columns() == {"own_classification: c.csv": {"cnn", "gru", "lstm", "tcn"}}
    own.ran("mlp", status="failed", c="e")  # other bytes under the same name
    assert sorted(map(sorted, own.columns().values())) == [["cnn", "gru", "lstm", "tcn"], ["mlp"]]


def test_runs_that_all_failed_on_own_data_stand_by_its_bytes(tmp_path: Path) -> None:
    own = Own(tmp_path)
    own.ran("lstm", status="failed", a="a")
    own.ran("gru", status="failed", b="e")
    assert len(own.columns()) == 2
    own.ran("tcn", status="failed", c="e")
    assert own.columns() == {"own_classification: a.csv": {"lstm"}, "own_classification: c.csv": {"gru", "tcn"}}


def test_runs_that_all_failed_before_their_data_were_known_are_not_joined(tmp_path: Path) -> None:
    own = Own(tmp_path)
    for encoder, name in (("lstm", "a"), ("gru", "b")):
        own.ran(encoder, status="failed", **{name: "a"})
    one, other = Store(tmp_path).all()[0]
    for record in (one, other):  # of one task, to the letter
        config = {**record.config, "task": one.config["task"]}
        Store(tmp_path).write(record.model_copy(update={"data": [], "config": config}))
    assert len(own.columns()) == 2


@pytest.mark.parametrize("typed", ["own_classification: Mine", "own_classification: a.csv"])
def test_a_typed_name_that_begins_as_the_tasks_is_a_column_of_its_own(tmp_path: Path, typed: str) -> None:
    own = Own(tmp_path)
    own.ran("lstm", typed=typed, a="a")
    own.ran("gru", b="a")
    assert own.columns() == {typed: {"lstm"}, "own_classification: b.csv": {"gru"}}
    own.ran("tcn", a="a")  # the file's name, and one that typed it
    assert own.columns()[typed] == ({"lstm", "tcn"} if typed.endswith("a.csv") else {"lstm"})
    assert (
        "gru" in own.columns()["own_classification: b.csv" if typed.endswith("a.csv") else "own_classification: a.csv"]
    )


def test_names_typed_later_in_records_of_before_are_no_files(tmp_path: Path) -> None:
    own = Own(tmp_path)
    own.ran("lstm", typed="own_classification: Mine", a="a")
    [record] = Store(tmp_path).all()[0]
    Store(tmp_path).write(record.model_copy(update={"config": {**record.config, "task_label": None}}))
    own.ran("gru", b="a")
    assert len(own.columns()) == 2


def test_all_bytes_of_own_files_make_a_column_and_their_roles(tmp_path: Path) -> None:
    own = Own(tmp_path)
    own.ran("lstm", a="a", valid="b", test="c")
    own.ran("gru", a="a", valid="d", test="c")  # another file of validation
    own.ran("tcn", a="b", valid="a", test="c")  # two that change roles
    assert sorted(map(sorted, own.columns().values())) == [["gru"], ["lstm"], ["tcn"]]


def test_a_plans_labels_count_on_its_board(tmp_path: Path) -> None:
    """Records that another study made under other names share a row with those of this one."""
    records = [made.write(tmp_path, seed=seed, label=f"theirs {seed}") for seed in (0, 1)]
    plan = [
        Expected(id=r.id, task="listops", column="mine", encoder="gru", label="GRU", seed=r.seed, config=r.config)
        for r in records
    ]
    board = board_of(tmp_path, expected=plan)
    assert [row.label for row in board.rows] == ["GRU"]
    assert [column.label for column in board.columns] == ["mine"]
    assert cell(board, "GRU", "mine").seeds == (0, 1)
    assert len(board_of(tmp_path).rows) == 2


def test_runs_beside_others_are_told(tmp_path: Path) -> None:
    record = made.write(tmp_path)
    made.write(tmp_path, seed=1)
    assert not any("jobs at once" in notice for notice in board_of(tmp_path).notices)
    beside = record.environment.model_copy(update={"jobs": 4})
    Store(tmp_path).write(record.model_copy(update={"environment": beside}))
    assert any(
        notice.startswith("1 run had others beside it on its machine (4 jobs at once)")
        for notice in board_of(tmp_path).notices
    )


def test_distinctions_are_short_and_distinct() -> None:
    base = {"encoder.depth": 4, "encoder.dim": 64, "optimizer.lr": 0.001, "encoder.position._target_": "a.b.Rotary"}
    assert identity.distinctions([base]) == [""]
    assert identity.distinctions([base, {**base, "encoder.depth": 6}]) == ["depth=4", "depth=6"]
    assert identity.distinctions([base, {**base, "encoder.position._target_": "a.b.ALiBi"}]) == [
        "position=Rotary",
        "position=ALiBi",
    ]
    both = [{**base, "encoder.depth": d, "optimizer.lr": lr} for d in (4, 6) for lr in (0.001, 0.1)]
    assert identity.distinctions(both)[3] == "depth=6, lr=0.1"
    tied = [base, {**base, "encoder.depth": 6, "encoder.dim": 96}]  # they change together: one of them says it
    assert identity.distinctions(tied) == ["depth=4", "depth=6"]
    alike = [
        {"encoder.depth": 1, "head.depth": 1},
        {"encoder.depth": 1, "head.depth": 2},
        {"encoder.depth": 2, "head.depth": 1},
    ]
    texts = identity.distinctions(alike)
    assert len(set(texts)) == 3
    assert "encoder.depth=" in texts[0]
    long = [{"encoder.path": f"{'x' * 40}{i}{'y' * 40}"} for i in range(2)]
    assert len(set(identity.distinctions(long))) == 2
