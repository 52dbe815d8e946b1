"""Nothing foreign runs, whoever names it: experiments, studies, any other config file, the command line, a record.

What is tried leaves a file behind if it runs: a class and a function of a package beside the user's results.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from seqbench.build import build_task
from seqbench.composition.compose import CONFIG_NAME, config_loader
from seqbench.config import check_config, default_allowed
from seqbench.errors import ConfigError
from seqbench.records.store import read
from tests.seqbench.toy_cli import ALLOWED, BASE, STUDY, Toy
from tests.seqbench.toy_config import NAMES, TREE

EVIL = """
from pathlib import Path
from hydra.experimental.callback import Callback
from tests.seqbench.toy import ToyEncoder

Path({mark!r}).write_text("imported")

def act(*given, **named):
    Path({mark!r}).write_text("called")

class Evil(Callback):
    def __init__(self, *given, **named):
        act()

class Encoder(ToyEncoder):
    pass
"""
GLOBAL = "# @package _global_\n"
TRUST = "{allowed: [encoders, tasks, torch.optim, tests.seqbench.toy, evil_package]}"
NODE = "{x: {_target_: evil_package.Evil}}"
LOGGER = "{version: 1, handlers: {x: {(): evil_package.act}}, root: {handlers: [x]}}"


@pytest.fixture
def mark(toy: Toy) -> Iterator[Path]:
    """A file that is there if anything of `evil_package` ran; the package lies in the working directory."""
    place = toy.work.parent / "it_ran"
    for folder in ("evil_package", "hydra_plugins"):
        (toy.work / folder).mkdir()
    (toy.work / "evil_package" / "__init__.py").write_text(EVIL.format(mark=str(place)))
    (toy.work / "hydra_plugins" / "planted.py").write_text("import evil_package\n")
    yield place
    for name in [name for name in sys.modules if name.startswith("evil_package")]:
        del sys.modules[name]


def refused(toy: Toy, mark: Path, *arguments: str, says: str, base: Any = BASE) -> None:
    said = toy(*arguments, base=base)
    assert said.code == 2, said
    assert says in said.line, said.err
    assert 1 <= len(said.err.splitlines()) <= 3
    assert "Traceback" not in said.err
    assert not mark.exists(), mark.read_text()
    assert not toy.records()


FILES = [
    ("experiment/x.yaml", f"{GLOBAL}allowed: [evil_package]\n", ["experiment=x"], "experiment/x.yaml: allowed: only"),
    ("encoder/x.yaml", f"{GLOBAL}allowed: [evil_package]\n", ["encoder=x"], "encoder/x.yaml: allowed: only"),
    ("task/x.yaml", "# @package allowed\na: 1\n", ["task=x"], "task/x.yaml: allowed: only"),
    ("experiment/x.yaml", f"{GLOBAL}hydra: {{callbacks: {NODE}}}\n", ["experiment=x"], "x.yaml: hydra: only"),
    ("experiment/x.yaml", f"# @package hydra.callbacks\n{NODE}\n", ["experiment=x"], "x.yaml: hydra: only"),
    ("experiment/x.yaml", f"{GLOBAL}hydra: {{job_logging: {LOGGER}}}\n", ["experiment=x"], "x.yaml: hydra: only"),
    (
        "experiment/x.yaml",
        f"{GLOBAL}hydra: {{sweeper: {{_target_: evil_package.Evil}}}}\n",
        ["-m", "experiment=x"],
        "x.yaml: hydra: only",
    ),
    ("experiment/x.yaml", f"{GLOBAL}hydra: {{callbacks: {NODE}}}\n", ["-m", "experiment=x,null"], "hydra: only"),
    ("study/tiny.yaml", f"{GLOBAL}hydra: {{callbacks: {NODE}}}\n", ["-m", "study=tiny"], "tiny.yaml: hydra: only"),
    ("budget/x.yaml", f"{GLOBAL}hydra: {{callbacks: {NODE}}}\n", ["budget=x"], "budget/x.yaml: hydra: only"),
    (
        "experiment/x.yaml",
        f"{GLOBAL}defaults: [/encoder@hydra.callbacks.x: evil]\n",
        ["experiment=x"],
        "encoder/evil.yaml: hydra: only",
    ),
    (
        "experiment/x.yaml",
        f"{GLOBAL}defaults: [override /hydra/launcher: submitit_local]\n",
        ["experiment=x"],
        "hydra/launcher: submitit_local is chosen by a config file",
    ),
    (
        "experiment/x.yaml",
        f"{GLOBAL}defaults: [/hydra/callbacks: evil]\n",
        ["experiment=x"],
        "hydra/callbacks",
    ),
    (
        "experiment/x.yaml",
        f"{GLOBAL}defaults: [/hydra/launcher/evil]\n",
        ["-m", "experiment=x"],
        "hydra/launcher/evil.yaml: hydra: only",
    ),
    ("encoder/x.yaml", "{_target_: evil_package.Encoder, dim: 3}", ["encoder=x"], "evil_package.Encoder is not in a"),
    ("logger/x.yaml", "{csv: {every: 1, _target_: evil_package.Evil}}", ["logger=x"], "logger.csv._target_: no such"),
]


@pytest.mark.parametrize("file, content, arguments, says", FILES, ids=lambda value: str(value)[:40])
def test_no_config_file_runs_anything(
    file: str, content: str, arguments: list[str], says: str, toy: Toy, mark: Path
) -> None:
    toy.write("encoder/evil.yaml", {"_target_": "evil_package.Evil"})
    toy.write("hydra/job_logging/evil.yaml", LOGGER)
    toy.write("hydra/callbacks/evil.yaml", NODE)
    toy.write("hydra/launcher/evil.yaml", "{_target_: evil_package.Evil, setup: [touch here]}")
    toy.write(file, content)
    refused(toy, mark, *arguments, says=says)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"set": {**STUDY["set"], "allowed": ["evil_package"]}}, "study/tiny.yaml: allowed: only"),  # type: ignore[dict-item]
        ({"set": {**STUDY["set"], "++allowed": ["evil_package"]}}, "study/tiny.yaml: allowed: only"),  # type: ignore[dict-item]
        ({"by_task": {"toy": {"allowed": ["evil_package"]}}}, "study/tiny.yaml: allowed: only"),
        ({"by_encoder": {"toy": {"+hydra.callbacks.x._target_": "evil_package.Evil"}}}, "tiny.yaml: hydra: only"),
        ({"grid": [{"encoder": "toy", "task": "toy", "allowed": [["evil_package"]]}]}, "tiny.yaml: allowed: only"),
        ({"set": {**STUDY["set"], "hydra/launcher": "submitit_local"}}, "study/tiny.yaml: hydra: only"),  # type: ignore[dict-item]
        ({"set": {**STUDY["set"], "+encoder@hydra.callbacks.x": "evil"}}, "study/tiny.yaml: hydra: only"),  # type: ignore[dict-item]
        ({"set": {**STUDY["set"], "encoder._target_": "evil_package.Evil"}}, "evil_package.Evil is not in a package"),  # type: ignore[dict-item]
    ],
)
def test_no_study_runs_anything(change: dict[str, Any], says: str, toy: Toy, mark: Path) -> None:
    toy.write("encoder/evil.yaml", {"_target_": "evil_package.Evil"})
    toy.write("study/tiny.yaml", {**STUDY, **change})
    refused(toy, mark, "-m", "study=tiny", says=says, base=[])


SECRET = "wombat-4711"
READS = [
    "${oc.env:SEQBENCH_TEST_SECRET}",
    "x${ oc.env :SEQBENCH_TEST_SECRET,none}",
    "${oc.decode:'${oc.env:SEQBENCH_TEST_SECRET}'}",
    "${oc.select:nothing,${oc.env:SEQBENCH_TEST_SECRET}}",
    "${oc.${task_label}:SEQBENCH_TEST_SECRET}",
    "${hydra:runtime.cwd}",
]


@pytest.mark.parametrize("text", READS)
@pytest.mark.parametrize("place", ["experiment/x.yaml", "encoder/x.yaml", "set", "by_task", "grid"])
def test_no_file_reads_the_environment(
    place: str, text: str, toy: Toy, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor anything else by a resolver: what is read would land in a record."""
    monkeypatch.setenv("SEQBENCH_TEST_SECRET", SECRET)
    changes: dict[str, Any] = {
        "set": {"set": {**STUDY["set"], "label": text}},  # type: ignore[dict-item]
        "by_task": {"by_task": {"toy": {"label": text}}},
        "grid": {"grid": [{"encoder": "toy", "task": "toy", "label": [text, "plain"]}]},
    }
    if place in changes:
        toy.write("study/tiny.yaml", {**STUDY, **changes[place]})
        refused(toy, mark, "-m", "study=tiny", says="study/tiny.yaml: ", base=[])
    else:
        content = {"label": text} if place.startswith("experiment") else {**TREE["encoder"], "dim": text}
        toy.write(place, (GLOBAL if place.startswith("experiment") else "") + yaml.safe_dump(content))
        refused(toy, mark, f"{place.partition('/')[0]}=x", says=f"{place}: ")
        said = toy(f"{place.partition('/')[0]}=x")
        assert "calls a resolver, which files may not" in said.line
        assert SECRET not in said.err + said.out
        assert len(said.err.splitlines()) == 2


