"""LMUFormer: the sheet's golden numbers by scipy, one memory in parallel and in steps, look-ahead, sizes, operations.

Once, outside of this repository, the official `lmu_rnn_conv1d` (zeyuliu1037/LMUFormer at 5debadd; timm's names stood in
for) ran beside the published preset, with its weights, on 4 rows of 128 frames: states of evaluation were 3.2e-8 apart
at most (their largest is 0.23), of training 3.4e-5 (9.7), logits 4e-7, gradients of w_u 1e-11; A and B were equal
to the bit, the impulse response to 5e-7. Theirs in parallel and in steps: 1.9e-8.
"""
# B batch, L positions, O order

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.polynomial import legendre
from numpy.typing import NDArray
from scipy.signal import cont2discrete
from torch import Tensor

from encoders.base import InputSpec, Sequences
from encoders.blocks import legendre as blocks
from encoders.blocks.convolution import Convolution
from encoders.blocks.legendre import LegendreMemory, discretised
from encoders.systems.lmuformer_parts import LegendreMixer
from seqbench.build import build
from seqbench.composition.nodes import compose_node
from seqbench.costs.operations import counting
from tasks.readout import pool

SPEC = InputSpec(max_length=128, channels=128)
MIXERS = ("lmu", "attention", "gru", "none")


def make(name: str = "lmuformer", spec: InputSpec = SPEC, **changes: Any) -> Any:
    return build({**compose_node("encoder", name), **changes}, "encoder", ["encoders"], spec=spec).eval()


def rows(*lengths: int, channels: int = 128) -> Sequences:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return Sequences(values=torch.randn(*mask.shape, channels), mask=mask)


def lively(encoder: Any) -> Any:
    """With norms as training leaves them: other than 0, 1, 1 and 0; and a memory that is written to at each step."""
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for value, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
            ):
                torch.nn.init.uniform_(value, low, high)
        if isinstance(module, LegendreMixer):
            torch.nn.init.constant_(module.write.bias, 1.0)
            torch.nn.init.normal_(module.read.weight, std=0.1)
    return encoder


