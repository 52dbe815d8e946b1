"""Spiking LMUFormer: neurons against a plain loop, surrogate gradients, rates, operations by hand, sizes.

Once, outside of this repository, the official `slmu_rnn_ms_conv1d` and `attn_ms_conv1d` (zeyuliu1037/LMUFormer at
5debadd; timm's names stood in for, spikingjelly's neuron by the loop below, as its documentation has it) ran beside the
published preset, with its weights, on 4 rows of 128 frames in training: of 131,072 last spikes (4,404 and 3,934 fired)
none differed, gradients of the first convolution by 3e-6 and 1e-6 of their norm.
"""
# B batch, L positions, D width

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from encoders.base import InputSpec, Sequences
from encoders.blocks.legendre import discretised
from encoders.blocks.spikes import Spikes, firing_rates, synaptic_operations
from seqbench.build import build
from seqbench.composition.nodes import compose_node

SPEC = InputSpec(max_length=64, channels=8)


def make(name: str = "lmuformer_spiking", spec: InputSpec = SPEC, **changes: Any) -> Any:
    return build({**compose_node("encoder", name), **changes}, "encoder", ["encoders"], spec=spec).eval()


def rows(*lengths: int) -> Sequences:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return Sequences(values=torch.randn(*mask.shape, 8), mask=mask)


