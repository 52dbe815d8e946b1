"""The streaming Conformer: masks, sizes and chunks of the sheet, caches against the whole pass, a network by loops.

Once, outside of this repository, NeMo's ConformerEncoder (NVIDIA/NeMo at 8cfedd7, what it imports stood in for; layer
norm, causal convolutions, no dropout) ran beside ours with its weights, u, v and norms drawn, on 4 rows of 33 to 115
frames of 80 bands: chunked [8, 1], [8, 3], [6, 0] and regular [8, 3] at factor 4, chunked [8, 3] at factor 8, and full
attention. Lengths were equal, and states equal to the bit (float32, their deviation is 1.0 to 1.1).
"""
# B batch, L frames, P states, D width

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.base import InputSpec, Sequences
from encoders.systems.conformer_parts import visible
from encoders.systems.streaming_conformer import StreamingConformer
from seqbench.build import build
from seqbench.composition.nodes import compose_node
from seqbench.costs.operations import counting


def make(name: str = "streaming_conformer", bands: int = 80, length: int = 200, **changes: Any) -> StreamingConformer:
    spec = InputSpec(max_length=length, channels=bands)
    encoder = build({**compose_node("encoder", name), **changes}, "encoder", ["encoders"], spec=spec)
    assert isinstance(encoder, StreamingConformer)
    for key, parameter in encoder.named_parameters():
        if key.endswith(("attention.u", "attention.v")):  # zeros at the start, as in NeMo
            torch.nn.init.normal_(parameter, std=0.3)
    return encoder.eval()


def rows(*lengths: int, bands: int = 80) -> Sequences:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    values = torch.randn(*mask.shape, bands)
    return Sequences(values=torch.where(mask[..., None], values, 50 * values), mask=mask)


