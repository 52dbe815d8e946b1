"""Imports and configs without the garbage collector."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
from pathlib import Path

import pytest

from seqbench.composition.compose import own_loader
from seqbench.garbage import LARGE, uncollected


def test_the_collector_is_as_before() -> None:
    assert gc.isenabled()
    with contextlib.suppress(KeyError), uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


def test_only_many_modules_freeze_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: seen.append(True))
    for number in (LARGE - 1, LARGE):
        with uncollected():
            for i in range(number):
                monkeypatch.setitem(sys.modules, f"no_module_{number}_{i}", sys)
        assert len(seen) == int(number == LARGE)


def test_what_a_command_does_is_done_with_the_collector_on() -> None:
    code = (
        "import gc, sys\n"
        "from seqbench.cli import guarded\n"
        "def job(cfg):\n assert gc.isenabled(); return 7\n"
        "sys.exit(guarded('train', job, []))"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 7


def test_a_typed_search_path_is_that_of_its_composition_alone(tmp_path: Path) -> None:
    """The cache shares the loader's repository, which Hydra would copy, and must leave it as it is."""
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "mine.yaml").write_text("x: 1\n")
    loader = own_loader()
    before = loader.repository.get_sources()
    path = [f"hydra.searchpath=[file://{tmp_path}]"]
    assert "mine" in loader.get_group_options("encoder", overrides=path)
    assert loader.repository.get_sources() is before
    assert "mine" not in loader.get_group_options("encoder")
