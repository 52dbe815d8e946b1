"""The command: settings, mistakes in one line, a study's plan, files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from seqbench import leaderboard
from seqbench.board import collect, study
from seqbench.board.entries import Expected
from seqbench.errors import ConfigError
from seqbench.records.store import Store
from tests.seqbench import board_records as made

ROOT = Path(__file__).resolve().parents[2]
FAST = "draws=100"
MINE = study.Asked(study="mine")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two records of a study, as the working directory."""
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        made.write(tmp_path / "results", seed=seed, statistics=made.hits(0.6, 40, seed))
    return tmp_path


def test_all_records_make_all_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert leaderboard.main([FAST]) == 0
    names = ["index.html", "leaderboard.csv", "leaderboard.md", "leaderboard.tex"]
    assert sorted(path.name for path in (here / "reports" / "all").iterdir()) == names
    assert capsys.readouterr().out.splitlines()[-1] == "2 runs, 1 cell with a score"


def test_the_last_line_counts_what_did_not_finish_and_what_can_t_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made.write(tmp_path / "results", statistics=made.hits(0.6, 40, 0))
    assert leaderboard.main([FAST]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 run, 1 cell with a score"
    made.write(tmp_path / "results", seed=1, status="interrupted")
    made.write(tmp_path / "results", seed=2, status="diverged")
    for name in ("0123456789abcdef", "fedcba9876543210"):
        (tmp_path / "results" / name).mkdir()
        (tmp_path / "results" / name / "record.json").write_text("{")
    assert leaderboard.main([FAST]) == 0
    line = "3 runs, 1 cell with a score, 1 failed, 1 interrupted, 2 records left out (see the board)"
    assert capsys.readouterr().out.splitlines()[-1] == line


def test_same_records_same_bytes(here: Path) -> None:
    for out in ("out/a", "out/b"):
        assert leaderboard.main([FAST, f"out={out}"]) == 0
    for path in (here / "out" / "a").iterdir():
        assert path.read_bytes() == (here / "out" / "b" / path.name).read_bytes()


def test_formats_out_and_title(here: Path) -> None:
    assert leaderboard.main([FAST, "formats=[markdown]", "out=there", "title=2026"]) == 0
    assert [path.name for path in (here / "there").iterdir()] == ["leaderboard.md"]
    assert (here / "there" / "leaderboard.md").read_text().startswith("# 2026\n")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["studdy=x"], "studdy: no such key (did you mean study?)"),
        (["study"], "'study' is not key=value"),
        (["formats=[pdf]"], "'pdf' is not one of html, markdown, csv, latex"),
        (["formats=[html"], "formats: '[html' can't be read"),
        (["confidence=95"], "confidence: 95 is not allowed"),
        (["draws=many"], "draws: 'many' is not a whole number"),
        (["split=dev"], "split: 'dev' is not one of train, valid, test"),
        (["results=nowhere"], "results: no record under nowhere"),
        (["study=no_such_study"], "no_such_study"),
        (["out=results/x/file/y"], "out: results/x/file/y cannot be written to"),
    ],
)
def test_mistakes_are_told_in_a_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    (here / "results" / "x").mkdir()
    (here / "results" / "x" / "file").write_text("")
    assert leaderboard.main(arguments) == 2
    error = capsys.readouterr().err
    assert text in error
    assert len(error.splitlines()) <= 3
    assert not (here / "reports").exists()


def plan_of(*seeds: int) -> study.Planned:
    records = {record.record.seed: record.record for record in collect.read(Path("results"))[0]}
    cells = [
        Expected(
            id=records[seed].id if seed in records else f"new{seed}",
            task="listops",
            column="listops",
            encoder="encoder_only",
            label="encoder_only",
            seed=seed,
            config=made.config("listops", "encoder_only", seed, results="results"),
        )
        for seed in seeds
    ]
    return study.Planned(title="Two seeds", cells=cells, left_out={("gru", "scan"): "no"})


