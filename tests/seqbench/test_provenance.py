"""Where a run comes from: checksums of what matters, and of nothing else."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqbench.records import provenance
from seqbench.records.predictions import array_sha256, to_json
from tasks.data.base import Example

ROOT = Path(__file__).resolve().parents[2]


def test_packages_are_the_declared_ones() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = [line.split(">")[0].split("=")[0].split("!")[0].split("<")[0].split("[")[0] for line in declared]
    assert list(provenance.PACKAGES) == names
    assert "not installed" not in provenance.packages().values()


def test_source_checksum_follows_names_and_bytes(tmp_path: Path) -> None:
    for package in provenance.SOURCES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "a.py").write_text("x = 1\n")
    one = provenance.source_sha256(tmp_path)
    (tmp_path / "tasks" / "notes.txt").write_text("not code")
    assert provenance.source_sha256(tmp_path) == one
    (tmp_path / "tasks" / "a.py").write_text("x = 2\n")
    two = provenance.source_sha256(tmp_path)
    (tmp_path / "tasks" / "a.py").write_text("x = 1\n")
    (tmp_path / "tasks" / "a.py").rename(tmp_path / "tasks" / "b.py")
    assert len({one, two, provenance.source_sha256(tmp_path)}) == 3


def test_code_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    provenance.code.cache_clear()
    code = provenance.code()
    provenance.code.cache_clear()
    assert (code.commit, code.dirty) == (None, None)


def examples(*sources: Any) -> list[Example]:
    return [Example(source=source, target="t") for source in sources]


def test_examples_checksum_is_of_the_content() -> None:
    base = examples("a", ["b", "c"], np.arange(3), (np.float32(0.5), None))
    assert provenance.examples_sha256(base) == provenance.examples_sha256(list(base))
    strided = examples("a", ["b", "c"], np.arange(6)[::2] // 2, (np.float32(0.5), None))
    assert provenance.examples_sha256(strided) == provenance.examples_sha256(base)
    others = [
        examples("a", ["b", "c"], np.arange(3, dtype=np.int32), (np.float32(0.5), None)),
        examples("a", ["bc"], np.arange(3), (np.float32(0.5), None)),
        examples(["b", "c"], "a", np.arange(3), (np.float32(0.5), None)),
        [Example(source=e.source, target="u") for e in base],
        [Example(source=e.source, target="t", streams={"s": [1]}) for e in base],
    ]
    assert len({provenance.examples_sha256(e) for e in [base, *others]}) == 6
    with pytest.raises(TypeError, match="an example holds a set"):
        provenance.examples_sha256(examples({1}))


def test_array_checksum_knows_type_and_shape() -> None:
    array = np.arange(6.0)
    assert array_sha256(array) == array_sha256(array.astype(">f8"))
    assert array_sha256(array) != array_sha256(array.reshape(2, 3))
    assert array_sha256(array) != array_sha256(array.astype(np.float32))


def test_predictions_as_json() -> None:
    assert to_json("\N{LATIN SMALL LETTER E WITH ACUTE}") == '"\N{LATIN SMALL LETTER E WITH ACUTE}"'
    assert to_json(["B-x", "O"]) == '["B-x","O"]'
    assert to_json(np.float32(0.5)) == "0.5"
    assert to_json(np.array([[1, 2], [3, 4]])) == "[[1,2],[3,4]]"
    assert to_json([1.0, float("nan"), float("inf")]) == "[1.0,null,null]"
    large = np.zeros((300, 2))
    assert to_json(large) == f'{{"sha256":"{array_sha256(large)}","shape":[300,2]}}'
    with pytest.raises(TypeError, match="of type set"):
        to_json({1})


def test_machine_class_names_cpu_and_threads() -> None:
    assert provenance.machine_class("cpu", 1, 1).endswith(", 1 thread")
    assert provenance.machine_class("cpu", 1, 2) == f"{provenance.cpu_model()}, 2 threads"
    assert provenance.cpu_model()
