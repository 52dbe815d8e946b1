"""The command line: quick answers without torch, one run, what it prints and leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seqbench import cli
from seqbench.records.store import read
from tests.seqbench.toy_cli import BASE, Toy, record_path

ROOT = Path(__file__).resolve().parents[2]
TRAIN = str(ROOT / "scripts" / "train.py")


def process(*arguments: str, cwd: Path) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """The real script: what it printed and the modules it had imported at the end."""
    report = cwd / "modules"
    code = (
        "import sys, atexit, runpy; sys.argv = sys.argv[1:];"
        f"atexit.register(lambda: open({str(report)!r}, 'w').write(' '.join(sys.modules)));"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code, TRAIN, *arguments], capture_output=True, text=True, cwd=cwd)
    modules = set(report.read_text().split())
    report.unlink()
    return done, modules


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, code, expected",
    [
        (["--help"], 0, "python scripts/train.py -m study=quickstart"),
        (["--cfg", "job"], 0, "_target_: torch.optim.AdamW"),
        (["encoder.dpeth=3"], 2, "encoder.dpeth: no such key (did you mean encoder.depth?)"),
        (["seed=yes"], 2, "seed: 'yes' is not a whole number"),
        (["task=scan", "task.search={size: 4}"], 2, "task.search: what stands there has not all of these keys; to add"),
        (["encoder=encoder_olny"], 2, "there is no such encoder (did you mean encoder_only?)"),
        (["encoder.heads=0"], 2, "encoder.heads: 0 is not allowed"),
        (["-m", "encoder=lstm,gru", "seed=a,b"], 2, "seed: 'a' is not a whole number"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_answers_come_without_torch(arguments: list[str], code: int, expected: str, tmp_path: Path) -> None:
    done, modules = process(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert expected in (done.stdout if code == 0 else done.stderr)
    assert "seqbench.cli" in modules
    assert not {"torch", "numpy", "pandas", "pytorch_lightning"} & modules
    assert list(tmp_path.iterdir()) == []
    if code:
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) <= 3


def test_help_lists_the_choices(toy: Toy) -> None:
    said = toy("--help", base=[])
    assert said.code == 0
    for group in ("encoder", "task", "protocol", "budget", "optimizer", "schedule", "trainer", "logger", "study"):
        assert f"\n{group}: " in said.out
    assert said.out.count("python scripts/train.py") >= 3


def test_one_run_prints_its_scores_and_leaves_one_record(toy: Toy) -> None:
    said = toy("seed=1")
    assert said.code == 0
    assert "toy x toy, seed 1" in said.out
    record = read(Path(record_path(said.out)))
    assert record.status == "finished"
    value = record.scores["test"]["hits"].value
    assert value is not None
    assert f"{value:.4g}" in said.out
    assert toy.left == {"results"}  # no outputs/, no log file
    assert record.overrides == [*BASE, "seed=1"]
    assert record.config["seed"] == 1
    again = toy("seed=1")
    assert again.code == 0
    assert "has a record already" in again.out
    assert record_path(again.out) == record_path(said.out)


def test_the_recorded_overrides_make_the_same_run(toy: Toy) -> None:
    first = read(Path(record_path(toy("encoder.dropout=0", "label='a b'").out)))
    assert first.encoder.label == "a b"
    again = toy(*first.overrides, base=[])
    assert record_path(again.out).endswith(f"{first.id}/record.json")
    assert "has a record already" in again.out


def test_results_are_relative_to_where_one_stands(toy: Toy) -> None:
    assert toy("results=mine/here").code == 0
    assert len(list((toy.work / "mine" / "here").glob("*/record.json"))) == 1


def test_a_failed_run_ends_with_one_and_says_why(toy: Toy) -> None:
    said = toy("encoder=broken")
    assert said.code == 1
    assert "broken x toy, seed 0: diverged: the training loss is nan at step 3" in said.out
    assert read(Path(record_path(said.out))).status == "diverged"


def test_an_error_of_our_own_keeps_its_traceback(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*given: object, **named: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("seqbench.run.run", bug)
    with pytest.raises(ZeroDivisionError, match="ours"):
        toy()


def test_an_interrupt_is_one_line(toy: Toy) -> None:
    node = {"_target_": "tests.seqbench.toy.BrokenEncoder", "dim": 4, "dropout": 0.1, "how": "interrupt", "at": 9}
    toy.write("encoder/broken.yaml", node)
    said = toy("encoder=broken")
    assert said.code == 130
    assert said.err.splitlines()[1:] == [
        "interrupted; the same command goes on from the last checkpoint, if there was one"
    ]  # after step 5
    assert read(toy.records()[0]).status == "interrupted"


def test_a_users_own_package_and_config_folder(toy: Toy) -> None:
    """A class in the working directory, by its `_target_` alone; its file's keys replace those of the choice."""
    (toy.work / "my_package").mkdir()
    (toy.work / "my_package" / "__init__.py").write_text("")
    (toy.work / "my_package" / "nets.py").write_text(
        "from tests.seqbench.toy import ToyEncoder\n"
        "class Mine(ToyEncoder):\n"
        "    def __init__(self, *, dim: int, spec: 'InputSpec') -> None:\n"
        "        super().__init__(dim=dim, dropout=0.0, spec=spec)\n"
    )
    allowed = "allowed=[encoders,tasks,torch.optim,tests.seqbench.toy,my_package]"
    said = toy("encoder._target_=my_package.nets.Mine")
    assert said.code == 2
    assert "allowed=[encoders,tasks,torch.optim,tests.seqbench.toy,my_package]" in said.err
    said = toy("encoder._target_=my_package.nets.Mine", allowed)
    assert said.code == 0, said.err
    record = read(Path(record_path(said.out)))
    assert record.config["encoder"] == {"_target_": "my_package.nets.Mine", "dim": 12}
    toy.write("encoder/mine.yaml", {"_target_": "my_package.nets.Mine", "dim": 12})
    assert record_path(toy("encoder=mine", allowed).out) == record_path(said.out)  # the same run, by a file
    del sys.modules["my_package.nets"], sys.modules["my_package"]


