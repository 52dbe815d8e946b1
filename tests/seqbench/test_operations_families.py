"""Training operations of the three families: torch's count on the real step against the formula, within 2 %."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import version

from encoders.base import Decoder
from seqbench.build import build_encoder, build_task
from seqbench.composition.compose import own_loader
from seqbench.composition.compositions import Compositions
from seqbench.config import RunConfig, check_config
from seqbench.costs.operations import counting, training_operations
from tasks.base import Task

ROWS = 6


@pytest.fixture(scope="module")
def made() -> Compositions:
    version.setbase("1.3")
    return Compositions(own_loader())


def config_of(made: Compositions, *overrides: str) -> RunConfig:
    tree, names = made.make(list(overrides))
    return check_config(tree, names, list(overrides))


def counted(config: RunConfig, task: Task, rows: Any) -> tuple[int, Any]:
    """Operations of forward and backward with the head, and the batch."""
    torch.manual_seed(0)
    encoder = build_encoder(config, task.spec)
    task.attach(encoder)
    encoder.train()
    task.train()
    batch = task.collate("train", rows)
    with counting() as counter:
        task(encoder, batch).loss.backward()
    return int(counter.get_total_flops()), batch


@pytest.mark.parametrize("encoder", ["encoder_only", "decoder_only", "encoder_decoder"])
@pytest.mark.parametrize("size", [[], ["encoder.dim=64", "encoder.hidden=200", "encoder.depth=3"]])
def test_classification_by_formula(made: Compositions, encoder: str, size: list[str], tmp_path: Path) -> None:
    config = config_of(made, f"encoder={encoder}", "task=digits", *size)
    task = build_task(config)
    task.setup()
    found, batch = counted(config, task, np.arange(ROWS))
    node = config.encoder
    length = batch.source.values.shape[1]
    expected = training_operations(
        dim=node["dim"],
        hidden=node["hidden"],
        rows=ROWS,
        source=length,
        target=length if encoder == "encoder_decoder" else 0,
        source_layers=node["depth"],
        target_layers=node["depth"] if encoder == "encoder_decoder" else 0,
        cross=encoder == "encoder_decoder",
        head=(ROWS, 10),
    )
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["decoder_only", "encoder_decoder"])
def test_sequence_to_sequence_by_formula(made: Compositions, encoder: str) -> None:
    config = config_of(made, f"encoder={encoder}", "task=scan")
    task = build_task(config)
    task.setup()
    found, batch = counted(config, task, np.arange(ROWS))
    model = build_encoder(config, task.spec)
    assert isinstance(model, Decoder)
    node, both = config.encoder, encoder == "encoder_decoder"
    expected = training_operations(
        dim=node["dim"],
        hidden=node["hidden"],
        rows=ROWS,
        source=batch.source.values.shape[1],
        target=batch.target.values.shape[1],
        source_layers=node["depth"],
        target_layers=node["depth"],
        cross=both,
        head=(int(batch.target.mask.sum()), task.tokenizer.vocab_size),
    )
    assert found == pytest.approx(expected, rel=0.02)