def test_a_study_is_its_plan_and_the_plan_is_kept(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made.write(here / "results", encoder="gru")  # of another study
    monkeypatch.setattr(study, "_make", lambda asked: plan_of(0, 1, 2))
    assert leaderboard.main([FAST, "study=mine"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 runs, 1 cell with a score, 1 not run"
    assert (here / "reports" / "mine" / "leaderboard.md").read_text().startswith("# Two seeds\n")
    first = study.planned(MINE, out=Path("reports/mine"))

    def refuse(asked: study.Asked) -> study.Planned:
        raise AssertionError("planned again")

    monkeypatch.setattr(study, "_make", refuse)
    assert study.planned(MINE, out=Path("reports/mine")) == first
    with pytest.raises(AssertionError, match="planned again"):
        study.planned(study.Asked(study="mine", overrides=("budget.steps=5",)), out=Path("reports/mine"))
    monkeypatch.setattr(study, "_key", lambda asked: "after a change of code")
    with pytest.raises(AssertionError, match="planned again"):
        study.planned(MINE, out=Path("reports/mine"))


def test_plans_on_a_users_own_files_are_not_kept(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "rows.csv").write_text("a,b\n")
    plan = plan_of(0)
    plan.cells[0].config["task"]["data"]["path"] = "rows.csv"
    monkeypatch.setattr(study, "_make", lambda asked: plan)
    study.planned(MINE, out=here / "kept")
    assert not (here / "kept").exists()


def test_a_study_that_has_no_plan_any_more_is_shown_by_its_records(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(asked: study.Asked) -> study.Planned:
        raise ConfigError("there is no such study")

    monkeypatch.setattr(study, "_make", gone)
    found = study.gather(Path("results"), study.Asked(study="made_up"), out=here)  # as the records say
    assert len(found.entries) == 2
    assert found.plan is None
    assert "there is no such study" in found.notices[0]
    with pytest.raises(ConfigError, match="no such study"):
        study.gather(Path("results"), MINE, out=here)


def test_help_and_a_board_need_no_torch(here: Path) -> None:
    code = (
        "import sys; from seqbench.leaderboard import main; "
        f"assert main(['--help']) == 0; assert main(['{FAST}']) == 0; "
        "print(sorted({'torch', 'hydra', 'wandb', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert "confidence: 0.95" in done.stdout


def test_keys_of_runs_go_to_the_plan() -> None:
    own, others = leaderboard.split_keys(
        ["study=x", "seed=0,1", "out=there", "budget.steps=5", "+encoder.dim=2", "split"]
    )
    assert own == ["study=x", "out=there", "split"]
    assert others == ["seed=0,1", "budget.steps=5", "+encoder.dim=2"]
    with pytest.raises(ConfigError, match=r"bugdet\.steps: no such key"):
        leaderboard.split_keys(["bugdet.steps=5"])


OWN_STUDY = """
name: mine
title: Mine
grid:
  - {encoder: [bag, dlinear], task: [listops, etth1], seed: [0, 1]}
set: {budget.steps: 7}
"""


def test_a_study_of_the_users_own_with_what_was_typed_beside_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The board's plan is the one of `train.py -m` with the same words, and records of other words are told."""
    (here / "own" / "study").mkdir(parents=True)
    (here / "own" / "study" / "mine.yaml").write_text(OWN_STUDY)
    asked = study.Asked(study="mine", overrides=("budget.steps=5",), config_dir="own")
    cells = study.planned(asked, out=here / "aside").cells
    assert {cell.config["budget"]["steps"] for cell in cells} == {5}
    for cell in cells[:2]:
        record = made.write(here / "results", seed=cell.seed, encoder="bag", value=0.4 + cell.seed / 10)
        Store(here / "results").write(
            record.model_copy(update={"id": cell.id, "config": cell.config, "studies": ["mine"]})
        )
    common = [FAST, "study=mine", "--config-dir", "own"]
    assert leaderboard.main([*common, "budget.steps=5"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 runs, 1 cell with a score, 4 not run"
    content = (here / "reports" / "mine" / "leaderboard.md").read_text()
    assert content.startswith("# Mine\n")
    assert leaderboard.main(common) == 0
    *_, count, told = capsys.readouterr().out.splitlines()
    assert count == "0 runs, 0 cells with a score, 6 not run"
    assert "2 records of this study, not shown here, made with other settings: budget.steps=5 (2)" in told
    assert "leaderboard.py --config-dir own study=mine budget.steps=5" in told
    content = (here / "reports" / "mine" / "leaderboard.md").read_text()
    assert "budget.steps=5 (2)" in content
    assert "dlinear on listops: " in content  # what can't be, with its reason
    assert leaderboard.main([*common, "budget.steps=6"]) == 0
    assert "study=mine" in capsys.readouterr().out.splitlines()[-1]
    assert leaderboard.main([*common, "encoder=nowhere"]) == 2
    assert "encoder=nowhere: there is no such encoder" in capsys.readouterr().err
    assert leaderboard.main([FAST, "--config-dir", "absent"]) == 2
    assert "--config-dir: 'absent' is no folder" in capsys.readouterr().err


def test_the_board_of_a_sweep(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert leaderboard.main([FAST, "encoder=bag,dlinear", "task=listops,etth1", "budget.steps=3"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-2] == "0 runs, 0 cells with a score, 3 not run"
    assert out[-1].endswith("python scripts/train.py -m encoder=bag,dlinear task=listops,etth1 budget.steps=3")
    content = (here / "reports" / "sweep" / "leaderboard.md").read_text()
    assert "dlinear on listops: " in content


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb")
def test_weights_and_biases_offline(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(here))
    assert leaderboard.main([FAST, "formats=[csv]", "wandb=true"]) == 0
    assert "wandb: run " in capsys.readouterr().out
    [run] = (here / "wandb").glob("offline-run-*")
    assert list(run.glob("*.wandb"))
    [table] = run.rglob("*.table.json")
    assert '"encoder_only"' in table.read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb")
@pytest.mark.parametrize("mode", [None, "online", "nonsense"])
def test_weights_and_biases_without_an_account(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: str | None
) -> None:
    """Offline by itself; where it can't be had, two lines and the other files."""
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("WANDB_DIR", str(here))
    monkeypatch.setenv("NETRC", str(here / "netrc"))
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert leaderboard.main([FAST, "formats=[csv]", "wandb=true"]) == (2 if mode else 0)
    said = capsys.readouterr()
    assert (here / "reports" / "all" / "leaderboard.csv").is_file()
    if mode:
        assert len(said.err.splitlines()) <= 3
        assert said.err.startswith("wandb: the table could not be logged (")
    else:
        assert len([line for line in said.out.splitlines() if line.startswith("wandb: ")]) == 2
