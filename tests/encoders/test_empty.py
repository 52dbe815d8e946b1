"""Nothing in, nothing out: batches of no row and targets of no position; a source of none is refused."""
# B batch, L positions, T target positions

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from encoders.base import Decoder, Encoder, InputSpec, Sequences
from seqbench.build import build
from seqbench.composition.compose import CONFIGS
from seqbench.composition.nodes import compose_node

NAMES = sorted(
    path.stem
    for path in Path(CONFIGS, "encoder").glob("*.yaml")
    if path.stem not in ("own", "pretrained", "majority", "random", "repeat_last", "source_mean", "biases")
)
SPECS = {
    "ids": InputSpec(max_length=12, target_length=4, vocab_size=17),
    "channels": InputSpec(max_length=12, target_length=4, channels=3),
}


def made(name: str, kind: str) -> Encoder:
    try:
        encoder = build(compose_node("encoder", name), "encoder", ["encoders"], spec=SPECS[kind])
    except ValueError as error:
        pytest.skip(f"refused: {error}")
    assert isinstance(encoder, Encoder)
    return encoder.eval()


def source(kind: str, rows: int, length: int) -> Sequences:
    shape = (rows, length) if kind == "ids" else (rows, length, 3)
    values = torch.ones(shape, dtype=torch.int64 if kind == "ids" else torch.float32)
    return Sequences(values=values, mask=torch.ones(rows, length, dtype=torch.bool))


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_no_rows_and_no_positions(name: str, kind: str) -> None:
    encoder = made(name, kind)
    states = encoder(source(kind, 0, 5))
    assert states.values.shape == (0, encoder.num_states(5), encoder.dim)
    assert states.mask.shape == states.values.shape[:2]
    for rows in (0, 2):
        with pytest.raises(ValueError, match="a source of no positions"):
            encoder(source(kind, rows, 0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("rows", "length", "target"), [(0, 5, 2), (2, 5, 0), (0, 5, 0)])
@torch.no_grad()
def test_targets_of_no_rows_and_no_positions(name: str, rows: int, length: int, target: int) -> None:
    encoder = made(name, "ids")
    if not isinstance(encoder, Decoder):
        pytest.skip("decodes nothing")
    before = encoder.prefill(source("ids", rows, length))
    states = encoder.decode(source("ids", rows, target), before)
    assert states.values.shape == (rows, target, encoder.dim)
    after = encoder.decode(source("ids", rows, 1), states)
    assert after.values.shape == (rows, 1, encoder.dim)
    if rows and not target:  # it was as if it had not been
        same = encoder.decode(source("ids", rows, 1), before)
        torch.testing.assert_close(after.values, same.values)
