"""Fine-tuning and probing a checkpoint from the command line, as encoders/README.md shows; ids of such runs."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from seqbench import cli
from seqbench.build import build_task
from seqbench.composition.compose import compose, config_loader, names_of
from seqbench.composition.compositions import Compositions
from seqbench.config import RunConfig, load_config
from seqbench.records.identity import run_id
from seqbench.records.store import read
from tests.tasks.checkpoints import save

ROOT = Path(__file__).resolve().parents[2]
SECTION = (ROOT / "encoders" / "README.md").read_text(encoding="utf-8").split("## A pretrained checkpoint\n")[1]
COMMANDS = re.findall(r"^python scripts/train\.py (.*)$", SECTION.split("\n## ")[0].replace("\\\n", " "), re.MULTILINE)
SHORT = ["budget.steps=20", "budget.eval_every=10", "trainer.threads=1", "trainer.progress=false", "task.max_length=32"]
FAST = ["task=own_classification", "task.data.train=reviews.csv"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("bert", tmp_path_factory.mktemp("checkpoint") / "my_checkpoint")


@pytest.fixture
def place(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with what the page names: a checkpoint and a file of reviews."""
    shutil.copytree(checkpoint, tmp_path / "my_checkpoint")
    rows = [f"the film is {'good' if i % 2 else 'slow'} {i // 2},{i % 2}" for i in range(60)]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config_of(*overrides: str) -> RunConfig:
    cfg = compose(config_loader(), list(overrides))
    names = names_of(cfg.hydra.runtime.choices)
    plain = {key: cfg[key] for key in cfg if key != "hydra"}
    return load_config(type(cfg)(plain), names, list(overrides))


def of(*overrides: str) -> str:
    config = config_of(*FAST, *overrides)
    return run_id(config, build_task(config))


def pretrained(folder: str) -> list[str]:
    return ["encoder=pretrained", f"encoder.path={folder}", "tokenizer=pretrained"]


# -- the config group ------------------------------------------------------------------------------------------------
def test_a_tokeniser_of_the_group_replaces_the_task_s_own(place: Path) -> None:
    """No key of the replaced one stays, whatever the task has; without a choice the task keeps its own."""
    own = config_of(*FAST)
    assert own.task["tokenizer"] == {"_target_": "tasks.tokenizers.Subword", "vocab_size": 8000}
    words = config_of(*FAST, "tokenizer=words", "tokenizer.min_count=2")
    assert words.task["tokenizer"] == {"_target_": "tasks.tokenizers.Words", "min_count": 2, "max_size": None}
    assert "tokenizer" not in words.resolved()
    checkpoint = config_of("task=sst2", *pretrained("my_checkpoint"))
    target = "tasks.pretrained_tokenizer.Pretrained"
    assert checkpoint.task["tokenizer"] == {"_target_": target, "path": "my_checkpoint", "revision": None}
    other = config_of(*FAST, "encoder=lstm", "tokenizer=pretrained", "tokenizer.path=my_checkpoint")
    assert other.task["tokenizer"] == checkpoint.task["tokenizer"]


def test_a_sweep_over_tokenisers_and_encoders(place: Path) -> None:
    """What the planning of a study composes of parts is what Hydra composes whole."""
    compositions = Compositions(config_loader())
    for encoder in (["encoder=lstm"], ["encoder=pretrained", "encoder.path=my_checkpoint"]):
        for tokenizer in ("words", "pretrained", "subword"):
            overrides = [*FAST, *encoder, f"tokenizer={tokenizer}", "tokenizer.path=my_checkpoint"]
            overrides = overrides if tokenizer == "pretrained" else overrides[:-1]
            tree, _ = compositions.make(overrides)
            config = config_of(*overrides)
            assert (tree["encoder"], tree["task"]) == (config.encoder, config.task)


