"""The baselines against independent computations: the equation's loop, PyTorch's own module, the official formula."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

from encoders.bag import Bag
from encoders.base import Encoder, InputSpec, Sequences
from encoders.blocks.recurrent import BidirectionalStack, RecurrentStack
from encoders.blocks.scan import DiagonalSSM
from encoders.decomposition import Decomposition
from encoders.recurrent import Bidirectional, Recurrent
from encoders.s4d import S4D
from encoders.tcn import TCN, CentredTCN
from encoders.trivial import Trivial

IDS = InputSpec(max_length=40, vocab_size=11, target_length=8)
SERIES = InputSpec(max_length=40, channels=1)


def padded(lengths: list[int]) -> Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)


def ids(lengths: list[int], seed: int = 0) -> Sequences:
    mask = padded(lengths)
    return Sequences(values=torch.randint(11, mask.shape, generator=torch.Generator().manual_seed(seed)), mask=mask)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# -- recurrent -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_bidirectional_stack_is_pytorchs_packed_module(cell: type[nn.LSTM] | type[nn.GRU]) -> None:
    stack = BidirectionalStack(cell=cell, dim=6, depth=2, dropout=0.0)
    module = cell(6, 3, 2, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for layer in range(2):
            for side, suffix in ((stack.rightward, ""), (stack.leftward, "_reverse")):
                for name, parameter in side[layer].named_parameters():
                    getattr(module, name.replace("l0", f"l{layer}") + suffix).copy_(parameter)
    lengths = [7, 2, 5, 1]
    x, mask = normal(4, 7, 6), padded(lengths)
    packed, _ = module(pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False))
    expected, _ = pad_packed_sequence(packed, batch_first=True)
    assert_close(stack(x, mask)[mask], expected[mask], atol=1e-6, rtol=1e-5)
    assert sum(p.numel() for p in stack.parameters()) == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_state_to_resume_from_is_that_of_the_last_real_position(cell: type[nn.LSTM] | type[nn.GRU]) -> None:
    stack = RecurrentStack(cell=cell, dim=6, depth=2, dropout=0.0)
    lengths = [7, 2, 5, 2]
    x, mask = normal(4, 7, 6), padded(lengths)
    packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    _, expected = stack.layers(packed)
    values, state = stack.resume(x, mask, None)
    as_tuple = lambda s: s if isinstance(s, tuple) else (s,)  # noqa: E731
    for one, other in zip(as_tuple(state), as_tuple(expected), strict=True):
        assert_close(one.transpose(0, 1), other, atol=1e-6, rtol=1e-5)
    assert_close(values, stack(x), atol=1e-6, rtol=1e-5)


def test_a_row_without_a_real_position_keeps_its_state() -> None:
    stack = RecurrentStack(cell=nn.LSTM, dim=4, depth=1, dropout=0.0)
    _, state = stack.resume(normal(2, 3, 4), padded([3, 3]), None)
    for length in (1, 2):
        mask = torch.tensor([[True] * length, [False] * length])
        _, after = stack.resume(normal(2, length, 4, seed=1), mask, state)
        for new, old in zip(after, state, strict=True):
            assert torch.equal(new[1], old[1])
            assert not torch.equal(new[0], old[0])


def test_dropout_falls_on_a_single_layer_too_and_without_a_warning() -> None:
    encoder = Recurrent(cell="lstm", dim=8, depth=1, dropout=0.5, spec=IDS)
    source = ids([6])
    torch.manual_seed(0)
    assert (encoder(source).values == 0).any()
    assert not (encoder.eval()(source).values == 0).any()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_an_odd_width_has_no_halves(cell: Literal["lstm", "gru"]) -> None:
    with pytest.raises(ValueError, match=r"dim: 7 is odd.* use 8"):
        Bidirectional(cell=cell, dim=7, depth=1, dropout=0.0, spec=IDS)


# -- state space -----------------------------------------------------------------------------------------------------
def loop(ssm: DiagonalSSM, u: Tensor) -> Tensor:
    """Zero-order hold with 2x2 real matrices by `matrix_exp` of the block [[A, B], [0, 0]], one step after another.

    It shares nothing with the layer but its parameters: no complex numbers, no closed form of the discretisation.
    """
    batch, length, channels = u.shape
    y = torch.zeros(batch, length, channels, dtype=torch.float64)
    for d in range(channels):
        dt = ssm.log_dt[d].double().exp()
        for n in range(ssm.turn.shape[1]):
            decay, turn = -ssm.log_decay[d, n].double().exp(), ssm.turn[d, n].double()
            block = torch.zeros(3, 3, dtype=torch.float64)
            block[0, 0] = block[1, 1] = decay
            block[0, 1], block[1, 0] = -turn, turn
            block[0, 2] = 1.0  # B = 1 + 0i
            step = torch.linalg.matrix_exp(dt * block)
            c_re, c_im = ssm.readout[d, n].double()
            x = torch.zeros(batch, 2, dtype=torch.float64)
            for t in range(length):
                x = x @ step[:2, :2].T + u[:, t, d, None].double() * step[:2, 2]
                y[:, t, d] += 2 * (c_re * x[:, 0] - c_im * x[:, 1])
    return y + ssm.skip.double() * u.double()


@pytest.mark.parametrize("length", [1, 2, 3, 30, 37])  # squares, and what is left over of them
@pytest.mark.parametrize("init", ["lin", "inv"])
def test_convolution_is_the_loop_of_the_equation(init: Literal["lin", "inv"], length: int) -> None:
    torch.manual_seed(0)
    ssm = DiagonalSSM(channels=3, state_dim=8, init=init, dt_min=0.01, dt_max=0.2)
    u = normal(2, length, 3)
    with torch.no_grad():
        assert_close(ssm(u).double(), loop(ssm, u), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("init", ["lin", "inv"])
@pytest.mark.parametrize("pieces", [[30], [1] * 30, [7, 1, 1, 13, 8]], ids=["whole", "steps", "mixed"])
def test_convolution_is_the_recurrence_at_full_size(init: Literal["lin", "inv"], pieces: list[int]) -> None:
    torch.manual_seed(1)
    ssm = DiagonalSSM(channels=128, state_dim=64, init=init, dt_min=0.001, dt_max=0.1)
    u = normal(2, 30, 128)
    state, outputs = None, []
    with torch.no_grad():
        for piece in u.split(pieces, 1):
            y, state = ssm.resume(piece, torch.ones(piece.shape[:2]) > 0, state)
            outputs.append(y)
        assert_close(torch.cat(outputs, 1), ssm(u), atol=1e-5, rtol=1e-5)


def test_state_after_padding_is_the_state_before_it() -> None:
    torch.manual_seed(2)
    ssm = DiagonalSSM(channels=4, state_dim=8, init="lin", dt_min=0.01, dt_max=0.2)
    u, lengths = normal(4, 9, 4), [9, 4, 1, 0]
    with torch.no_grad():
        _, start = ssm.resume(normal(4, 5, 4, seed=3), padded([5] * 4), None)
        _, state = ssm.resume(u, torch.arange(9) < torch.tensor(lengths).unsqueeze(1), start)
        for row, length in enumerate(lengths[:3]):
            _, alone = ssm.resume(u[row : row + 1, :length], padded([length]), start[row : row + 1])
            assert_close(state[row : row + 1], alone, atol=1e-5, rtol=1e-5)
        assert_close(state[3], start[3], atol=0.0, rtol=0.0)


def test_start_values_are_the_papers() -> None:
    torch.manual_seed(0)
    lin = DiagonalSSM(channels=500, state_dim=6, init="lin", dt_min=0.001, dt_max=0.1)
    inv = DiagonalSSM(channels=1, state_dim=6, init="inv", dt_min=0.001, dt_max=0.1)
    assert_close(-lin.log_decay.exp(), torch.full((500, 3), -0.5))
    assert_close(lin.turn[0], torch.tensor([0.0, math.pi, 2 * math.pi]))
    assert_close(inv.turn[0], torch.tensor([6 * 5, 6 * 1, 6 * 0.2]) / math.pi)  # N/pi (N/(2n+1) - 1), N = 6
    dt = lin.log_dt.detach().exp()
    assert 0.001 <= dt.min() < 0.0015
    assert 0.066 < dt.max() <= 0.1
    assert abs(lin.log_dt.mean().item() - (math.log(0.001) + math.log(0.1)) / 2) < 0.2  # uniform in the logarithm
    c = torch.view_as_complex(lin.readout.detach())  # randn(H, N / 2, dtype=cfloat) in the official code
    assert abs(c.abs().square().mean().item() - 1) < 0.06
    assert abs(c.real.std().item() - math.sqrt(0.5)) < 0.03
    assert abs(c.imag.std().item() - math.sqrt(0.5)) < 0.03


def test_a_start_convolves_like_the_official_one() -> None:
    """Mean square of the kernel at start, H = 1000, N = 64, l < 16: of the official S4DKernel's numbers, in numpy."""
    torch.manual_seed(0)
    ssm = DiagonalSSM(channels=1000, state_dim=64, init="lin", dt_min=0.001, dt_max=0.1)
    u = torch.zeros(1, 16, 1000)
    u[0, 0] = 1
    with torch.no_grad():
        kernel_LH = (ssm(u) - ssm.skip * u)[0]
    rng = np.random.default_rng(0)
    dt = np.exp(rng.random(1000) * (np.log(0.1) - np.log(0.001)) + np.log(0.001))
    c = (rng.standard_normal((1000, 32)) + 1j * rng.standard_normal((1000, 32))) / np.sqrt(2)
    a = -0.5 + 1j * np.pi * np.arange(32)
    powers = np.exp((dt[:, None] * a)[..., None] * np.arange(16))
    official = 2 * np.einsum("hn,hnl->hl", c * (np.exp(dt[:, None] * a) - 1) / a, powers).real
    assert kernel_LH.square().mean().item() == pytest.approx((official**2).mean(), rel=0.1)


