"""Informer: ProbSparse by a slow loop and by the sheet's numbers, what the decoder is fed, published sizes.

Compared once with the official code (zhouhaoyi/Informer2020 at 29f2a73, run beside ours on torch 2.13 with the same
weights, input 5 x 96 x 7, label 48, horizon 24, calendar features, width 64, its random sample replaced by ours):
forecasts in evaluation were at most 9e-7 apart, for prob and full attention, with and without distilling and mixing,
and for InformerStack with encoders of 3, 2 and 1 layers; in training mode without dropout outputs were 8e-7 apart,
gradients of the first convolution 2e-9.
"""
# B batch, L positions, H heads, E head width, U sampled keys or active queries

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encoders.base import InputSpec, Sequences
from encoders.systems.informer import Distil, Informer, Layer, Tower
from encoders.systems.prob_sparse import Full, ProbSparse, prob_sparse, sparse_number
from seqbench.build import build
from seqbench.composition.nodes import compose_node

HOUR = 4  # calendar features of hourly rows


def spec(window: int = 96, horizon: int = 24, *, time: bool = True) -> InputSpec:
    streams = {"time": InputSpec(max_length=window + horizon, channels=HOUR)} if time else {}
    return InputSpec(max_length=window, channels=7, target_length=horizon, streams=streams)


def make(name: str = "informer", on: InputSpec | None = None, **changes: Any) -> Informer:
    encoder = build(compose_node("encoder", name, changes=changes), "encoder", ["encoders"], spec=on or spec())
    assert isinstance(encoder, Informer)
    return encoder.eval()


def rows(window: int = 96, horizon: int = 24, number: int = 3) -> Sequences:
    def whole(values: Tensor) -> Sequences:
        return Sequences(values=values, mask=torch.ones(values.shape[:2], dtype=torch.bool))

    time = whole(torch.rand(number, window + horizon, HOUR) - 0.5)
    values = torch.randn(number, window, 7)
    return Sequences(values=values, mask=torch.ones(number, window, dtype=torch.bool), streams={"time": time})


def waves() -> list[Tensor]:
    """Queries, keys, values of the sheet: sin(f n) over the flat index of (B 2, L 16, H 2, E 4), as (B, H, L, E)."""
    n = torch.arange(256, dtype=torch.float64)
    return [torch.sin(f * n).reshape(2, 16, 2, 4).transpose(1, 2) for f in (0.37, 0.53, 0.71)]


@pytest.mark.parametrize(
    "causal, total, first",
    [
        (False, 0.219330, [-0.180326, -0.113316, 0.008457, 0.126143]),
        (True, 1.122853, [0.0, 0.651834, 0.988652, 0.847678]),
    ],
)
def test_with_all_queries_active_it_is_full_attention_and_the_numbers_of_the_sheet(
    causal: bool, total: float, first: list[float]
) -> None:
    q, k, v = waves()
    sample = torch.arange(16).expand(16, 16)
    out = prob_sparse(q, k, v, sample, number=16, causal=causal, running_mean=False)
    torch.testing.assert_close(out, Full(causal=causal, dropout=0.0)(q, k, v), atol=1e-12, rtol=0)
    assert out[0, 0, 0].tolist() == pytest.approx(first, abs=2e-6)
    assert float(out.sum()) == pytest.approx(total, abs=1e-4)  # of 256 numbers, in float32 there


