"""What needs CUDA: a list, by one marker; skipped where there is none, run by `pytest -m cuda` where there is."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import NO_CUDA, ROOT

NEEDS = {
    "tests/encoders/test_packed.py": [
        "test_families_agree_on_cuda_in_float32",
        "test_the_variable_length_kernel_agrees_with_the_padded_one",
    ],
    "tests/runs/test_ahead.py": [
        "test_a_run_on_cuda_in_parts_is_the_same",
        "test_batches_arrive_from_a_stream_of_their_own",
    ],
    "tests/runs/test_gpu.py": ["test_a_run_on_cuda_is_the_same_twice"],
}


def marked(path: Path) -> list[str]:
    """Names of the tests of a file that have the marker."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return sorted(f.name for f in functions if any(ast.unparse(d) == "pytest.mark.cuda" for d in f.decorator_list))


def test_the_list_is_whole() -> None:
    found = {path.relative_to(ROOT).as_posix(): marked(path) for path in sorted((ROOT / "tests").rglob("test_*.py"))}
    assert {name: tests for name, tests in found.items() if tests} == NEEDS


def test_nothing_is_skipped_for_want_of_cuda_by_other_means() -> None:
    other = re.compile(r"skip\w*\(.*not torch\.cuda\.is_available")
    for path in (ROOT / "tests").rglob("*.py"):
        if path != Path(__file__):
            assert not other.search(path.read_text()), f"{path}: use @pytest.mark.cuda"


def test_the_page_says_the_command() -> None:
    assert "pytest -m cuda" in (ROOT / "docs" / "gpu.md").read_text()
    assert "docs/gpu.md" in (ROOT / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_they_are_skipped_with_the_reason_where_there_is_none() -> None:
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-rs", "tests/runs/test_ahead.py"]
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert re.search(rf"SKIPPED \[2\] .*{re.escape(NO_CUDA)}", done.stdout), done.stdout