def test_study_needs_m(toy: Toy) -> None:
    assert toy("study=tiny").line == "study=tiny: a study is a grid of runs; add -m"


@pytest.mark.slow
def test_the_script_works_from_anywhere(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    run = [sys.executable, TRAIN, "encoder=bag", "task=digits", "budget.steps=3", "budget.eval_every=3", "logger=none"]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    record = json.loads((tmp_path / record_path(done.stdout)).read_text())
    assert record["status"] == "finished"
    assert "Traceback" not in done.stderr


def test_main_returns_a_code_and_leaves_argv(toy: Toy) -> None:
    before = list(sys.argv)
    assert cli.main(["--config-dir", str(toy.configs), "seed=x", *BASE]) == 2
    assert sys.argv == before


def test_what_is_said_on_the_way(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    said = toy("seed=3", "budget.steps=10", "budget.eval_every=5")
    lines = [line for line in said.err.splitlines() if "step" in line]
    assert [line.partition(", loss")[0] for line in lines] == [f"toy toy seed 3: step {n}/10" for n in (5, 10)]
    assert toy("seed=4", "trainer.progress=false").err == ""
    node = {"_target_": "tests.seqbench.toy.BrokenEncoder", "dim": 4, "dropout": 0.1, "how": "error", "at": 3}
    toy.write("encoder/broken.yaml", node)
    said = toy("encoder=broken")
    place = said.out.splitlines()[-1].removeprefix("traceback: ")
    assert "RuntimeError: mat1 and mat2" in (toy.work / place).read_text()
    assert toy("label=naïve").line.endswith("""quote its text: 'label="naïve"'""")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(toy.work / "none"))
    said = toy("logger=wandb", "logger.wandb.mode=online", "seed=5")
    assert said.code == 2
    assert said.err.splitlines()[0] == "logger.wandb.mode: online, but no account is known here"
    assert len(said.err.splitlines()) == 2