def test_a_block_of_s4d_drops_before_its_linear_map_and_of_what_it_adds() -> None:
    torch.manual_seed(0)
    encoder = S4D(dim=64, depth=1, state_dim=8, init="lin", dt_min=0.001, dt_max=0.1, dropout=0.5, spec=IDS)
    block, inputs = encoder.blocks[0], []
    block.mix.register_forward_hook(lambda module, given, output: inputs.append(given[0]))
    x_BLD = torch.randn(4, 16, 64)
    added_BLD = block(x_BLD) - x_BLD
    assert float((added_BLD == 0).float().mean()) == pytest.approx(0.5, abs=0.05)
    assert float((inputs[0] == 0).float().mean()) == pytest.approx(0.5, abs=0.05)


def test_weights_of_bfloat16_give_bfloat16_states_near_those_of_float32() -> None:
    torch.manual_seed(0)
    encoder = S4D(dim=8, depth=2, state_dim=8, init="lin", dt_min=0.001, dt_max=0.1, dropout=0.0, spec=IDS).eval()
    source = Sequences(values=torch.arange(8).reshape(2, 4) % 5, mask=torch.ones(2, 4) > 0)
    with torch.no_grad():
        full = encoder.prefill(source)
        half = encoder.bfloat16().prefill(source)
        step = encoder.decode(Sequences(values=source.values[:, :1], mask=source.mask[:, :1]), half)
        assert encoder(source).values.dtype == half.values.dtype == step.values.dtype == torch.bfloat16
        assert half.cache.dtype == torch.float32
        assert (half.values.float() - full.values).norm() < 0.02 * full.values.norm()