def test_sampled_keys_of_many_rows_are_gathered_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long horizons after short windows put thousands of rows in a batch of evaluation: 17 GB of keys, at 2,000."""
    q, k, v = (torch.randn(7, 2, 11, 4) for _ in range(3))
    sample = torch.randint(11, (11, 5))

    def found() -> Tensor:
        return prob_sparse(q, k, v, sample, number=4, causal=True, running_mean=False)

    whole, gathered, einsum = found(), [], torch.einsum
    for numbers in (1, 2 * 2 * 11 * 5 * 4, 10**9):  # a row at a time, two, all
        monkeypatch.setattr("encoders.systems.prob_sparse.GATHERED", numbers)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "einsum", lambda how, a, b: (gathered.append(len(a)), einsum(how, a, b))[1])
            torch.testing.assert_close(found(), whole)
    assert gathered == [1] * 7 + [2, 2, 2, 1] + [7]


@pytest.mark.parametrize("causal, mean", [(False, False), (True, False), (True, True)])
def test_it_is_a_slow_loop(causal: bool, mean: bool) -> None:
    q, k, v = (torch.randn(2, 3, 11, 4, dtype=torch.float64) for _ in range(3))
    sample = torch.randint(11, (11, 5))
    out = prob_sparse(q, k, v, sample, number=4, causal=causal, running_mean=mean).numpy()
    for b in range(2):
        for h in range(3):
            one = slow(q[b, h].numpy(), k[b, h].numpy(), v[b, h].numpy(), sample.numpy(), 4, causal, mean)
            np.testing.assert_allclose(out[b, h], one, atol=1e-12)


def slow(
    q: NDArray[Any], k: NDArray[Any], v: NDArray[Any], sample: NDArray[Any], number: int, causal: bool, mean: bool
) -> NDArray[Any]:
    """One head, query by query."""
    length = len(q)
    sparsity = []
    for i in range(length):
        products = [q[i] @ k[j] for j in sample[i]]
        sparsity.append(max(products) - sum(products) / length)
    active = np.argsort(sparsity)[-number:]
    out = []
    for i in range(length):
        seen = i + 1 if causal else length
        if i in active:
            weights = np.exp(q[i] @ k[:seen].T / math.sqrt(q.shape[1]))
            out.append(weights @ v[:seen] / weights.sum())
        elif causal:
            out.append(v[:seen].sum(0) / (seen if mean else 1))
        else:
            out.append(v.mean(0))
    return np.stack(out)


def test_numbers_of_active_queries() -> None:
    found = {n: sparse_number(n, 5) for n in (1, 24, 48, 72, 96, 168, 336, 720, 1440)}
    assert found == {1: 1, 24: 20, 48: 20, 72: 25, 96: 25, 168: 30, 336: 30, 720: 35, 1440: 40}


def test_the_sample_is_new_at_each_call_in_training_alone() -> None:
    attention = ProbSparse(length=64, factor=1, causal=False, running_mean=False)
    q, k, v = (torch.randn(1, 2, 50, 4) for _ in range(3))
    assert torch.equal(attention.eval()(q, k, v), attention(q, k, v))
    again = ProbSparse(length=64, factor=1, causal=False, running_mean=False).eval()
    assert torch.equal(attention(q, k, v), again(q, k, v))
    attention.train()
    assert len({tuple(attention(q, k, v).flatten().tolist()) for _ in range(8)}) > 1


def test_each_query_has_a_sample_of_its_own_in_training_too(monkeypatch: pytest.MonkeyPatch) -> None:
    samples: list[Tensor] = []

    def kept(q: Tensor, k: Tensor, v: Tensor, sample: Tensor, **more: Any) -> Tensor:
        samples.append(sample)
        return q

    monkeypatch.setattr("encoders.systems.prob_sparse.prob_sparse", kept)
    attention = ProbSparse(length=64, factor=2, causal=False, running_mean=False)
    for mode in (True, True, False):
        attention.train(mode)(*(torch.zeros(1, 1, 50, 4),) * 3)
    for sample in samples:
        assert sample.shape == (50, 8)
        assert len({tuple(row) for row in sample.tolist()}) == 50
        assert 0 <= sample.min() < sample.max() < 50
    assert not torch.equal(samples[0], samples[1])


def test_samples_are_keys_of_the_row_each_about_as_often() -> None:
    draws = ProbSparse(length=500, factor=20, causal=False, running_mean=False).draws_LU
    sample = (draws * 500).long()
    assert sample.shape == (500, 140)
    counts = torch.bincount(sample.flatten(), minlength=500)  # 140 each, binomial
    assert len(counts) == 500
    assert 85 < counts.min() < counts.max() < 200


@pytest.mark.parametrize("length, half", [(96, 48), (95, 48), (25, 13), (1, 1)])
def test_distilling_halves(length: int, half: int) -> None:
    distil = Distil(4).eval()
    x = torch.randn(2, length, 4)
    with torch.no_grad():
        out = distil(x)
        weight, bias = distil.convolution.weight, distil.convolution.bias
        assert bias is not None
        wrapped = torch.cat([x[:, -1:], x, x[:, :1]], 1)
        y = torch.stack([torch.einsum("bkc,dck->bd", wrapped[:, i : i + 3], weight) for i in range(length)], 1) + bias
        y = torch.nn.functional.elu(y / math.sqrt(1 + 1e-5))
    assert out.shape == (2, half, 4)
    for i in range(half):
        expected = y[:, max(0, 2 * i - 1) : 2 * i + 2].amax(1)
        torch.testing.assert_close(out[:, i], expected)


def test_a_window_of_one_row_trains_alone() -> None:
    """Distilling then has one value a channel to normalise: by its averages so far, which it leaves as they are."""
    encoder, batch = make(on=spec(1, 4), dropout=0.0, attention="full"), rows(1, 4, number=1)
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    expected = encoder(batch).values.detach()
    found = encoder.train()(batch).values
    torch.testing.assert_close(found, expected)
    assert all(torch.equal(value, before[name]) for name, value in encoder.named_buffers())
    [gradient] = torch.autograd.grad(found.square().sum(), encoder.embed.value.weight)
    assert gradient.any()


@pytest.mark.parametrize(
    "name, changes, published",
    [
        ("published/informer", {}, 11_330_055),
        ("published/informer", {"distil": False}, 10_542_087),
        ("published/informer", {"attention": "full"}, 11_330_055),
        ("informer", {}, 133_831),
        ("informer", {"dim": 32, "hidden": 64}, 35_175),
    ],
)
def test_parameters_are_the_published_ones(name: str, changes: dict[str, Any], published: int) -> None:
    with torch.device("meta"):
        encoder = build(compose_node("encoder", name, changes=changes), "encoder", ["encoders"], spec=spec())
    head = 7 * (encoder.dim + 1)
    assert sum(p.numel() for p in encoder.parameters()) + head == published


def test_full_attention_has_the_same_weights_and_enough_active_queries_give_its_states() -> None:
    full, prob = make(attention="full"), make(factor=96)
    prob.load_state_dict(full.state_dict())
    source = rows()
    torch.testing.assert_close(prob(source).values, full(source).values, atol=2e-6, rtol=0)
    few = make(factor=5)
    few.load_state_dict(full.state_dict())
    assert (few(source).values - full(source).values).abs().max() > 0.01


@pytest.mark.parametrize("window, start", [(96, 48), (20, 48)])
def test_the_decoder_begins_with_the_last_known_rows_and_zeros(window: int, start: int) -> None:
    encoder, source = make(start=start), rows(window)
    fed = inputs_of(encoder.decoder_embed.value)
    encoder(source)
    known = min(window, start)
    torch.testing.assert_close(fed[0][:, :, :known].transpose(1, 2), source.values[:, -known:])
    assert fed[0].shape[2] == known + 24
    assert not fed[0][:, :, known:].any()


def test_known_times_reach_encoder_and_decoder_each_at_its_place() -> None:
    """A change of the time at one position of window and horizon moves the embedding of that position alone."""
    encoder, source = make(), rows()
    found = {name: outputs_of(getattr(encoder, name)) for name in ("embed", "decoder_embed")}
    encoder(source)
    for position, places in ((3, {"embed": 3}), (90, {"embed": 90, "decoder_embed": 42}), (119, {"decoder_embed": 71})):
        time = source.streams["time"]
        values = time.values.clone()
        values[:, position] += 1
        streams = {"time": Sequences(values=values, mask=time.mask)}
        encoder(Sequences(values=source.values, mask=source.mask, streams=streams))
        for name, out in found.items():
            moved = (out[-1] != out[0]).any(-1).any(0).nonzero().flatten().tolist()
            assert moved == ([places[name]] if name in places else []), (position, name)


def test_mixing_reads_heads_and_positions_as_they_lie() -> None:
    for mix, order in ((True, "bhle->bhle"), (False, "bhle->blhe")):
        encoder = make(mix=mix)
        layer = first_layer(encoder.decoder)
        heads, joined = outputs_of(layer.core), inputs_of(layer.out)
        layer._attend(torch.randn(2, 6, 64))
        assert torch.equal(joined[0], torch.einsum(order, heads[0]).reshape(2, 6, 64))
        tower = encoder.encoders[0]
        assert isinstance(tower, Tower)
        assert not first_layer(tower.layers).mix, "the encoder's heads are never mixed"


def first_layer(layers: Any) -> Layer:
    assert isinstance(layers[0], Layer)
    return layers[0]


def inputs_of(module: nn.Module) -> list[Tensor]:
    """A list that fills with the first argument of each call."""
    found: list[Tensor] = []
    module.register_forward_hook(lambda module, given, out: found.append(given[0]))
    return found


def outputs_of(module: nn.Module) -> list[Tensor]:
    """A list that fills with what each call gives."""
    found: list[Tensor] = []
    module.register_forward_hook(lambda module, given, out: found.append(out))
    return found


def test_a_stack_reads_halves_of_the_end() -> None:
    encoder = make(depth=3, stacks=3)
    whole = outputs_of(encoder.embed)
    ends = [(inputs_of(tower), outputs_of(tower)) for tower in encoder.encoders]
    assert encoder(rows(95)).values.shape == (3, 24, 64)
    assert [(given[0].shape[1], out[0].shape[1]) for given, out in ends] == [(95, 24), (47, 24), (23, 23)]
    for (given, _), length in zip(ends, (95, 47, 23), strict=True):
        assert torch.equal(given[0], whole[0][:, -length:])


@pytest.mark.parametrize(
    "on, changes, message",
    [
        (InputSpec(max_length=9, vocab_size=5, target_length=4), {}, "this task has ids"),
        (InputSpec(max_length=9, channels=5), {}, "this task has no rows after the source"),
        (spec(), {"stacks": 3}, "stacks: 3 encoders"),
        (spec(), {"dim": 66}, "heads: dim 66"),
    ],
)
def test_what_cannot_be_is_refused(on: InputSpec, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(on=on, **changes)


@pytest.mark.parametrize(
    "attention, first, rms",
    [
        ("prob", [-0.50906, -0.31092, 0.08759, -0.50056, -0.31183, 0.10044], 0.4262),
        ("full", [-0.45790, -0.30549, -0.06129, -0.42135, -0.30434, -0.08285], 0.4122),
    ],
)
def test_the_whole_gives_the_numbers_of_the_official_code(attention: str, first: list[float], rms: float) -> None:
    """Parameters and inputs by a formula; the official code, with the same ones and our sample, gave these numbers."""
    changes = {"dim": 8, "heads": 2, "hidden": 16, "start": 10, "factor": 2, "attention": attention}
    encoder = make(on=spec(40, 8), **changes)
    for part in encoder.modules():
        if isinstance(part, ProbSparse):  # the sample that the official code was given
            drawn = np.random.default_rng(0).random(part.draws_LU.shape, dtype=np.float32)
            part.draws_LU = torch.from_numpy(drawn)
    begin = 0
    with torch.no_grad():
        for parameter in encoder.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.5
            parameter.copy_(scale * wave(*parameter.shape, begin=begin))
            begin += parameter.numel()
        values, time = wave(2, 40, 7, begin=3), wave(2, 48, HOUR, begin=700)
        streams = {"time": Sequences(values=time, mask=torch.ones(2, 48, dtype=torch.bool))}
        states = encoder(Sequences(values=values, mask=torch.ones(2, 40, dtype=torch.bool), streams=streams)).values
    assert states[1, :2, :3].flatten().tolist() == pytest.approx(first, abs=2e-5)
    assert float(states.square().mean().sqrt()) == pytest.approx(rms, abs=2e-5)


def wave(*shape: int, begin: int) -> Tensor:
    """sin(i^2 / 100) of a running index i."""
    i = torch.arange(begin, begin + math.prod(shape), dtype=torch.float64)
    return torch.sin(i.square() / 100).reshape(shape).float()


@pytest.mark.parametrize("attention, rates", [("prob", [0.0, 0.0, 0.0, 0.25]), ("full", [0.25] * 4)])
def test_what_is_dropped_in_training(attention: str, rates: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings, what a block adds, the feed-forward's hidden numbers, and the weights of full attention alone."""
    encoder = make(dropout=0.25, attention=attention).train()
    dropped: list[tuple[int, ...]] = []
    weights: list[float] = []
    for part in encoder.modules():
        if isinstance(part, nn.Dropout):
            assert part.p == 0.25
            part.register_forward_hook(lambda module, given, out: dropped.append(tuple(out.shape[1:])))
    attend = torch.nn.functional.scaled_dot_product_attention

    def seen(*given: Any, **more: Any) -> Tensor:
        weights.append(more.get("dropout_p", 0.0))
        return attend(*given, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", seen)
    encoder(rows(number=2))
    layers = [[(length, 64), (length, 128), (length, 64)] for length in (96, 48)]
    assert dropped == [(96, 64), *layers[0], *layers[1], (72, 64), (72, 64), (72, 64), (72, 128), (72, 64)]
    assert weights == rates  # two layers of the encoder, the decoder's own, the cross-attention


@pytest.mark.parametrize(
    "name, sizes",
    [
        ("informer", {"dim": 64, "heads": 4, "hidden": 128}),
        ("published/informer", {"dim": 512, "heads": 8, "hidden": 2048}),
    ],
)
def test_presets_are_set_as_published(name: str, sizes: dict[str, int]) -> None:
    """What no count of parameters tells; lengths of the decoder's beginning differ by task there."""
    node = compose_node("encoder", name)
    published: dict[str, Any] = {
        "depth": 2,
        "decoder_depth": 1,
        "dropout": 0.05,
        "factor": 5,
        "attention": "prob",
        "stacks": 1,
    }
    published |= {"distil": True, "mix": True, "lazy": "sum", "start": 48, **sizes}
    assert {key: value for key, value in node.items() if key != "_target_"} == published


def test_the_convolution_of_values_starts_as_published() -> None:
    """Kaiming's normal weights by fan-in, for a leaky ReLU of slope 0.01."""
    weight = make(dim=512, heads=8).embed.value.weight
    assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / (1 + 0.01**2) / (7 * 3)), rel=0.05)
