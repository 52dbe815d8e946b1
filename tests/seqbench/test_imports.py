"""Who may import whom: docs/architecture.md, held by reading every file's imports."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("encoders", "tasks", "seqbench", "scripts", "hydra_plugins", "tests")
# The contracts, with what belongs to them: the board and the runner know tasks and encoders by these alone.
CONTRACTS = (
    "encoders.base",
    "encoders.trivial",
    "tasks.base",
    "tasks.data.base",
    "tasks.data.pinned",
    "tasks.metrics.base",
    "tasks.loading",
)
LIGHT = {"hydra", "omegaconf", "pydantic", "pydantic_core", "typing_extensions", "yaml"}


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """Every imported module (for `from a import b`, a.b too if that is a module), and whether at the top level."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    top = {id(node) for node in _at_top(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole if _is_module(whole) else str(node.module)), id(node) in top


def _at_top(tree: ast.Module) -> Iterator[ast.AST]:
    """Statements that run on import, `if TYPE_CHECKING` left out."""
    for node in tree.body:
        if isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                yield from node.body
        elif isinstance(node, ast.Try):
            yield from node.body
        else:
            yield node


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


def under(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def is_standard(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names


def rule_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("file", files("encoders"), ids=rule_of)
def test_encoders_import_torch_and_each_other(file: Path) -> None:
    for name, _ in imports(file):
        allowed = is_standard(name) or under(name, "torch") or under(name, "encoders") or name == "pydantic"
        if rule_of(file) == "encoders/pretrained.py":
            allowed = allowed or under(name, "safetensors") or under(name, "huggingface_hub")
        assert allowed, f"{rule_of(file)} imports {name}"
        if under(name, "safetensors") or under(name, "huggingface_hub"):
            assert (name, True) not in imports(file), f"{rule_of(file)} imports {name} before it is needed"


@pytest.mark.parametrize("file", files("tasks"), ids=rule_of)
def test_tasks_know_encoders_by_their_contract(file: Path) -> None:
    for name, _ in imports(file):
        assert not any(under(name, package) for package in OURS[2:]), f"{rule_of(file)} imports {name}"
        assert not under(name, "encoders") or name == "encoders.base", f"{rule_of(file)} imports {name}"


@pytest.mark.parametrize("file", [*files("seqbench"), *files("hydra_plugins")], ids=rule_of)
def test_the_harness_knows_both_by_their_contracts(file: Path) -> None:
    for name, _ in imports(file):
        if under(name, "encoders") or under(name, "tasks"):
            assert name in CONTRACTS, f"{rule_of(file)} imports {name}"
        assert not under(name, "scripts"), f"{rule_of(file)} imports {name}"
        assert not under(name, "tests"), f"{rule_of(file)} imports {name}"


@pytest.mark.parametrize("file", files("scripts"), ids=rule_of)
def test_scripts_know_the_harness(file: Path) -> None:
    for name, _ in imports(file):
        assert is_standard(name) or under(name, "seqbench"), f"{rule_of(file)} imports {name}"
    assert len(file.read_text().splitlines()) < 30


def test_no_package_imports_anything_by_being_imported() -> None:
    """Reading `encoders.recurrent` statically, or importing `tasks.data.base`, must not cost torch."""
    for package in ("encoders", "tasks", "seqbench"):
        for file in (ROOT / package).rglob("__init__.py"):
            heavy = [name for name, at_top in imports(file) if at_top and not is_standard(name)]
            assert not heavy, f"{rule_of(file)} imports {heavy}"


def test_the_command_line_is_light() -> None:
    """What `cli` imports before a config is checked, through all of ours: no torch, no numpy."""
    waiting, seen = ["seqbench.cli", "hydra_plugins.seqbench_study"], set()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        for name, at_top in imports(ROOT.joinpath(*module.split(".")).with_suffix(".py")):
            if not at_top or is_standard(name):
                continue
            if name.partition(".")[0] in OURS:
                waiting.append(name)
            else:
                assert name.partition(".")[0] in LIGHT, f"{module} imports {name}"
    assert "seqbench.composition.schema" in seen
    assert "seqbench.build" not in seen


def test_the_reader_of_imports_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("import a.b\nfrom tasks import base\nfrom tasks.base import Task\ndef f():\n    import torch\n")
    assert list(imports(file)) == [("a.b", True), ("tasks.base", True), ("tasks.base", True), ("torch", False)]


def test_the_map_names_every_file_of_seqbench() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = {word for words in re.findall(r"`([\w/]+)`", page) for word in words.split("/")}
    for package in (
        "",
        "board",
        "claims",
        "cluster",
        "composition",
        "costs",
        "matching",
        "ranks",
        "records",
        "studies",
        "training",
    ):
        missing = {path.stem for path in (ROOT / "seqbench" / package).glob("*.py")} - named - {"__init__"}
        assert not missing, f"docs/architecture.md lacks {package}/{sorted(missing)}"
    whole = {path.name for path in (ROOT / "seqbench").iterdir() if (path / "__init__.py").is_file()}
    assert whole <= named, f"docs/architecture.md lacks {sorted(whole - named)}"