@pytest.mark.parametrize(
    "change, message", [({"dt_min": 0.2}, "use 0 < dt_min <= dt_max"), ({"state_dim": 7}, "7 is odd.* use 8")]
)
def test_impossible_state_spaces_are_refused(change: dict[str, float], message: str) -> None:
    given = {"dim": 8, "depth": 1, "state_dim": 8, "init": "lin", "dt_min": 0.001, "dt_max": 0.1, "dropout": 0.0}
    with pytest.raises(ValueError, match=message):
        S4D(**{**given, **change}, spec=IDS)  # type: ignore[arg-type]


# -- convolutional ---------------------------------------------------------------------------------------------------
def reach(encoder: Encoder, length: int, at: int) -> list[int]:
    """Positions that the state at `at` depends on, by gradients."""
    values = normal(1, length, 1).requires_grad_()
    states = encoder(Sequences(values=values, mask=torch.ones(1, length) > 0))
    (gradient,) = torch.autograd.grad((states.values[0, at] * normal(states.values.shape[-1])).sum(), values)
    return gradient[0, :, 0].nonzero()[:, 0].tolist()


def test_a_tcn_sees_what_its_docstring_says() -> None:
    torch.manual_seed(0)
    causal = TCN(dim=16, depth=3, kernel_size=3, dropout=0.0, spec=SERIES)
    assert reach(causal, 40, 35) == list(range(35 - 2 * 2 * 7, 36))
    centred = CentredTCN(dim=16, depth=2, kernel_size=3, dropout=0.0, spec=SERIES)
    assert reach(centred, 40, 20) == list(range(20 - 2 * 3, 20 + 2 * 3 + 1))


