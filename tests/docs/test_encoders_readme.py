"""The example of encoders/README.md is followed to the letter: its files are written, and it meets the contract."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from seqbench.composition.nodes import compose_node
from seqbench.composition.schema import check
from seqbench.errors import ConfigError
from tests.contract.cases import Case, Kind
from tests.contract.decoder_checks import checks_of
from tests.contract.encoder_checks import keys_are_the_arguments
from tests.contract.test_own import parameters

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "encoders" / "README.md").read_text(encoding="utf-8")
ALLOWED = ("my_package",)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The config of the example, whose package lies in a folder of its own on Python's path."""
    folder = tmp_path / "my_package"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "window.py").write_text(blocks("python")[0], encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    configs = tmp_path / "my_configs" / "encoder"
    configs.mkdir(parents=True)
    (configs / "window.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    yield compose_node("encoder", "window", config_dir=str(configs.parent))
    for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
        del sys.modules[name]


@pytest.mark.parametrize("kind", ["ids", "channels"])
def test_the_example_meets_the_contract(node: dict[str, Any], kind: Kind) -> None:
    case = Case(node, kind, ALLOWED)
    for one in checks_of(case):
        one(case)
    keys_are_the_arguments(node, ALLOWED)


def test_the_example_is_checked_without_being_imported(node: dict[str, Any]) -> None:
    assert check(node, "encoder", ALLOWED, kind="encoders.base.Encoder", runtime=["spec"]) == node
    assert "my_package.window" not in sys.modules
    with pytest.raises(ConfigError, match=r"encoder\.widht.*width"):
        check({**node, "widht": 3}, "encoder", ALLOWED, kind="encoders.base.Encoder", runtime=["spec"])
    with pytest.raises(ConfigError, match=r"allowed=\[encoders,my_package\]"):
        check(node, "encoder", ["encoders"], kind="encoders.base.Encoder", runtime=["spec"])


def test_the_checks_are_called_as_the_page_says(node: dict[str, Any]) -> None:
    scope: dict[str, Any] = {}
    exec(blocks("python")[2], scope)  # the page's own lines; a failing check raises
    assert scope["case"].encoder.dim == 16


def test_the_check_of_an_own_encoder_is_run_as_the_page_says(
    node: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [line] = [line for block in blocks("sh") for line in block.splitlines() if "SEQBENCH_ENCODER" in line]
    variable, *command = shlex.split(line)
    assert command[:3] == ["python", "-m", "pytest"]
    assert (ROOT / command[3]).is_file()
    monkeypatch.chdir(tmp_path)
    found = parameters(variable.partition("=")[2])
    assert {f"{kind}-padding_changes_nothing" for kind in ("ids", "channels")} < {one.id for one in found}
    assert [one.values[0].node for one in found] == [node] * len(found)
    for one in found:
        case, holds = one.values
        holds(case)


def test_python_is_written_as_the_page_says() -> None:
    scope: dict[str, Any] = {}
    exec(blocks("python")[1], scope)
    assert scope["states"].values.shape == (2, 4, 64)
    assert torch.equal(scope["states"].mask, scope["mask"])
    assert {m.eps for m in scope["encoder"].modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-6}
    assert compose_node("encoder", "bert")["_target_"] == "encoders.encoder_only.EncoderOnly"


def test_the_page_names_every_config_and_only_those() -> None:
    table = TEXT.split("| family | configs |")[1].split("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", table))
    assert named == {file.stem for file in (ROOT / "configs" / "encoder").glob("*.yaml")}


def test_paths_on_the_page_exist() -> None:
    for path in re.findall(r"`((?:tests|configs|encoders|scripts)/[\w/.]*)`", TEXT):
        assert (ROOT / path).exists(), path