def by_scipy(order: int, window: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A and B as the sheet writes them, by its loops, discretised by scipy."""
    a = np.array(
        [
            [(2 * i + 1) / window * (-1.0 if i < j else (-1.0) ** (i - j + 1)) for j in range(order)]
            for i in range(order)
        ]
    )
    b = np.array([[(2 * i + 1) / window * (-1.0) ** i] for i in range(order)])
    held = cont2discrete((a, b, np.ones((1, order)), np.zeros((1, 1))), dt=1.0, method="zoh")
    return held[0], held[1][:, 0]


@pytest.mark.parametrize("order, window", [(1, 3.5), (4, 8), (6, 16), (64, 64), (256, 128)])
def test_discretisation_is_scipys(order: int, window: float) -> None:
    ours, theirs = discretised(order, window), by_scipy(order, window)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.numpy(), other, atol=1e-9 * np.abs(other).max())


def test_golden_numbers_of_the_sheet() -> None:
    a, b = (part.numpy() for part in discretised(4, 8))
    assert a[0] == pytest.approx([0.869089, -0.102602, -0.090739, -0.037363], abs=6e-7)
    assert a[3] == pytest.approx([0.261544, -0.314920, 0.437939, 0.331186], abs=6e-7)
    assert b == pytest.approx([0.130911, -0.307806, 0.453696, -0.261544], abs=6e-7)
    assert np.linalg.norm(a) == pytest.approx(1.601136, abs=6e-7)
    assert np.abs(np.linalg.eigvals(a)).max() == pytest.approx(0.669248, abs=6e-7)
    response = LegendreMemory(order=4, window=8, length=3).response
    assert response[:, 1].tolist() == pytest.approx([0.113959, -0.266365, 0.013903, 0.243244], abs=6e-7)
    a, b = (part.numpy() for part in discretised(6, 16))
    assert b == pytest.approx([0.064085, -0.170620, 0.266386, -0.272602, 0.301092, -0.161529], abs=6e-7)
    assert np.linalg.norm(a) == pytest.approx(2.125221, abs=6e-7)
    assert np.abs(np.linalg.eigvals(a)).max() == pytest.approx(0.776912, abs=6e-7)
    a = discretised(256, 128)[0].numpy()  # more numbers than steps
    assert np.linalg.norm(a) == pytest.approx(15.3125, abs=6e-5)
    assert np.abs(np.linalg.eigvals(a)).max() == pytest.approx(0.8610926, abs=1e-6)  # exp of the continuous one's
    rounded = a.astype(np.float32).astype(np.float64)  # the sheet's 0.87857 is of this
    assert np.abs(np.linalg.eigvals(rounded)).max() == pytest.approx(0.87857, abs=1e-3)


@pytest.mark.parametrize("order, length", [(16, 64), (256, 128)])
def test_memory_in_parallel_is_the_recurrence(order: int, length: int) -> None:
    """Against the two lines of the sheet by numpy in float64; `resume` from wherever it is cut."""
    memory, u = LegendreMemory(order=order, window=length, length=length), torch.rand(3, length)
    a, b = by_scipy(order, length)
    m, expected = np.zeros((3, order)), []
    for t in range(length):
        m = m @ a.T + u[:, t, None].double().numpy() * b
        expected.append(m)
    whole = np.stack(expected, 1)
    np.testing.assert_allclose(memory(u).numpy(), whole, atol=1e-5)
    state: Tensor | None = None
    real = torch.ones(3, length, dtype=torch.bool)
    for start, stop in itertools.pairwise([0, 7, 7, 8, length]):
        part, state = memory.resume(u[:, start:stop], real[:, start:stop], state)
        np.testing.assert_allclose(part.numpy(), whole[:, start:stop], atol=1e-5)


def test_a_row_that_ends_keeps_its_memory() -> None:
    memory, u = LegendreMemory(order=6, window=16, length=12), torch.rand(3, 12)
    lengths = (12, 9, 5)
    whole = memory(u)
    state: Tensor | None = None
    for start, stop in ((0, 4), (4, 12)):
        real = torch.arange(start, stop) < torch.tensor(lengths).unsqueeze(1)
        _, state = memory.resume(u[:, start:stop], real, state)
    assert state is not None
    for row, length in enumerate(lengths):
        torch.testing.assert_close(state[row], whole[row, length - 1], atol=1e-6, rtol=1e-5)


def test_memory_holds_the_window() -> None:
    """u(t - r theta) is read by Legendre's polynomials; the errors are the sheet's."""
    u = np.sin(2 * np.pi * np.arange(200) / 50)
    memory = LegendreMemory(order=12, window=40, length=200)
    m = memory(torch.from_numpy(u)[None].float())[0, 100:].numpy()
    for share, error in ((0.0, 0.026), (0.5, 0.062), (1.0, 0.063)):
        read = m @ np.array([legendre.Legendre.basis(i)(2 * share - 1) for i in range(12)])
        delayed = u[100 - int(40 * share) : 200 - int(40 * share)]
        assert np.abs(read - delayed).max() == pytest.approx(error, abs=6e-4)


def test_memory_stays_float32_where_the_rest_does_not() -> None:
    memory, u = LegendreMemory(order=8, window=16, length=32), torch.rand(2, 32)
    exact = memory(u)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(memory(u), exact)
    assert memory(u.bfloat16()).dtype == torch.float32


def test_step_by_step_is_in_parallel() -> None:
    """The whole network, one frame at a time through its cache, and its running mean as the paper reads it."""
    encoder, source = lively(make("lmuformer_causal", depth=2)), rows(128, 128)
    whole = encoder(source).values
    before, made = encoder.prefill(cut(source, 0, 1)), []
    made.append(before.values)
    for t in range(1, 128):
        before = encoder.decode(cut(source, t, t + 1), before)
        made.append(before.values)
    torch.testing.assert_close(torch.cat(made, 1), whole, atol=1e-5, rtol=1e-5)
    sizes = {tuple(leaf.shape) for part in before.cache for leaf in part}
    assert sizes == {(2, 2, 128), (2, 2, 64), (2, 64)}  # of 128 steps and of one alike
    seen = encoder(cut(source, 0, 40))
    running_BLD = whole.cumsum(1) / torch.arange(1, 129)[:, None]
    torch.testing.assert_close(running_BLD[:, 39], pool(seen, "mean"), atol=1e-5, rtol=1e-5)


def cut(source: Sequences, start: int, stop: int) -> Sequences:
    return Sequences(values=source.values[:, start:stop], mask=source.mask[:, start:stop])


def by_the_sheet(weights: dict[str, Tensor], x_BCL: Tensor) -> Tensor:
    """Section 2 of the sheet in its own order, channels first, the memory in steps: (B, L, D)."""

    def bn(name: str, x: Tensor) -> Tensor:
        mean, var, scale, shift = (
            weights[f"{name}.{key}"][None, :, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    def conv1(name: str, x: Tensor) -> Tensor:
        return torch.einsum("dc,bcl->bdl", weights[f"{name}.weight"], x) + weights[f"{name}.bias"][None, :, None]

    for i in range(4):
        kernel = weights[f"embed.convolutions.{i}.convolution.weight"]
        x_BCL = bn(f"embed.norms.{i}", torch.nn.functional.conv1d(x_BCL, kernel, padding=1).clamp_min(0))
    position = weights["embed.position.convolution.weight"]
    x = x_BCL + torch.nn.functional.conv1d(x_BCL, position, padding=1)
    a, b = (torch.from_numpy(part).float() for part in by_scipy(64, 64))
    u = conv1("blocks.0.mixer.write", x).clamp_min(0)
    m, memories = torch.zeros(len(x), 64), []
    for t in range(x.shape[2]):
        m = m @ a.T + u[:, :, t] * b
        memories.append(m)
    h = conv1("blocks.0.mixer.read", torch.cat((torch.stack(memories, 2), x), 1)).clamp_min(0)
    x = x + bn("blocks.0.norm", conv1("blocks.0.mixer.out", h))
    g = bn("blocks.0.up_norm", conv1("blocks.0.up", x))
    g = g * (1 + torch.erf(g / 2**0.5)) / 2
    return (x + bn("blocks.0.down_norm", conv1("blocks.0.down", g)).clamp_min(0)).transpose(1, 2)


def test_the_network_is_the_sheets() -> None:
    encoder, source = lively(make()), rows(40, 40)
    expected = by_the_sheet(encoder.state_dict(), source.values.transpose(1, 2))
    assert expected.std() > 0.1
    torch.testing.assert_close(encoder(source).values, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mixer", MIXERS)
def test_states_look_five_frames_ahead_and_no_further(mixer: str) -> None:
    encoder, source = lively(make(mixer=mixer, dim=32, heads=4)), rows(128)
    values = source.values.clone()
    values[0, 60] += 1
    change = (encoder(source).values - encoder(Sequences(values=values, mask=source.mask)).values)[0].abs().amax(-1)
    moved = (change > 1e-5).nonzero().squeeze(1).tolist()  # transforms round, everywhere
    assert moved[0] == (0 if mixer == "attention" else 55)
    assert (moved[-1] > 65) is (mixer != "none")
    assert not encoder.causal


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("embedding", ["convolutional", "linear"])
def test_each_switch_meets_the_contract_on_padding_and_causality(mixer: str, embedding: str) -> None:
    encoder = lively(make(mixer=mixer, embedding=embedding, dim=32))
    source = rows(20, 9)
    alone = Sequences(values=source.values[1:, :9], mask=source.mask[1:, :9])
    torch.testing.assert_close(encoder(source).values[1, :9], encoder(alone).values[0], atol=1e-5, rtol=1e-5)
    source.values[1, 9:] = 100.0
    torch.testing.assert_close(encoder(source).values[1, :9], encoder(alone).values[0], atol=1e-5, rtol=1e-5)
    short, long = encoder(cut(source, 0, 8)).values, encoder(source).values[:, :8]
    assert torch.allclose(short, long, atol=1e-5) is encoder.causal


@pytest.mark.parametrize("name", ["lmuformer", "lmuformer_causal", "lmuformer_spiking"])
def test_memories_have_their_order_and_window(name: str) -> None:
    for order, window in ((8, 40), (12, 6)):
        memory = make(name, depth=2, order=order, window=float(window)).blocks[1].mixer.memory
        a, b = by_scipy(order, window)
        np.testing.assert_allclose(memory.transition.numpy(), a.T, atol=1e-6)
        np.testing.assert_allclose(memory.entry.numpy(), b, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("name", ["published/lmuformer", "published/lmuformer_spiking"])
def test_a_memory_begins_as_in_the_official_code(name: str) -> None:
    """What writes and reads from a normal of 0.02, cut off far away, without biases; W as a convolution of PyTorch."""
    mixer = make(name).blocks[0].mixer
    for linear, rel in ((mixer.write, 0.2), (mixer.read, 0.02)):  # of 256 and of 131,072 numbers at least
        assert float(linear.weight.std()) == pytest.approx(0.02, rel=rel)
        assert float(linear.weight.abs().max()) > 2.2 * 0.02
        assert not linear.bias.any()
    for part in (mixer.out.weight, mixer.out.bias):
        assert 0.95 / 16 < float(part.abs().max()) <= 1 / 16


def test_published_values_that_no_count_shows() -> None:
    for name, order in (("published/lmuformer", 256), ("published/lmuformer_spiking", 512)):
        published = compose_node("encoder", name)
        expected = {"depth": 1, "order": order, "window": 128, "heads": 16, "mixer": "lmu"}
        assert {key: published[key] for key in expected} == expected


def test_what_memory_is_compared_with_is_what_it_is_called() -> None:
    """A GRU step by step, softmax attention head by head, each followed by W."""
    x_BLD, mask_BL = torch.randn(2, 7, 64), torch.ones(2, 7, dtype=torch.bool)
    mixer = make(mixer="gru").blocks[0].mixer
    cell, h_BD, states = torch.nn.GRUCell(64, 64), torch.zeros(2, 64), []
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in mixer.gru.state_dict().items()})
    for t in range(7):
        h_BD = cell(x_BLD[:, t], h_BD)
        states.append(mixer.out(h_BD))
    torch.testing.assert_close(mixer(x_BLD, mask_BL), torch.stack(states, 1), atol=1e-5, rtol=1e-5)

    mixer = make(mixer="attention").blocks[0].mixer
    q, k, v = (part.unflatten(-1, (4, 16)) for part in mixer.attention.qkv(x_BLD).split(64, -1))
    seen = [(q[:, :, h] @ k[:, :, h].mT / 4).softmax(-1) @ v[:, :, h] for h in range(4)]
    expected = mixer.attention.out(torch.cat(seen, -1))
    torch.testing.assert_close(mixer(x_BLD, mask_BL), expected, atol=1e-5, rtol=1e-5)
    assert make(mixer="none").blocks[0].mixer is None


def test_statistics_are_of_real_positions() -> None:
    """A batch of unequal rows trains its norms as the rows' real positions, end to end, would."""
    encoder, source = make("lmuformer_causal", dim=16).train(), rows(20, 9)
    first = encoder.embed.convolutions[0](source.values, source.mask).relu()
    encoder(source)
    norm = encoder.embed.norms[0]
    torch.testing.assert_close(norm.running_mean, 0.1 * first[source.mask].mean(0))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * first[source.mask].var(0))