def test_a_tcn_block_is_the_papers() -> None:
    encoder = TCN(dim=4, depth=2, kernel_size=2, dropout=0.0, spec=SERIES)
    x = normal(1, 9, 1)
    assert encoder.embed.linear is not None
    h = encoder.embed.linear(x)[0].double()
    block: Any
    for i, block in enumerate(encoder.blocks):
        y = h
        for convolution in (block.first, block.second):
            direction = convolution.parametrizations.weight.original1.double()
            weight = convolution.parametrizations.weight.original0.double() * direction
            weight = weight / direction.flatten(1).norm(dim=1)[:, None, None]
            past = torch.cat([torch.zeros(2**i, 4, dtype=torch.float64), y])[: len(y)]
            y = (past @ weight[:, :, 0].T + y @ weight[:, :, 1].T + convolution.bias.double()).relu()
        h = (h + y).relu()
    states = encoder(Sequences(values=x, mask=torch.ones(1, 9) > 0))
    assert_close(states.values[0].double(), h, atol=1e-5, rtol=1e-5)


def test_an_even_kernel_has_no_centre() -> None:
    with pytest.raises(ValueError, match=r"kernel_size: 4 is even.* use 5"):
        CentredTCN(dim=4, depth=1, kernel_size=4, dropout=0.0, spec=IDS)


# -- bag -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("depth", [0, 2])
def test_a_bag_has_no_order(depth: int) -> None:
    encoder = Bag(dim=8, depth=depth, dropout=0.0, spec=IDS).eval()
    source, order = ids([6]), torch.tensor([3, 1, 5, 0, 2, 4])
    turned = Sequences(values=source.values[:, order], mask=source.mask)
    assert_close(encoder(turned).values, encoder(source).values[:, order])


def test_a_bag_without_layers_is_fasttexts_mean_twice() -> None:
    encoder = Bag(dim=8, depth=0, dropout=0.0, spec=IDS)
    source = ids([6, 3])
    states = encoder(source)
    assert encoder.token_embedding is not None
    for row, length in ((0, 6), (1, 3)):
        mean = F.embedding_bag(source.values[row : row + 1, :length], encoder.token_embedding, mode="mean")
        assert_close(states.values[row, :length].mean(0), 2 * mean[0])


# -- linear ----------------------------------------------------------------------------------------------------------
def official_decomposition(x: Tensor, kernel_size: int) -> tuple[Tensor, Tensor]:
    """Seasonal part and trend of (B, L, C): each end repeated (K - 1) // 2 times, then the mean of each window."""
    side = (kernel_size - 1) // 2
    longer = torch.cat([x[:, :1].repeat(1, side, 1), x, x[:, -1:].repeat(1, side, 1)], 1)
    trend = longer.unfold(1, kernel_size, 1).mean(-1)
    return x - trend, trend