def test_nor_does_a_study_that_puts_the_call_together(toy: Toy, mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQBENCH_TEST_SECRET", SECRET)
    parts = {"title": "$", "set": {**STUDY["set"], "label": "${study.title}{oc.env:SEQBENCH_TEST_SECRET}"}}  # type: ignore[dict-item]
    toy.write("study/tiny.yaml", {**STUDY, **parts})
    refused(toy, mark, "-m", "study=tiny", says="study/tiny.yaml: ${oc.env: calls a resolver", base=[])


def test_the_user_may_read_it_and_files_may_refer(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQBENCH_TEST_SECRET", SECRET)
    toy.write("experiment/x.yaml", f"{GLOBAL}task_label: ${{oc.select:nothing,${{encoder.dim}}}}d\n")
    assert toy("experiment=x", "label=${oc.env:SEQBENCH_TEST_SECRET}", "budget.steps=5").code == 0
    record = read(toy.records()[0])
    assert (record.encoder.label, record.task.label) == (SECRET, f"{TREE['encoder']['dim']}d")


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["+hydra.callbacks.x={_target_:evil_package.Evil}"], "hydra.callbacks: not allowed"),
        (["-m", "hydra.sweeper._target_=evil_package.Evil"], "hydra.sweeper._target_: evil_package.Evil is not"),
        (["-m", "hydra.launcher._target_=hydra_plugins.planted.Evil"], "hydra.launcher._target_: hydra_plugins.pl"),
        (["hydra.job_logging={version:1,formatters:{x:{class:evil_package.Evil}}}"], "hydra.job_logging"),
        (["hydra/job_logging=evil"], "evil_package.act is not allowed; it takes logging.StreamHandler"),
        (["hydra/job_logging=stream"], "ext://evil_package.act is not allowed"),
        (["hydra/job_logging=within"], "cfg://handlers.y is not allowed"),
        (["encoder._target_=evil_package.Encoder"], "evil_package.Encoder is not in a package"),
        (["--config-name", "evil"], "--config-name, --config-path: not here"),
        (["--config-path", "/tmp"], "--config-name, --config-path: not here"),
        (["--experimental-rerun", "config.pickle"], "--experimental-rerun: reads a pickle"),
    ],
)
def test_what_is_typed_is_checked(arguments: list[str], says: str, toy: Toy, mark: Path) -> None:
    toy.write("hydra/job_logging/evil.yaml", LOGGER)
    handler = "{class: logging.StreamHandler, stream: 'ext://evil_package.act'}"
    toy.write("hydra/job_logging/stream.yaml", f"{{version: 1, handlers: {{x: {handler}}}}}")
    within = "{x: {class: logging.StreamHandler, stream: 'cfg://handlers.y'}, y: {class: logging.NullHandler}}"
    toy.write("hydra/job_logging/within.yaml", f"{{version: 1, handlers: {within}}}")
    refused(toy, mark, *arguments, says=says)