@pytest.mark.parametrize("name", ["lmuformer", "lmuformer_causal", "lmuformer_spiking"])
def test_a_single_position_trains(name: str) -> None:
    encoder, source = make(name, dim=16), rows(1)
    torch.testing.assert_close(encoder.train()(source).values, encoder.eval()(source).values)


def test_parameters_are_the_published() -> None:
    with torch.device("meta"):
        encoder = make("published/lmuformer")
    patches, blocks = (sum(p.numel() for p in part.parameters()) for part in (encoder.embed, encoder.blocks))
    assert (patches, blocks) == (886_784, 726_017)
    assert sum(p.numel() for p in encoder.parameters()) + 256 * 35 + 35 == 1_621_796


def test_memory_has_fewer_parameters_than_attention() -> None:
    lmu, attention = (sum(p.numel() for p in make(mixer=mixer).parameters()) for mixer in ("lmu", "attention"))
    assert attention - lmu == 3 * 64 * 64 + 3 * 64 - (64 + 1 + 128 * 64 + 64)


def test_operations_are_linear_in_length_but_for_attention() -> None:
    """Counted, of the mixers alone; the transforms of the memory are L log L."""
    operations: dict[str, list[int]] = {}
    for mixer in ("lmu", "attention", "gru"):
        part = make(mixer=mixer, spec=InputSpec(max_length=512, channels=1)).blocks[0].mixer
        for length in (128, 256, 512):
            with counting() as counter, torch.no_grad():
                part(torch.randn(1, length, 64), torch.ones(1, length, dtype=torch.bool))
            operations.setdefault(mixer, []).append(counter.get_total_flops())
    d = 64
    for i, length in enumerate((128, 256, 512)):
        n = 2 * length
        transforms = (1 + 2 * d) * 2.5 * n * np.log2(n)
        assert operations["lmu"][i] == pytest.approx(2 * length * (d + 2 * d * d + d * d) + transforms, rel=1e-6)
        assert operations["attention"][i] == 2 * length * 4 * d * d + 4 * length * length * d
    assert operations["gru"][2] == 4 * operations["gru"][0]