def test_decomposition_and_a_flatten_head_are_dlinear() -> None:
    """The official two maps, W_s s + b_s + W_t t + b_t, with their weights carried into one over all states."""
    length, horizon, rows = 40, 12, 6
    x = normal(rows, length, 1)
    seasonal, trend = nn.Linear(length, horizon), nn.Linear(length, horizon)
    s, t = official_decomposition(x, 25)
    expected = seasonal(s[..., 0]) + trend(t[..., 0])

    encoder = Decomposition(kernel_size=25, spec=SERIES)
    head = nn.Linear(encoder.num_states(length) * encoder.dim, horizon)
    with torch.no_grad():
        head.weight.copy_(torch.stack([seasonal.weight, trend.weight], -1).flatten(1))
        head.bias.copy_(seasonal.bias + trend.bias)
    states = encoder(Sequences(values=x, mask=torch.ones(rows, length) > 0))
    assert_close(head(states.values.flatten(1)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel_size", [1, 3, 25])
def test_decomposition_of_several_channels_adds_up(kernel_size: int) -> None:
    encoder = Decomposition(kernel_size=kernel_size, spec=InputSpec(max_length=40, channels=3))
    x = normal(2, 10, 3)
    values = encoder(Sequences(values=x, mask=torch.ones(2, 10) > 0)).values
    s, t = official_decomposition(x, kernel_size)
    assert encoder.dim == values.shape[-1] == 6
    assert_close(values, torch.cat([s, t], -1), atol=1e-6, rtol=1e-5)
    assert_close(values[..., :3] + values[..., 3:], x, atol=1e-6, rtol=1e-5)


def test_decomposition_refuses_what_it_cannot_average() -> None:
    with pytest.raises(ValueError, match="ids"):
        Decomposition(kernel_size=25, spec=IDS)
    with pytest.raises(ValueError, match=r"kernel_size: 4 is even.* use 5"):
        Decomposition(kernel_size=4, spec=SERIES)


# -- trivial ---------------------------------------------------------------------------------------------------------
def test_a_trivial_encoder_says_nothing_but_its_rule() -> None:
    encoder = Trivial(rule="repeat_last", spec=IDS)
    assert encoder.rule == "repeat_last"
    assert not list(encoder.parameters())
    states = encoder(ids([5, 2]))
    assert states.values.shape == (2, 5, 1)
    assert not states.values.any()


# -- learning --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "encoder_class, given",
    [
        (Recurrent, {"cell": "lstm", "depth": 1}),
        (Recurrent, {"cell": "gru", "depth": 1}),
        (Bidirectional, {"cell": "lstm", "depth": 1}),
        (Bidirectional, {"cell": "gru", "depth": 1}),
        (TCN, {"depth": 3, "kernel_size": 3}),
        (CentredTCN, {"depth": 3, "kernel_size": 3}),
        (S4D, {"depth": 1, "state_dim": 16, "init": "lin", "dt_min": 0.01, "dt_max": 0.5}),
    ],
)
def test_it_learns_to_remember(encoder_class: Any, given: dict[str, Any]) -> None:
    """The id two positions back, at every position: from chance (1/11) to most of the time in 200 steps."""
    torch.manual_seed(0)
    encoder = encoder_class(dim=32, dropout=0.0, spec=IDS, **given)
    head = nn.Linear(32, 11)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-2)
    for step in range(200):
        source = ids([12] * 16, seed=step)
        logits = head(encoder(source).values[:, 2:])
        loss = F.cross_entropy(logits.flatten(0, 1), source.values[:, :-2].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    source = ids([12] * 64, seed=1000)
    hits = head(encoder(source).values[:, 2:]).argmax(-1) == source.values[:, :-2]
    assert hits.float().mean() > 0.5
