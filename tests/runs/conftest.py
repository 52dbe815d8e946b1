"""The toy command line as a fixture."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.seqbench.toy_cli import Toy


@pytest.fixture
def toy(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Toy:
    """The command line over toy configs, in an empty working directory."""
    made = Toy(tmp_path, capsys)
    monkeypatch.chdir(made.work)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # main() sets it; this puts it back
    return made