def test_visible_keys_of_the_sheet() -> None:
    chunked, regular = (visible(16, style=style, left=8, look_ahead=3) for style in ("chunked", "regular"))
    assert chunked.sum(1).tolist() == [4] * 4 + [8] * 4 + [12] * 8
    assert chunked.int().argmax(1).tolist() == [0] * 12 + [4] * 4
    assert regular.sum(1).tolist() == [*range(4, 12), 12, 12, 12, 12, 12, 11, 10, 9]
    by_formula = [[0 <= i // 4 - j // 4 <= 2 for j in range(16)] for i in range(16)]
    assert chunked.tolist() == by_formula
    assert regular.tolist() == [[i - 8 <= j <= i + 3 for j in range(16)] for i in range(16)]


@pytest.mark.parametrize(
    "changes, subsampling, whole",
    [
        ({"factor": 4}, None, 448_480),
        ({"factor": 8}, None, 429_376),
        ({"dim": 144, "hidden": 576, "depth": 8, "channels": 64}, None, 4_227_664),
        ({"dim": 96, "hidden": 384, "depth": 6, "channels": 48}, None, 1_450_896),
        ({"name": "published/streaming_conformer"}, 1_581_568, 108_893_184),
    ],
)
def test_parameters_are_the_sheets(changes: dict[str, Any], subsampling: int | None, whole: int) -> None:
    with torch.device("meta"):
        encoder = make(**changes)
    assert sum(p.numel() for p in encoder.parameters()) == whole
    assert subsampling in (None, sum(p.numel() for p in encoder.subsample.parameters()))


@pytest.mark.parametrize(
    "left, look_ahead, factor",
    [(8, 1, 4), (8, 3, 4), (6, 0, 4), (8, 3, 8), (6, 0, 8), (0, 2, 4), (4, 1, 2), (14, 6, 2)],
)
def test_chunks_with_caches_are_the_whole_pass(left: int, look_ahead: int, factor: int) -> None:
    """Rows of all lengths in one batch, one that ends with a chunk, ones that end within it and in the first."""
    whole = make(left=left, look_aheads=[look_ahead], factor=factor)
    cached = make(left=left, look_aheads=[look_ahead], factor=factor, inference="cached")
    cached.load_state_dict(whole.state_dict())
    edge = 1 + factor * (2 * look_ahead + 1)
    source = rows(111, edge, edge + 1, edge - 1, 2 * factor, 1, 64)
    expected, found = whole(source), cached(source)
    assert torch.equal(found.mask, expected.mask)
    assert expected.values.std() > 0.5
    torch.testing.assert_close(found.values[found.mask], expected.values[expected.mask], atol=1e-5, rtol=0)


@pytest.mark.parametrize("style, inference", [("chunked", "cached"), ("full", "buffered")])
def test_rows_shorter_than_what_is_looked_at(style: str, inference: str) -> None:
    """A cache and a window reach further than the longest source: distances are there for them, too."""
    changes: dict[str, Any] = {"style": style, "left": 16, "look_aheads": [7], "length": 9}
    whole, parts = make(**changes), make(**changes, inference=inference)
    parts.load_state_dict(whole.state_dict())
    source = rows(9, 5)
    expected, found = whole(source), parts(source)
    assert found.mask.sum(1).tolist() == [3, 2]
    torch.testing.assert_close(found.values[found.mask], expected.values[expected.mask], atol=1e-5, rtol=0)


def test_causal_is_what_never_looks_ahead() -> None:
    for look_aheads, look_ahead, causal in (([0], None, True), ([0], 1, False), ([1], 0, False), ([0, 1], 0, False)):
        assert make(look_aheads=look_aheads, look_ahead=look_ahead).causal is causal
        assert make(style="regular", look_aheads=look_aheads, look_ahead=look_ahead).causal is causal
    assert make(style="full", look_aheads=[0]).causal is False


def test_published_values_that_no_count_shows() -> None:
    published = compose_node("encoder", "published/streaming_conformer")
    sizes = {"heads": 8, "kernel": 9, "left": 70, "dropout": 0.1}
    choices = {"style": "chunked", "look_aheads": [13, 6, 1, 0], "look_ahead": None, "inference": "whole"}
    assert {key: published[key] for key in (*sizes, *choices)} == sizes | choices
    assert [R * published["factor"] * 10 for R in published["look_aheads"]] == [1040, 480, 80, 0]  # ms


def test_a_stream_alone_is_the_stream_in_a_batch() -> None:
    for inference, style in (("cached", "chunked"), ("buffered", "full")):
        encoder = make(left=8, look_aheads=[3], style=style, inference=inference)
        source = rows(90, 41, 7)
        states = encoder(source)
        for row, length in enumerate((90, 41, 7)):
            alone = encoder(Sequences(values=source.values[row, None, :length], mask=source.mask[row, None, :length]))
            number = alone.mask.shape[1]
            assert states.mask[row].sum() == number == encoder.num_states(length)
            torch.testing.assert_close(states.values[row, :number], alone.values[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "left, look_ahead, factor, sizes", [(8, 3, 4, (13, 16, 5)), (70, 13, 8, (105, 112, 9)), (6, 0, 4, (1, 4, 5))]
)
def test_steps_are_of_the_sheets_sizes_and_constant_cost(
    left: int, look_ahead: int, factor: int, sizes: tuple[int, int, int]
) -> None:
    encoder = make(left=left, look_aheads=[look_ahead], factor=factor, depth=2, dim=32, hidden=64, length=1000)
    first, later, kept = sizes
    assert encoder.frames(look_ahead, first=True) == first
    assert encoder.frames(look_ahead, first=False) == later
    cache, costs = None, []
    for i in range(4):
        with counting() as counted:
            states = encoder.step(rows(first if i == 0 else later), cache, look_ahead)
        cache = states.cache
        costs.append(counted.get_total_flops())
        assert cache is not None
        assert states.values.shape == (1, look_ahead + 1, 32)
        assert [tuple(part.shape) for part in cache] == [
            *((1, kept, 80), (1, kept), (1, 2, left, 32), (1, left), (1, 2, 8, 32))
        ]
    assert costs[1] == costs[2] == costs[3] > 0


def test_a_frame_changes_no_chunk_that_ends_before_it() -> None:
    encoder, source = make(left=8, look_aheads=[3]), rows(120)
    for frame in (12, 13, 28, 29, 60, 100):
        values = source.values.clone()
        values[0, frame] += 1.0
        moved = (encoder(source).values - encoder(Sequences(values=values, mask=source.mask)).values)[0].abs().amax(1)
        places = (moved > 1e-6).nonzero().squeeze(1).tolist()
        own = -(-frame // 4)  # the first state that the frame is a part of
        assert places[0] == own // 4 * 4
        assert set(range(own // 4 * 4, own // 4 * 4 + 4)) <= set(places)


@pytest.mark.parametrize("style, reach", [("regular", 2 * 4), ("chunked", 2), ("full", 30)])
def test_look_ahead_adds_up_over_layers_but_in_chunks(style: str, reach: int) -> None:
    """How far ahead the states look at most, by gradients, four layers with R = 2."""
    encoder, source = make(style=style, left=6, look_aheads=[2]), rows(121)
    values = source.values.clone().requires_grad_()
    states = encoder(Sequences(values=values, mask=source.mask)).values[0]
    ahead = []
    for i in (9, 10, 11):
        (gradient,) = torch.autograd.grad(states[i, :5].sum(), values, retain_graph=True)
        ahead.append(int(gradient[0].abs().amax(1).nonzero().max()) // 4 - i)
    assert max(ahead) == (reach if style != "full" else 30 - 9)
    assert encoder.causal is False
    assert make(style="chunked", look_aheads=[0]).causal is True


def test_buffered_windows_are_sources_of_their_own() -> None:
    """Against a loop that cuts each window out and keeps its chunk."""
    encoder = make(style="full", left=6, look_aheads=[3], inference="buffered")
    whole = make(style="full", left=6, look_aheads=[3])
    whole.load_state_dict(encoder.state_dict())
    source = rows(90)
    number, chunk, right, pieces = encoder.num_states(90), 2, 2, []
    for kept in range(0, number, chunk):
        start, end = max(0, kept - 6), kept + chunk + right
        part = slice(4 * start, min(90, 4 * (end - 1) + 1))
        window = whole(Sequences(values=source.values[:, part], mask=source.mask[:, part])).values
        pieces.append(window[0, kept - start : kept - start + chunk])
    expected = torch.cat(pieces)[:number]
    torch.testing.assert_close(encoder(source).values[0], expected, atol=1e-5, rtol=1e-5)
    assert (expected - whole(source).values[0]).abs().max() > 0.01


def test_buffered_costs_what_its_windows_hold() -> None:
    """About (chunk + context) / chunk times the cached operations."""
    costs = {}
    for inference, style in (("cached", "chunked"), ("buffered", "full")):
        encoder = make(style=style, inference=inference, left=16, look_aheads=[7], length=400)
        with counting() as counted:
            encoder(rows(381))
        costs[inference] = counted.get_total_flops()
    assert 4.5 < costs["buffered"] / costs["cached"] < 6.5  # (16 + 8) / 4, less at the beginning


def by_loops(encoder: Any, x_LQ: Tensor, seen_PP: Tensor) -> Any:
    """Section 2 of the sheet for one row, attention pair by pair; (P, D)."""
    w = {name: value.double() for name, value in encoder.state_dict().items()}

    def linear(name: str, x: Tensor) -> Any:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()).double())

    def norm(name: str, x: Tensor) -> Any:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def swish(x: Tensor) -> Tensor:
        return x / (1 + torch.exp(-x))

    def feed(name: str, x: Tensor) -> Any:
        return linear(f"{name}.down", swish(linear(f"{name}.up", x)))

    x = x_LQ.double()[None, None]
    edge = (2, 1, 2, 1)
    x = F.conv2d(F.pad(x, edge), w["subsample.first.weight"], w["subsample.first.bias"], stride=2).clamp_min(0)
    name = "subsample.further.0"
    x = F.conv2d(F.pad(x, edge), w[f"{name}.0.weight"], w[f"{name}.0.bias"], stride=2, groups=x.shape[1])
    x = F.conv2d(x, w[f"{name}.1.weight"], w[f"{name}.1.bias"]).clamp_min(0)
    x = linear("subsample.out", torch.stack([x[0, :, t].reshape(-1) for t in range(x.shape[2])]))
    x = x * math.sqrt(encoder.dim)
    heads, size = encoder.blocks[0].attention.heads, encoder.dim // encoder.blocks[0].attention.heads
    for i in range(len(encoder.blocks)):
        at = f"blocks.{i}"
        x = x + feed(f"{at}.first", norm(f"{at}.norms.0", x)) / 2
        h = norm(f"{at}.norms.1", x)
        q, k, v = (linear(f"{at}.attention.{part}", h) for part in ("query", "key", "value"))
        out = torch.zeros_like(q)
        for a in range(heads):
            part = slice(a * size, (a + 1) * size)
            for t in range(len(x)):
                scores = torch.full((len(x),), -torch.inf).double()
                for s in seen_PP[t].nonzero().flatten().tolist():
                    r = [
                        (math.sin if d % 2 == 0 else math.cos)((t - s) / 10000 ** (d // 2 * 2 / encoder.dim))
                        for d in range(encoder.dim)
                    ]
                    p = (w[f"{at}.attention.distance.weight"] @ torch.tensor(r).double())[part]
                    u, bias = w[f"{at}.attention.u"][a], w[f"{at}.attention.v"][a]
                    scores[s] = ((q[t, part] + u) @ k[s, part] + (q[t, part] + bias) @ p) / math.sqrt(size)
                out[t, part] = scores.softmax(0) @ v[:, part]
        x = x + linear(f"{at}.attention.out", out)
        h = linear(f"{at}.convolution.up", norm(f"{at}.norms.2", x))
        h = h[:, : encoder.dim] * torch.sigmoid(h[:, encoder.dim :])
        kernel, shift = w[f"{at}.convolution.depthwise.weight"][:, 0], w[f"{at}.convolution.depthwise.bias"]
        y = torch.stack([
            sum((kernel[:, 8 - back] * h[t - back] for back in range(min(t, 8) + 1)), shift) for t in range(len(x))
        ])  # fmt: skip
        x = x + linear(f"{at}.convolution.down", swish(norm(f"{at}.convolution.norm", y)))
        x = x + feed(f"{at}.second", norm(f"{at}.norms.3", x)) / 2
        x = norm(f"{at}.norms.4", x)
    return x


@pytest.mark.parametrize("style", ["chunked", "regular", "full"])
def test_the_network_is_the_sheets(style: str) -> None:
    encoder = make(style=style, left=4, look_aheads=[1], depth=2, dim=16, heads=2, hidden=32, channels=4, bands=10)
    source = rows(46, bands=10)
    seen = visible(encoder.num_states(46), style=style, left=4, look_ahead=1)
    expected = by_loops(encoder, source.values[0], seen).float()
    torch.testing.assert_close(encoder(source).values[0], expected, atol=1e-4, rtol=1e-4)


def test_training_draws_a_look_ahead_for_each_batch() -> None:
    """Each of the list, by the global generator, which the run seeds; evaluation has the first, or what it is told."""
    encoder, source = make(left=8, look_aheads=[7, 1, 0], dropout=0.0, length=60), rows(60)
    whole = [encoder.whole(source, R).values for R in (7, 1, 0)]
    assert torch.equal(encoder(source).values, whole[0])
    told = make(left=8, look_aheads=[7, 1, 0], look_ahead=1)
    told.load_state_dict(encoder.state_dict())
    assert torch.equal(told(source).values, whole[1])

    def drawn() -> list[int]:
        torch.manual_seed(5)
        found = []
        for _ in range(40):
            values = encoder.train()(source).values
            found.append(next(i for i, each in enumerate(whole) if torch.equal(values, each)))
        return found

    assert min(np.bincount(drawn(), minlength=3)) >= 5
    assert drawn() == drawn()


def test_dropout_stands_where_the_class_says_and_u_and_v_begin_at_zero() -> None:
    node = {**compose_node("encoder", "streaming_conformer"), "dropout": 0.5}
    encoder = build(node, "encoder", ["encoders"], spec=InputSpec(max_length=60, channels=80)).train()
    called: list[str] = []
    for name, module in encoder.named_modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    encoder(rows(60))
    for i in range(len(encoder.blocks)):
        assert called.count(f"blocks.{i}.dropout") == 4  # after each part
        for part in ("attention", "first", "second"):
            assert any(name.startswith(f"blocks.{i}.{part}.") for name in called), part
        assert not encoder.blocks[i].attention.u.any()
        assert not encoder.blocks[i].attention.v.any()
    assert called.count("dropout") == 1  # of the input


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"left": 9, "look_aheads": [3]}, "left: 9 states are no whole number of chunks of 4"),
        ({"left": 8, "look_ahead": 2}, "left: 8 states are no whole number of chunks of 3"),
        ({"style": "full", "inference": "cached"}, "inference: cached is for style chunked"),
        ({"style": "chunked", "inference": "buffered"}, "inference: buffered is for style full"),
        (
            {"left": 16, "look_aheads": [7, 2], "look_ahead": 7},
            "left: 16 states are no whole number of chunks of 3 .*; use a multiple of 24",
        ),
        ({"style": "regular", "inference": "cached"}, "inference: cached is for style chunked"),
        ({"look_aheads": []}, "look_aheads: \\[\\]"),
        ({"look_aheads": [-1]}, "look_aheads: \\[-1\\]"),
        ({"heads": 3}, "heads: dim 64 can't be divided by 3 heads; use heads 2"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make(**changes)