def test_every_file_of_the_group_builds(place: Path) -> None:
    names = sorted(file.stem for file in (ROOT / "configs" / "tokenizer").glob("*.yaml"))
    assert len({of(f"tokenizer={name}", "encoder=pretrained", "encoder.path=my_checkpoint") for name in names}) == len(
        names
    )


@pytest.mark.parametrize(
    "overrides, line",
    [
        (["tokenizer=pretrained"], "tokenizer.path: missing ('encoder.path' not found); give it a value\n"),
        (
            ["tokenizer=words", "task.tokenizer.min_count=2"],
            "task.tokenizer.min_count: task.tokenizer is taken from tokenizer; set tokenizer.min_count\n",
        ),
        (
            [*pretrained("nobody/nothing"), "tokenizer.path=my_checkpoint"],
            "encoder.revision: None; there is no directory nobody/nothing, and a name on the hub needs the 40 digits of"
            " a commit, since a branch can move\n",
        ),
        ([*pretrained("my_checkpoint"), "task=etth1"], "task.tokenizer: no such key; there is "),
    ],
)
def test_mistakes_are_told_in_a_line(
    overrides: list[str], line: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [one for one in FAST if "task=etth1" not in overrides]
    assert cli.main([*given, *overrides]) == 2
    assert capsys.readouterr().err.startswith(line)
    assert not (place / "results").exists()


def test_ids_of_another_vocabulary_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A smaller vocabulary than the checkpoint's would pass every other check, and mean nothing."""
    short = ["encoder=pretrained", "encoder.path=my_checkpoint", "task.max_length=32", *SHORT]
    assert cli.main([*FAST, *short, "tokenizer=characters"]) == 2
    assert capsys.readouterr().err == (
        f"encoder.path: the task's ids are not those of {Path('my_checkpoint/tokenizer.json')}, so that they would mean"
        " nothing to the checkpoint; add tokenizer=pretrained\n"
    )
    assert not list((place / "results").glob("*/record.json"))


# -- ids of runs -----------------------------------------------------------------------------------------------------
def test_equal_bytes_at_another_path_are_the_same_run(place: Path) -> None:
    one = of(*pretrained("my_checkpoint"))
    shutil.copytree("my_checkpoint", "moved")
    (place / "moved" / "README.md").write_text("what is not read does not count")
    assert of(*pretrained("moved")) == of(*pretrained(str(place / "moved"))) == one
    assert of(*pretrained("my_checkpoint"), "encoder.dropout=0.5") != one


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_other_bytes_are_another_run(name: str, place: Path) -> None:
    one = of(*pretrained("my_checkpoint"))
    file = place / "my_checkpoint" / name
    file.write_bytes(file.read_bytes() + b" ")
    assert of(*pretrained("my_checkpoint")) != one


def test_a_name_on_the_hub_is_told_by_its_commit(place: Path) -> None:
    def hub(name: str, digit: str) -> str:
        return of("encoder=lstm", "tokenizer=pretrained", f"tokenizer.path={name}", f"tokenizer.revision={digit * 40}")

    assert len({hub("nobody/nothing", "a"), hub("nobody/nothing", "b"), hub("nobody/none", "a")}) == 3


# -- runs ------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("line", COMMANDS)
def test_commands_of_the_page(line: str, place: Path) -> None:
    arguments = [*shlex.split(line), *SHORT]
    assert cli.main(arguments) == 0
    (file,) = (place / "results").glob("*/record.json")
    record = read(file)
    assert record.status == "finished"
    assert record.config["task"]["tokenizer"]["path"] == "my_checkpoint"
    assert record.scores["test"]["accuracy"].n == 6
    shutil.move("my_checkpoint", "moved")
    (place / "my_checkpoint").symlink_to(place / "moved")
    assert cli.main(arguments) == 0, "the second time, from another place"
    assert list((place / "results").glob("*/record.json")) == [file], "nothing is run twice"


def test_the_page_shows_both_ways() -> None:
    assert len(COMMANDS) == 2
    assert sum("protocol=probe" in line for line in COMMANDS) == 1
