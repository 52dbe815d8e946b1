"""tasks/README.md is followed to the letter: files are written, commands composed, tasks built, fed and scored."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import open_dict

from seqbench.build import build_encoder, build_task, check_pair
from seqbench.composition.compose import compose, config_loader, names_of
from seqbench.config import RunConfig, load_config
from seqbench.errors import ConfigError
from tasks.base import Task
from tasks.data.base import SPLITS, DataError
from tasks.loading import Batching

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "tasks" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [content.strip() for language, name, content in BLOCKS if language == "sh" and name != "hub"]
[HUB] = [content.strip() for language, name, content in BLOCKS if language == "sh" and name == "hub"]
FILES = {name: content for language, name, content in BLOCKS if name and language != "sh"}


@pytest.fixture(autouse=True)
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory with the files of the page."""
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    (tmp_path / "my_package" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
        del sys.modules[name]


def configured(command: str) -> RunConfig:
    """What `scripts/train.py` makes of the command line before it reads anything."""
    python, script, *arguments = shlex.split(command)
    assert (python, script) == ("python", "scripts/train.py")
    folder = None
    if arguments[0] == "--config-dir":
        folder, arguments = arguments[1], arguments[2:]
    cfg = compose(config_loader(folder), arguments)
    names = names_of(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]  # as hydra.main does before it calls the job
    return load_config(cfg, names, arguments)


def small(config: RunConfig) -> RunConfig:
    """The same run with an encoder of width 32."""
    return config.model_copy(update={"encoder": {**config.encoder, "dim": 32}})


def words_of(command: str) -> str:
    return " ".join(re.findall(r"(?:task|data)=(\w+)", command))


@pytest.mark.parametrize("command", COMMANDS, ids=words_of)
def test_each_command_trains_and_scores(command: str) -> None:
    config = small(configured(command))
    task = build_task(config)
    check_pair(config, task)
    task.data.check()
    task.setup()
    torch.manual_seed(0)
    encoder = build_encoder(config, task.spec)
    task.attach(encoder)
    parameters = [*encoder.parameters(), *task.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    rows = np.arange(min(8, len(task.examples["train"])))
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = task(encoder, task.collate("train", rows)).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    task.eval()
    encoder.eval()
    assert _scored(task, encoder)
    assert all(task.accounting(split).examples == len(task.examples[split]) for split in SPLITS)
    assert len(task.trivial("majority", "test", 0)) == len(task.references("test"))


def _scored(task: Task, encoder: torch.nn.Module) -> bool:
    predictions = {}
    for batch in task.loader("test", batching=Batching(rows=3), seed=0, shuffle=False):
        with torch.no_grad():
            output = task(encoder, batch)
        predictions |= dict(zip(batch.index.tolist(), output.predictions, strict=True))
    scores = task.score("test", predictions)
    assert [score.n for score in scores.values()] == [len(task.examples["test"])] * len(scores)
    return bool(scores)


def test_every_form_of_own_data_is_on_the_page() -> None:
    assert {Path(name).suffix for name in FILES} >= {".csv", ".tsv", ".jsonl", ".conll"}
    own = {path.stem for path in (ROOT / "configs" / "task").glob("own_*.yaml")}
    assert {name for name in own if any(f"task={name} " in command for command in COMMANDS)} == own


def test_parquet_takes_the_place_of_json_lines(written: Path) -> None:
    import pandas

    pandas.read_json(written / "tags.jsonl", lines=True).to_parquet(written / "tags.parquet")
    [command] = [command for command in COMMANDS if "tags.jsonl" in command]
    tables = []
    for name in ("tags.jsonl", "tags.parquet"):
        data = build_task(configured(command.replace("tags.jsonl", name))).data
        tables.append([(e.source, e.target) for split in SPLITS for e in data.read(split)])
    assert tables[0] == tables[1]
    assert len(tables[0]) == 4


def test_the_hub_command_is_checked_up_to_the_network() -> None:
    config = configured(HUB)
    task = build_task(config)
    check_pair(config, task)
    assert task.data.identity()[0].url.endswith(config.task["data"]["revision"])
    with pytest.raises(DataError, match="can't be reached"):
        task.data.check()


def test_mistakes_on_these_command_lines_are_named() -> None:
    command = next(command for command in COMMANDS if "reviews.csv" in command)
    with pytest.raises(ConfigError, match=r"task\.data\.train: missing"):
        configured(command.replace("task.data.train=reviews.csv", ""))
    task = build_task(configured(command.replace("columns.target=stars", "columns.target=star")))
    with pytest.raises(DataError, match=r"reviews\.csv line 1: no column 'star' \(did you mean 'stars'\?\)"):
        task.data.check()
    with pytest.raises(ConfigError, match=r"task\.data\.quoted"):
        configured(command + " task.data.quoted=perhaps")


def test_kinds_and_paths_on_the_page_exist() -> None:
    for module, name in re.findall(r"^\| `(\w+)\.(\w+)` \|", TEXT, flags=re.MULTILINE):
        assert re.search(rf"^class {name}\(Task\)", (ROOT / "tasks" / f"{module}.py").read_text(), flags=re.MULTILINE)
    for path in re.findall(r"\]\(([\w/.]+)\)", TEXT):
        assert (ROOT / "tasks" / path).exists(), path
    for path in re.findall(r"`((?:tests|configs|tasks|scripts)/[\w/.]*)`", TEXT):
        assert (ROOT / path).exists() or "NAME" in path, path