@pytest.mark.parametrize("key", ["encoder", "task", "optimizer", "task.data", "task.metrics.0"])
@pytest.mark.parametrize(
    "target, says",
    [
        ("evil_package.act", "evil_package.act is a function; give the class of the"),
        ("evil_package.Evil", "evil_package.Evil is not a"),
        ("evil_package.Path", "Path is not in a package"),
    ],
)
def test_only_classes_of_the_right_kind(key: str, target: str, says: str, toy: Toy, mark: Path) -> None:
    """Even in a package that is allowed: a node's class must be an Encoder, a Task, an Optimizer, a DataSet."""
    tree = copy.deepcopy(TREE) | {"results": "results"}
    node: Any = tree
    *parents, last = key.split(".")
    for name in parents:
        node = node[name]
    node[int(last) if last.isdigit() else last] = {"_target_": target}
    sys.path.append(str(toy.work))
    with pytest.raises(ConfigError) as caught:
        check_config(tree, NAMES, [], allowed=[*TREE["allowed"], "evil_package"])
    assert f"{key}._target_: " in str(caught.value)
    assert says in str(caught.value)
    assert not mark.exists()


def test_a_record_does_not_say_what_is_allowed(toy: Toy, mark: Path) -> None:
    tree = copy.deepcopy(TREE) | {"results": "results", "allowed": [*TREE["allowed"], "evil_package"]}
    tree["encoder"] = {"_target_": "evil_package.Encoder", "dim": 3, "dropout": 0.0}
    sys.path.append(str(toy.work))
    for given, package in ((None, "tests.seqbench.toy"), (TREE["allowed"], "evil_package")):
        with pytest.raises(ConfigError, match=rf"{package}\S+ is not in a package that configs may use"):
            check_config(tree, NAMES, [], allowed=given)
    config = check_config(copy.deepcopy(TREE) | {"results": "r", "allowed": ["os"]}, NAMES, [], allowed=TREE["allowed"])
    assert config.allowed == TREE["allowed"]
    assert build_task(config)
    assert default_allowed() == ["encoders", "tasks", "torch.optim"]
    assert not mark.exists()


