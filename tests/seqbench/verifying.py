"""What tests of verify share: records to damage, the command's words, its verdict."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqbench.verify.command import main

ALLOWED = "allowed=[encoders,tasks,torch.optim,tests.seqbench.toy]"


def records(results: Path) -> list[Path]:
    return sorted(results.glob("*/record.json"))


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """As a forger does it: with the record's seal taken off, as records of before had none."""
    content = json.loads(path.read_text())
    change(content)
    content.pop("sha256", None)
    path.write_text(json.dumps(content))


def unheard(err: str) -> str:
    """Without the lines that tell how far a run is."""
    return "".join(line for line in err.splitlines() if ": step " not in line)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The verdict on one run, as JSON says it; the exit code must fit."""
    code, out, _ = said(capsys, *arguments, ALLOWED, "--json")
    found = json.loads(out)
    assert code == (0 if found["passed"] else 1)
    assert len(found["runs"]) == 1
    one: dict[str, Any] = found["runs"][0]
    assert found["passed"] == (one["verdict"] in ("identical", "within_tolerance"))
    return one
