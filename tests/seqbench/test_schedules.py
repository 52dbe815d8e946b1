"""Learning rates by formula, parameter groups by kind."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from encoders.base import InputSpec
from seqbench.library import load_encoder
from seqbench.training.optimizers import parameter_groups
from seqbench.training.schedules import factor


def test_cosine_by_formula() -> None:
    values = [factor(i, steps=11, kind="cosine", warmup=0.0, floor=0.1) for i in range(11)]
    assert values == pytest.approx([0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * i / 10)) for i in range(11)])


def test_linear_by_hand() -> None:
    values = [factor(i, steps=6, kind="linear", warmup=1 / 3, floor=0.0) for i in range(6)]
    assert values == pytest.approx([0.5, 1.0, 1.0, 2 / 3, 1 / 3, 0.0])


def test_exponential_by_hand() -> None:
    values = [factor(i, steps=4, kind="exponential", warmup=0.0, floor=0.001) for i in range(4)]
    assert values == pytest.approx([1, 0.1, 0.01, 0.001])


def test_constant_and_inverse_square_root_by_hand() -> None:
    assert [factor(i, steps=9, kind="constant", warmup=0.0, floor=0.3) for i in (0, 8)] == [1.0, 1.0]
    values = [factor(i, steps=40, kind="inverse_sqrt", warmup=0.1, floor=0.4) for i in (0, 3, 4, 15, 39)]
    assert values == pytest.approx([0.25, 1.0, math.sqrt(4 / 5), 0.5, 0.4])


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant", "inverse_sqrt", "exponential"])
@pytest.mark.parametrize("steps", [1, 2, 3, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 1.0])
def test_between_nothing_and_the_peak(kind: str, steps: int, warmup: float) -> None:
    values = [factor(i, steps=steps, kind=kind, warmup=warmup, floor=0.01) for i in range(steps + 1)]  # type: ignore[arg-type]
    assert all(0 < value <= 1 for value in values)
    rise = round(steps * warmup)
    assert values[:rise] == sorted(values[:rise])
    assert values[rise:] == sorted(values[rise:], reverse=True)


def test_matrices_are_decayed_and_nothing_else() -> None:
    module = nn.ModuleDict(
        {
            "table": nn.Embedding(5, 4),
            "map": nn.Linear(4, 4),
            "norm": nn.LayerNorm(4),
            "tied": nn.Linear(4, 5, bias=False),
            "conv": nn.Conv1d(4, 4, 3),
            "frozen": nn.Linear(4, 4),
        }
    )
    module["tied"].weight = module["table"].weight
    module["frozen"].requires_grad_(False)
    module.register_parameter("class_token", nn.Parameter(torch.zeros(1, 1, 4)))
    decayed, kept = parameter_groups(module)
    names = {id(p): name for name, p in module.named_parameters()}
    assert [names[id(p)] for p in decayed["params"]] == ["map.weight", "conv.weight"]
    assert [names[id(p)] for p in kept["params"]] == [
        "class_token",
        "table.weight",
        "map.bias",
        "norm.weight",
        "norm.bias",
        "conv.bias",
    ]
    assert "weight_decay" not in decayed
    assert kept["weight_decay"] == 0.0


class Rates(nn.Module):
    without_decay = frozenset({"rate"})

    def __init__(self) -> None:
        super().__init__()
        self.rate, self.gain = nn.Parameter(torch.zeros(3, 3)), nn.Parameter(torch.zeros(3, 3))


def test_what_a_module_exempts_is_not_decayed_a_copy_of_it_neither() -> None:
    for module in (nn.Sequential(nn.Linear(3, 3), Rates()), copy.deepcopy(nn.Sequential(nn.Linear(3, 3), Rates()))):
        assert isinstance(module[1], Rates)
        decayed, kept = parameter_groups(module)
        assert [id(p) for p in decayed["params"]] == [id(module[0].weight), id(module[1].gain)]
        assert [id(p) for p in kept["params"]] == [id(module[0].bias), id(module[1].rate)]
    module.without_decay = frozenset({"rats"})  # type: ignore[assignment]
    with pytest.raises(AttributeError, match="rats"):
        parameter_groups(module)


def test_s4d_decays_neither_its_poles_nor_its_steps() -> None:
    encoder = load_encoder("s4d", InputSpec(max_length=9, vocab_size=5), dim=8, depth=2)
    names = {id(p): name for name, p in encoder.named_parameters()}
    decayed, _ = parameter_groups(encoder)
    ends = {names[id(p)].split(".", 2)[2] for p in decayed["params"]}
    assert ends == {"ssm.readout", "mix.weight"}
    assert len(decayed["params"]) == 2 * len(ends)


def test_no_empty_group() -> None:
    assert [len(group["params"]) for group in parameter_groups(nn.LayerNorm(3))] == [2]
