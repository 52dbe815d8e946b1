"""A record of several devices: verified on as many to the last bit, on one within the tolerance, and told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from seqbench.run import run
from seqbench.verify import rebuild
from tests.seqbench.toy_config import toy_config
from tests.seqbench.verifying import outcome, records

pytestmark = pytest.mark.slow  # ranks are processes


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("devices") / "results"
    changes = {"budget.steps": 8, "encoder.dropout": 0.0, "trainer.devices": 2, "trainer.threads": 1}
    assert run(toy_config(results, changes)).record.environment.devices == 2
    return results


def test_on_as_many_the_same_bits(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rebuild, "devices_here", lambda kind: 2)
    found = outcome(capsys, f"run={records(made)[0]}", "tolerance=0")
    assert found["verdict"] == "identical"
    assert not any(line.startswith(("devices:", "machine class:")) for line in found["differences"])


def test_on_one_within_the_tolerance(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rebuild, "devices_here", lambda kind: 1)
    path = records(Path(shutil.copytree(made, tmp_path / "results")))[0]
    content = json.loads(path.read_text())
    found = outcome(capsys, f"run={path}")
    assert found["verdict"] in ("identical", "within_tolerance")  # sums of two parts are rounded otherwise
    assert "devices: 2 shared the training, 1 here; one taken" in found["differences"]
    assert "devices: 2 -> 1" in found["differences"]
    content.pop("sha256")
    content["scores"]["test"]["hits"]["value"] += 0.01
    content["predictions"] = None
    path.write_text(json.dumps(content))
    moved = outcome(capsys, f"run={path}")
    assert moved["verdict"] == "within_tolerance"
    line = "environment: machine_class, devices of a record without a seal is why the tolerance 0.02 was taken"
    assert any(text.startswith(line) for text in moved["differences"])