def test_convolution_reads_ahead_as_far_as_it_says() -> None:
    source = torch.randn(1, 9, 2)
    for ahead in (0, 1, 2):
        part = Convolution(inputs=2, outputs=3, kernel_size=3, ahead=ahead, bias=False)
        padded = torch.nn.functional.pad(source, (0, 0, 2 - ahead, ahead))
        weight_DCK = part.convolution.weight
        expected = torch.stack([torch.einsum("kc,dck->d", padded[0, t : t + 3], weight_DCK) for t in range(9)])
        torch.testing.assert_close(part(source, torch.ones(1, 9, dtype=torch.bool))[0], expected)


@pytest.mark.parametrize("name", ["lmuformer", "lmuformer_causal", "lmuformer_spiking"])
def test_an_order_whose_transition_has_no_room_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"encoder\.order: 5000 numbers, .*; use 4096 or less"):
        make(name, order=5000)


def test_an_order_of_the_most_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its matrix, of minutes, left out."""
    monkeypatch.setattr(blocks, "discretised", lambda order, window: (torch.eye(1), torch.ones(1)))
    assert blocks.LegendreMemory(order=4096, window=8, length=3).response.shape == (1, 3)
    with pytest.raises(ValueError, match="4097 numbers"):
        blocks.LegendreMemory(order=4097, window=8, length=3)
