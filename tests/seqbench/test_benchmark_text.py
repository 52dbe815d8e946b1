"""The text benchmark's two sides are the same model on the same ids; each counts what it trained on."""

from __future__ import annotations

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