def test_what_the_user_allows_runs(toy: Toy, mark: Path) -> None:
    """The other way round, or the tests above could not fail."""
    allowed = f"{ALLOWED[:-1]},evil_package]"
    toy.write("encoder/x.yaml", "{_target_: evil_package.Encoder, dim: 3, dropout: 0.0}")
    assert toy("encoder=x", allowed, "budget.steps=5").code == 0
    assert mark.read_text() == "imported"


def test_launchers_of_hydras_own_stay(toy: Toy) -> None:
    loader = config_loader(str(toy.configs))
    for launcher in ("basic", "submitit_local", "submitit_slurm"):
        cfg = loader.load_configuration(CONFIG_NAME, [f"hydra/launcher={launcher}", *BASE], run_mode=None)  # type: ignore[arg-type]
        assert cfg.hydra.runtime.choices["hydra/launcher"] == launcher
    toy.write("hydra/launcher/mine.yaml", "{defaults: [submitit_slurm], partition: short}")
    cfg = loader.load_configuration(CONFIG_NAME, ["hydra/launcher=mine"], run_mode=None)  # type: ignore[arg-type]
    assert cfg.hydra.launcher.partition == "short"


@pytest.mark.parametrize("path", ["", ".", "{work}"])  # PYTHONPATH, where the working directory may well be named
def test_plugins_beside_config_files_are_not_imported(toy: Toy, mark: Path, path: str) -> None:
    """In a process of its own, since Hydra looks for plugins once in each."""
    script = str(Path(__file__).resolve().parents[2] / "scripts" / "train.py")
    command = [sys.executable, script, "-m", "encoder.dim=x", "--config-dir", str(toy.configs)]
    given = os.pathsep.join(part for part in (path.format(work=toy.work), os.environ.get("PYTHONPATH")) if part)
    done = subprocess.run(command, cwd=toy.work, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": given})
    assert done.returncode == 2
    assert "encoder.dim: 'x' is not a whole number" in done.stderr
    assert not mark.exists()
