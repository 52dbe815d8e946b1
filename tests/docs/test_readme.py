"""Every command of README.md and docs/ runs; long ones with a budget of a few steps, in a folder of their own."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from seqbench import calibration, cli, data_command, leaderboard, leakage_command
from seqbench.claims import command as claims
from seqbench.studies.grid import read_study
from seqbench.verify import command as verify

ROOT = Path(__file__).resolve().parents[2]
SHORT = ["budget.steps=2", "budget.eval_every=2", "budget.eval_limit=8", "trainer.progress=false"]
CLUSTER = "hydra/launcher=slurm"
STORE = "s3://bucket/prefix"  # in its place a folder: no network, and no driver of a cloud's
PINNED = ("experiment=atis", "experiment=etth1")  # of real data
OWN_ENCODER = '''
"""A smallest encoder."""
from encoders.base import Encoder, InputSpec, Sequences, States
from encoders.blocks.embedding import InputEmbedding


class MyEncoder(Encoder):
    """Each position by itself."""

    causal = True

    def __init__(self, *, dim: int, spec: InputSpec) -> None:
        super().__init__()
        self.dim = dim
        self.embed = InputEmbedding(dim=dim, patch=1, spec=spec)

    def forward(self, source: Sequences) -> States:
        values, mask = self.embed(source)
        return States(values=values, mask=mask)
'''


def commands() -> list[str]:
    """Lines of the sh blocks, without their comments; those for a cluster are run by tests/slurm/."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(page.read_text() for page in pages)
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0].split(" # ")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and CLUSTER not in line]


def study() -> str:
    """The study that the README writes out."""
    [content] = re.findall(r"^```yaml\n(name: .*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return str(content)


def test_the_study_of_the_readme_is_planned_as_it_says() -> None:
    grid = read_study("mine", yaml.safe_load(study()), [])
    assert len(grid.cells) == 3 * 2 * 2 + 1
    for cell in grid.cells:
        assert cell["jobs"] == "jobs=2"
        assert cell["trainer.threads"] == "trainer.threads=1"
        assert cell.get("budget.steps") == ("budget.steps=300" if cell["task"] == "task=digits" else None)
        assert cell.get("encoder.dim") == ("encoder.dim=64" if cell["encoder"] == "encoder=bilstm" else None)
        assert cell.get("pretrain") == ("pretrain=lm" if cell["task"] == "task=python_code" else None)


def test_there_are_commands_of_each_kind() -> None:
    heads = {" ".join(line.split()[:2]) for line in commands()}
    scripts = {f"python scripts/{name}.py" for name in ("train", "leaderboard", "data", "verify", "leakage")}
    assert heads >= scripts | {"make quickstart", "make test"}


def test_folders_of_results_are_not_in_git_but_published_ones() -> None:
    def ignored(path: str) -> bool:
        return subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT).returncode == 0

    assert ignored("results/0123/record.json")
    assert ignored("results_mine/0123/record.json")
    assert ignored("results/published/0123/verified.json")
    assert not ignored("results/published/0123/record.json")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the README's examples name: a file of reviews and a package."""
    rows = [f"{'good' if i % 2 else 'bad'} film number {i},{i % 2}" for i in range(60)]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,stars", *rows]) + "\n")
    (tmp_path / "my_package.py").write_text(OWN_ENCODER)
    (tmp_path / "my_configs" / "study").mkdir(parents=True)
    (tmp_path / "my_configs" / "study" / "mine.yaml").write_text(study())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("line", commands())
def test_command(line: str, place: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    store = (place / "store").as_uri()
    words = shlex.split(line.replace(STORE, store))
    if words[0] == "make":
        recipe = subprocess.run(["make", "-n", words[1]], cwd=ROOT, capture_output=True, text=True)
        assert recipe.returncode == 0, recipe.stderr
        if words[1] == "quickstart":
            ran = [shlex.split(row)[1:] for row in recipe.stdout.splitlines() if "scripts/" in row]
            readme = [shlex.split(row)[1:] for row in commands() if row.endswith(" study=quickstart")]
            assert ran == readme, "what make quickstart runs is what the README says"
        return
    script, arguments = Path(words[1]), words[2:]
    assert (ROOT / script).is_file()
    if script.stem == "data":
        monkeypatch.setenv("SEQBENCH_DATA", str(request.getfixturevalue("data_cache")))
        assert data_command.main(arguments) == 0
    elif script.stem == "calibration":
        _calibration(arguments, place, request, monkeypatch)
    elif script.stem == "leaderboard":
        put = [f"mirror={store}"] if STORE in line else []
        assert cli.main(["encoder=majority", "task=digits", *put, *SHORT]) == 0, "a board needs a record"
        assert leaderboard.main(arguments) == 0
        assert list(place.rglob("index.html"))
    elif script.stem == "claims":
        assert claims.main(arguments) == 0
    elif script.stem == "leakage":
        assert leakage_command.main(arguments) == 0
        assert list((place / "results" / "leakage").glob("*.json"))
    elif script.stem == "verify":
        study = [word for word in arguments if word.startswith("study=")]
        run = ["-m", *study, "task=digits"] if study else ["task=digits"]
        assert cli.main([*run, "encoder=majority", *SHORT]) == 0
        assert verify.main(arguments) == 0
        assert list(place.rglob("verified.json"))
    elif not {"--help", "--cfg"} & set(arguments):
        if any(word.startswith(PINNED) for word in arguments):
            monkeypatch.setenv("SEQBENCH_DATA", str(request.getfixturevalue("data_cache")))
        if "study=quickstart" in arguments:
            arguments = [*arguments, "task=digits", "encoder=encoder_only,majority"]
        short = [word for word in SHORT if not word.startswith("budget.steps") or "budget=tokens" not in arguments]
        short += ["budget.tokens=5000"] if "budget=tokens" in arguments else []
        short += ["tune.trials=2", "encoder=lstm"] if "tune=random" in arguments else []
        if "study=mine" in arguments:
            arguments = [*arguments, "task=digits", "seed=0", "jobs=1"]
        if any(word.startswith("pretrain=") for word in arguments):
            short += ["pretrain.budget.steps=2", "pretrain.budget.eval_every=2", "pretrain.budget.eval_limit=8"]
            short += ["pretrain.task.data.valid=2000", "pretrain.task.data.test=2000", "task.data.test=40"]
        assert cli.main([*arguments, *short]) == 0
        records = list((place / "results").glob("*/record.json"))
        assert records
        assert bool(list((place / "store").glob("*/record.json"))) == (STORE in line)
        assert cli.main([*arguments, *short]) == 0, "the second time"
        assert list((place / "results").glob("*/record.json")) == records, "nothing is run twice"
    else:
        assert cli.main(arguments) == 0
        assert not (place / "results").exists()


def _calibration(
    arguments: list[str], place: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the folder of the test, a copy of the page in place of the page."""
    monkeypatch.setenv("SEQBENCH_DATA", str(request.getfixturevalue("data_cache")))
    page = place / "calibration.md"
    page.write_text(calibration.PAGE.read_text())
    monkeypatch.setattr(calibration, "PAGE", page)
    monkeypatch.setattr(calibration, "PUBLISHED", place / "published")
    if arguments[0] == "run":
        assert calibration.main([*arguments, "--set", *SHORT]) == 0
        assert list((place / "results").glob("*/record.json"))
    else:
        assert calibration.main(arguments) == (arguments[0] == "publish"), "1: nothing was run"