class Heaviside(torch.autograd.Function):
    """A step whose gradient is that of a sigmoid of slope 4."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * 4 * torch.sigmoid(4 * x) * torch.sigmoid(-4 * x)


def by_hand(x_BLD: Tensor, threshold: float) -> Tensor:
    """Charge, fire, reset, one step after the other, by autograd."""
    v, fired = torch.zeros_like(x_BLD[:, 0]), []
    for x in x_BLD.unbind(1):
        v = v + (x - v) / 2
        spike: Tensor = Heaviside.apply(v - threshold)  # type: ignore[no-untyped-call]
        fired.append(spike)
        v = (1 - spike.detach()) * v
    return torch.stack(fired, 1)


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_neurons_and_their_gradients(threshold: float) -> None:
    x_BLD = torch.randn(3, 20, 5, dtype=torch.float64) + 0.8
    weight = torch.randn(3, 20, 5, dtype=torch.float64)
    found = []
    for fire in (lambda x: Spikes(dim=None, threshold=threshold)(x, torch.ones(3, 20).bool()), by_hand):
        given = x_BLD.clone()
        given.requires_grad_()
        fired = fire(given) if fire is not by_hand else by_hand(given, threshold)
        (gradient,) = torch.autograd.grad((fired * weight).sum(), given)
        found.append((fired, gradient))
    assert 0.1 < found[0][0].mean() < 0.9
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


def test_a_neuron_by_pencil() -> None:
    """1.2: 0.6; 1.6: 1.1 fires; again 0.8; 0.4; 2.0: 1.2 fires."""
    x = torch.tensor([1.2, 1.6, 1.6, 0.0, 2.0]).view(1, 5, 1)
    fired = Spikes(dim=None, threshold=1.0)(x, torch.ones(1, 5).bool())
    assert fired.flatten().tolist() == [0, 1, 0, 0, 1]


def by_the_sheet(encoder: Any, x_BCL: Tensor, mixer: str) -> Tensor:
    """The order BN, LIF, convolution everywhere, channels first, in float64."""
    weights = {name: value.double() for name, value in encoder.state_dict().items()}

    def bn(name: str, x: Tensor) -> Tensor:
        mean, var, scale, shift = (
            weights[f"{name}.{key}"][None, :, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    def fire(name: str, x: Tensor, threshold: float = 1.0) -> Tensor:
        return by_hand(bn(f"{name}.norm", x).transpose(1, 2), threshold).transpose(1, 2)

    def conv1(name: str, x: Tensor) -> Tensor:
        made = torch.einsum("dc,bcl->bdl", weights[f"{name}.weight"], x)
        return made + weights[f"{name}.bias"][None, :, None] if f"{name}.bias" in weights else made

    def conv3(i: int, x: Tensor) -> Tensor:
        return torch.nn.functional.conv1d(x, weights[f"embed.convolutions.{i}.convolution.weight"], padding=1)

    x = conv3(0, x_BCL.double())
    for i in range(3):
        x = conv3(i + 1, fire(f"embed.spikes.{i}", x))
    x = x + conv3(4, fire("embed.spikes.3", x))
    block = "blocks.0.mixer"
    if mixer == "lmu":
        s = fire(f"{block}.enter", x, 0.5)
        a, b = discretised(encoder.blocks[0].mixer.memory.entry.shape[0], 64)
        u = fire(f"{block}.written", conv1(f"{block}.write", s))
        m, memories = torch.zeros(len(x), len(b), dtype=torch.float64), []
        for t in range(x.shape[2]):
            m = m @ a.T + u[:, :, t] * b
            memories.append(m)
        held = fire(f"{block}.held", torch.stack(memories, 2))
        h = fire(f"{block}.seen", conv1(f"{block}.read", torch.cat((held, s), 1)))
    else:
        s = fire(f"{block}.enter", x)
        q, k, v = (fire(f"{block}.spikes.{i}", conv1(f"{block}.maps.{i}", s)).unflatten(1, (4, -1)) for i in range(3))
        mixed = torch.einsum("bhel,bhes,bhfs->bhfl", q, k, v).flatten(1, 2) / 4
        h = by_hand(mixed.transpose(1, 2), 0.5).transpose(1, 2)
    x = x + bn(f"{block}.norm", conv1(f"{block}.out", h))
    g = conv1("blocks.0.up", fire("blocks.0.enter", x))
    x = x + conv1("blocks.0.down", fire("blocks.0.between", g))
    return fire("last", x).transpose(1, 2)


@pytest.mark.parametrize("mixer", ["lmu", "attention"])
def test_the_network_is_the_sheets(mixer: str) -> None:
    encoder, source = make(mixer=mixer), rows(64, 64)
    torch.nn.init.constant_(encoder.last.norm.bias, 0.7)  # so that many fire
    found, expected = encoder(source).values, by_the_sheet(encoder, source.values.transpose(1, 2), mixer)
    assert 0.005 < expected.mean() < 0.9
    assert (found != expected).double().mean() < 1e-3  # but for roundings at a threshold, of which more may follow


@pytest.mark.parametrize("mixer", ["lmu", "attention"])
def test_every_layer_fires_sometimes_and_batches_leave_no_trace(mixer: str) -> None:
    encoder, source = make(mixer=mixer), rows(64, 40)
    rates = firing_rates(encoder, source)
    assert len(rates) == (4 + 4 + 3 if mixer == "lmu" else 4 + 5 + 3)
    assert all(0 < rate < 1 for rate in rates.values()), rates
    first = encoder(source).values
    encoder(rows(30))
    again = encoder(source).values
    assert torch.equal(first, again)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not first[1, 40:].any()
    alone = Sequences(values=source.values[1:, :40], mask=source.mask[1:, :40])
    assert (encoder(alone).values[0] != first[1, :40]).float().mean() < 1e-3  # but for roundings at a threshold


@pytest.mark.parametrize("mixer", ["lmu", "attention"])
def test_statistics_begin_as_those_of_noise_and_move_as_ever(mixer: str) -> None:
    encoder = make(mixer=mixer)
    norms = [module for module in encoder.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    assert len(norms) == 4 + 5 + 2 + 1  # of patches, mixer, channels, the last one
    for norm in norms:
        assert norm.running_var is not None
        assert (norm.running_var - 1).abs().max() > 1e-3
        assert norm.momentum == 0.1
        assert int(norm.num_batches_tracked or 0) == 0
        assert norm.weight.eq(1).all()


def test_the_precision_of_a_run_turns_no_spike() -> None:
    encoder, source = make(), rows(64, 40)
    exact = encoder(source).values
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder(source).values, exact)


@pytest.mark.parametrize("mixer", ["lmu", "attention"])
def test_it_learns_through_its_spikes(mixer: str) -> None:
    """Which of two channels is raised, by the mean over steps."""
    encoder = make(mixer=mixer, dim=16, hidden=16, order=16).train()
    source = rows(*[16] * 64)
    label = torch.arange(64) % 2
    source.values[torch.arange(64), :, label] += 2
    read = torch.nn.Linear(16, 2)
    optimizer = torch.optim.Adam([*encoder.parameters(), *read.parameters()], lr=1e-2)
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(read(encoder(source).values.mean(1)), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[-5:]) < 0.85 * losses[0]


def test_operations_are_additions_where_spikes_are_read() -> None:
    encoder, source = make(dim=16, hidden=32, order=16), rows(20)
    rates = firing_rates(encoder, source)
    multiplications, additions = synaptic_operations(encoder, source)
    assert multiplications == 20 * 8 * 16 * 3  # the first convolution, which reads channels
    fan_out = {
        "embed.spikes.0": 48,
        "embed.spikes.1": 48,
        "embed.spikes.2": 48,
        "embed.spikes.3": 48,
        "blocks.0.mixer.enter": 1 + 16,  # to u, and to h beside the memory
        "blocks.0.mixer.held": 16,
        "blocks.0.mixer.seen": 16,
        "blocks.0.enter": 32,
        "blocks.0.between": 16,
    }
    width = {name: 32 if name == "blocks.0.between" else 16 for name in fan_out}
    expected = sum(round(20 * width[name] * rates[name]) * fan_out[name] for name in fan_out)
    assert additions == expected
    assert additions > 0


def test_parameters_are_the_published() -> None:
    spec = InputSpec(max_length=128, channels=128)
    for mixer, number in (("lmu", 1_689_894), ("attention", 1_689_379)):
        with torch.device("meta"):
            encoder = make("published/lmuformer_spiking", spec, mixer=mixer)
        assert sum(p.numel() for p in encoder.parameters()) + 256 * 35 + 35 == number


def test_heads_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="heads"):
        make(dim=64, heads=3)
