"""Golden states: parameters and inputs by a formula, states to five decimals, so that no change of numbers is silent.

The values in encoders.json are of this code (torch 2.13, CPU, float32); equality with papers and other code is tested
where the mechanism is (tests/encoders). Where a change is meant, print new values and replace the file's, saying in
the commit which moved and why:

    python -c "from tests.golden.test_encoders import values; print(values('lstm'))"
"""
# B batch, L positions, T target positions, D width

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from encoders.base import Decoder, InputSpec, Sequences
from seqbench.build import build
from seqbench.composition.nodes import compose_node

GOLDEN: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("encoders.json").read_text())
SPECS = {
    "ids": InputSpec(max_length=12, target_length=4, vocab_size=17),
    "channels": InputSpec(max_length=12, target_length=4, channels=3),
}
LENGTHS, TARGETS = [7, 4], [2, 2]


def wave(*shape: int, start: int = 0) -> Tensor:
    """sin(i^2 / 100) of a running index i; of i alone it would make matrices of rank 2."""
    count = torch.Size(shape).numel()
    return torch.sin(torch.arange(start, start + count, dtype=torch.float64).square() / 100).reshape(shape).float()


def rows(kind: str, lengths: list[int], start: int) -> Sequences:
    """Right-padded rows: ids i^2 mod 17, or waves of 3 channels."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    index = torch.arange(start, start + mask.numel()).reshape(mask.shape)
    return Sequences(values=index.square() % 17 if kind == "ids" else wave(*mask.shape, 3, start=start), mask=mask)


def values(name: str) -> dict[str, Any]:
    """What encoders.json holds for a config: by kind of input, some states and the root mean square of all.

    The states are the first three numbers at the first and the last position of both rows, and for a Decoder at the
    last position of a target of two.
    """
    node = compose_node("encoder", name)
    made: dict[str, Any] = {}
    for kind, spec in SPECS.items():
        try:
            encoder = build(node, "encoder", ["encoders"], spec=spec)
        except ValueError:
            made[kind] = "refused"
            continue
        encoder.eval()
        start = 0
        with torch.no_grad():
            for parameter in encoder.parameters():
                scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.5
                parameter.copy_(scale * wave(*parameter.shape, start=start))
                start += parameter.numel()
            states = encoder(rows(kind, LENGTHS, start=3))
            corners = [states.values[row, t, :3] for row, length in enumerate(LENGTHS) for t in (0, length - 1)]
            made[kind] = {
                "states": [_rounded(corner) for corner in corners],
                "root_mean_square": _rounded(states.values[states.mask].square().mean().sqrt()),
            }
            if isinstance(encoder, Decoder):
                before = encoder.prefill(rows(kind, LENGTHS, start=3))
                after = encoder.decode(rows(kind, TARGETS, start=40), before)
                made[kind]["decoded"] = [_rounded(after.values[row, -1, :3]) for row in range(2)]
    return made


def _rounded(tensor: Tensor) -> Any:
    return torch.round(tensor.double(), decimals=5).tolist()


def _flat(node: Any, path: str = "") -> dict[str, Any]:
    if isinstance(node, dict | list):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        return {k: v for key, value in items for k, v in _flat(value, f"{path}/{key}").items()}
    return {path: node}


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_states_are_the_golden_ones(name: str) -> None:
    assert _flat(values(name)) == pytest.approx(_flat(GOLDEN[name]), abs=1.5e-5)


def test_golden_states_say_something() -> None:
    """No state is so small that five decimals could not tell a change."""
    for name, kinds in GOLDEN.items():
        for kind, golden in kinds.items():
            assert golden == "refused" or golden["root_mean_square"] > 0.02, (name, kind)
