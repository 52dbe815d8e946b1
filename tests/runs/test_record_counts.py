"""What a record says of the feeding of a run, against a count of what the encoder got; and the notice of its code."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from encoders.base import Sequences, States
from seqbench.board.collect import read
from seqbench.board.summary import Method
from seqbench.board.table import build
from seqbench.record import Record
from seqbench.records.store import Store
from seqbench.run import run
from tests.seqbench.board_records import write
from tests.seqbench.toy import ToyBatch, ToyEncoder, ToyTask
from tests.seqbench.toy_config import toy_config

SEEN: list[tuple[int, int]] = []  # real and all positions of each batch that is trained on
PAUSE = 0.04  # seconds: much, beside what else a step takes on a busy machine


class WatchedEncoder(ToyEncoder):
    """Writes down what it is trained on, and takes its time."""

    def forward(self, source: Sequences) -> States:
        if self.training:
            SEEN.append((int(source.mask.sum()), source.mask.shape[0] * source.mask.shape[1]))
            time.sleep(PAUSE)
        return super().forward(source)


class SlowTask(ToyTask):
    """Takes three times as long to make a batch."""

    def collate(self, split: str, rows: NDArray[np.int64]) -> ToyBatch:
        if split == "train":
            time.sleep(3 * PAUSE)
        return super().collate(split, rows)


def recorded(folder: Path, **changes: Any) -> Record:
    SEEN.clear()
    config = toy_config(folder)
    encoder = {**config.encoder, "_target_": f"{__name__}.WatchedEncoder"}
    changes = {"encoder": encoder, "budget.steps": 8, "allowed": [*config.allowed, __name__], **changes}
    return run(toy_config(folder, changes)).record


def test_positions_are_those_that_the_encoder_was_trained_on(tmp_path: Path) -> None:
    record = recorded(tmp_path, **{"budget.batch_size": 32})
    fed = SEEN[: 8 * 2]  # two parts a step; what follows is measured, not trained
    real, every = (sum(column) for column in zip(*fed, strict=True))
    assert 1 - real / every > 0.05
    assert record.cost is not None
    assert record.cost.train_tokens == real
    assert record.cost.padding_share == pytest.approx(1 - real / every)
    assert record.cost.train_seconds is not None
    assert record.cost.train_tokens_per_second == pytest.approx(real / record.cost.train_seconds)
    assert record.curves[-1].tokens == real


def test_waiting_is_the_share_of_training_that_makes_batches(tmp_path: Path) -> None:
    quick = recorded(tmp_path / "quick").cost
    task = {**toy_config(tmp_path).task, "_target_": f"{__name__}.SlowTask"}
    slow = recorded(tmp_path / "slow", task=task).cost
    assert quick is not None
    assert slow is not None
    assert quick.data_wait_share is not None
    assert slow.data_wait_share is not None
    assert 0 < quick.data_wait_share < 0.4
    assert 0.5 < slow.data_wait_share < 0.79  # 0.75 and what the rest of a step takes


def test_a_board_tells_of_runs_by_different_code(tmp_path: Path) -> None:
    def notices() -> list[str]:
        entries, problems = read(tmp_path)
        how = Method(confidence=0.95, draws=100, seed=0)
        board = build(title="x", entries=entries, expected=None, split="test", method=how, notices=problems)
        return [notice for notice in board.notices if "versions of the code" in notice]

    write(tmp_path, seed=0)
    other = write(tmp_path, seed=1)
    assert notices() == []
    Store(tmp_path).write(other.model_copy(update={"code": other.code.model_copy(update={"source_sha256": "6" * 64})}))
    assert len(notices()) == 1
    assert "55555555" in notices()[0]
    assert "66666666" in notices()[0]
    assert "2 versions" in notices()[0]
