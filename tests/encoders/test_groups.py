"""Evaluation on a CPU takes the rows of a large batch through a stack group by group: the same states."""
# B batch, L positions

from __future__ import annotations

from typing import Any

import pytest
import torch

from encoders.base import Encoder, InputSpec, Sequences
from encoders.blocks import stack
from seqbench.build import build
from seqbench.composition.nodes import compose_node

ROWS, LENGTH, GROUP = 7, 6, 2  # rows a group: the last has one
STACKS = {"bert": 1, "gpt2": 1, "t5": 2, "bart": 2}


def made(name: str) -> Encoder:
    """A small one whose biases are no zeros."""
    torch.manual_seed(0)
    spec = InputSpec(max_length=LENGTH, vocab_size=20, target_length=4)
    changes = {"dim": 16, "heads": 2, "hidden": 32, "depth": 2}
    encoder = build(compose_node("encoder", name, changes=changes), "encoder", ["encoders"], spec=spec)
    assert isinstance(encoder, Encoder)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return encoder.eval()


def source() -> Sequences:
    """Rows of 6, 6, 5, 4, 3, 2 and 1 real positions."""
    lengths_B = torch.tensor([6, 6, 5, 4, 3, 2, 1])
    return Sequences(
        values=torch.randint(20, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1)),
        mask=torch.arange(LENGTH) < lengths_B[:, None],
    )


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each passage through layers; groups of GROUP rows from here on."""
    found: list[int] = []
    layers = stack.Stack._layers

    def counted(self: stack.Stack, x_BTD: torch.Tensor, *rest: Any) -> Any:
        found.append(len(x_BTD))
        return layers(self, x_BTD, *rest)

    monkeypatch.setattr(stack.Stack, "_layers", counted)
    monkeypatch.setattr(stack, "GROUP_POSITIONS", GROUP * LENGTH)
    monkeypatch.setattr(stack, "GROUP_NUMBERS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    return found


@pytest.mark.parametrize("name", STACKS)
def test_states_of_groups_are_those_of_all_rows_at_once(name: str, sizes: list[int]) -> None:
    """Padding, positions, cross-attention and order are each row's own; with gradients nothing is cut."""
    encoder = made(name)
    whole = encoder(source()).values
    assert sizes == [ROWS] * STACKS[name]
    sizes.clear()
    with torch.no_grad():
        grouped = encoder(source()).values
    assert sizes == [2, 2, 2, 1] * STACKS[name]
    real_BL = source().mask
    torch.testing.assert_close(grouped[real_BL], whole[real_BL], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(whole[0], whole[1])


def test_training_is_never_cut(sizes: list[int]) -> None:
    """Dropout draws for a batch as it is."""
    encoder = made("bert").train()
    with torch.no_grad():
        encoder(source())
    assert sizes == [ROWS]
