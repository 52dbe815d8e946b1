"""The text benchmark's two sides are the same model on the same ids; each counts what it trained on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqbench.benchmark import text
from seqbench.benchmark.base import Settings

SETTINGS = Settings(repeats=1, quick=True, threads=1, seed=0, clock="cpu")


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", text.SETS)
def test_both_sides_have_the_same_loss(
    name: str, tmp_path: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))
    ours = text._prepared(name, tmp_path)
    peer = text.peer_of(name, tmp_path)
    assert len(peer.features) == len(ours.task.lengths("train"))
    rows = np.arange(5, 12)
    model = peer.model().eval()
    batch = peer.collator(model)([dict(peer.features[row]) for row in rows])
    with torch.no_grad():
        theirs: Any = model(**batch)
        for packed in (False, True):
            encoder, task = ours.pair(ours.config(steps=1, seed=0, packed=packed))
            encoder.eval()
            task.eval()
            task.search = lambda decoder, *rest, **more: []  # type: ignore[assignment]  # nothing is generated here
            output = task(encoder, task.collate("train", rows))
            assert float(output.loss) == pytest.approx(float(theirs["loss"]), rel=1e-5)
    assert model.tokens == task.lengths("train")[rows].sum()
    trained = {side: train(0) for side, train in text.sides_of(name, tmp_path, SETTINGS).items()}
    assert all(tokens > 0 and seconds > 0 for tokens, seconds in trained.values())
    assert trained["ours"][0] == trained["ours packed"][0]


@pytest.mark.slow
def test_a_peak_is_the_childs_own_whoever_starts_it() -> None:
    """Though this process, with torch and 300 MiB more, has a far higher one."""
    here = np.ones(300 * 2**20, dtype=np.uint8)
    code = """
import numpy as np
from seqbench.benchmark.text_child import peak_mib
before = peak_mib()
held = np.ones(64 * 2**20, dtype=np.uint8)
del held
print(before, peak_mib())
"""
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root).stdout
    before, after = map(float, out.split())
    assert before < here.nbytes / 2**20
    assert 50 < after - before < 80
