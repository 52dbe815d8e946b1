"""Mu (Return of the Encoder) against the logits of its official module, and its sizes.

The reference logits were computed with the official code (microsoft/encoder-decoder-slm@b306bae, float32, CPU), its
tensors filled by a formula in the order of `named_parameters`. There query head h reads keys of head h mod G, in the
house's attention h div (H / G): so queries and the columns of the way out are put in another order, and nothing else.
"""
# B rows, L source positions, T target positions, D width

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from encoders.base import Decoder, InputSpec, Sequences
from encoders.blocks import masks
from encoders.blocks.layer import Layer
from encoders.blocks.masks import Sight
from tests.encoders.transformers_models import preset

HEADS, GROUPS, WIDTH = 6, 3, 4
SMALL = {"dim": 32, "hidden": 64, "dropout": 0.0, "layer": {"attention": {"head_dim": WIDTH, "dropout": 0.0}}}
SOURCE = torch.tensor([[5, 6, 7, 8, 9, 0], [3, 4, 0, 0, 0, 0]])
TARGET = torch.tensor([[1, 10, 11], [1, 12, 0]])


def sequences(ids_BL: Tensor) -> Sequences:
    return Sequences(values=ids_BL, mask=ids_BL != 0)


class Filling:
    """Tensors in the official order, each 0.5 sin(0.37 i + k) over its flattened index."""

    def __init__(self) -> None:
        self.number = 0

    def next(self, *shape: int) -> Tensor:
        index = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
        self.number += 1
        return (0.5 * torch.sin(0.37 * index + self.number - 1)).float().view(shape)

    def attention(self, dim: int) -> dict[str, Tensor]:
        width, few = HEADS * WIDTH, GROUPS * WIDTH
        shapes = {"q": (width, dim), "k": (few, dim), "v": (few, dim), "out": (dim, width)}
        made = {}
        for name, shape in shapes.items():
            made[f"{name}.w"], made[f"{name}.b"] = self.next(*shape), self.next(shape[0])
        order = torch.tensor([g + GROUPS * r for g in range(GROUPS) for r in range(HEADS // GROUPS)])
        rows = (order.unsqueeze(1) * WIDTH + torch.arange(WIDTH)).flatten()
        made["q.w"], made["q.b"], made["out.w"] = made["q.w"][rows], made["q.b"][rows], made["out.w"][:, rows]
        return made


def put(linear: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)


@torch.no_grad()
def filled() -> Decoder:
    """Two layers that read, one that writes, as the reference."""
    spec = InputSpec(max_length=8, vocab_size=50, target_length=4)
    encoder = preset("return_of_encoder", spec, depth=2, decoder_depth=1, **SMALL)
    assert isinstance(encoder, Decoder)
    assert sum(p.numel() for p in encoder.parameters()) == 24_000
    filling = Filling()
    assert encoder.token_embedding is not None
    encoder.token_embedding.copy_(filling.next(50, 32))
    for stack in (encoder.get_submodule("encoder"), encoder.get_submodule("decoder")):
        for layer in layers(stack):
            crosses = [] if layer.cross is None else [layer.cross_residual]
            for residual in (layer.attention_residual, *crosses, layer.feed_forward_residual):
                residual.norm.weight.copy_(filling.next(32))
            own = filling.attention(32)
            put(
                layer.attention.qkv,
                torch.cat([own["q.w"], own["k.w"], own["v.w"]]),
                torch.cat([own["q.b"], own["k.b"], own["v.b"]]),
            )
            put(layer.attention.out, own["out.w"], own["out.b"])
            if layer.cross is not None:
                other = filling.attention(32)
                put(layer.cross.query, other["q.w"], other["q.b"])
                put(
                    layer.cross.key_value,
                    torch.cat([other["k.w"], other["v.w"]]),
                    torch.cat([other["k.b"], other["v.b"]]),
                )
                put(layer.cross.out, other["out.w"], other["out.b"])
            put(layer.feed_forward.up, filling.next(64, 32), filling.next(64))
            put(layer.feed_forward.down, filling.next(32, 64), filling.next(32))
        stack.get_parameter("norm.weight").copy_(filling.next(32))
    return encoder


def layers(stack: nn.Module) -> Iterator[Layer]:
    for layer in stack.get_submodule("layers").children():
        assert isinstance(layer, Layer)
        yield layer


def logits(decoder: Decoder, source_BL: Tensor, *pieces: Tensor) -> Tensor:
    states, made = decoder.prefill(sequences(source_BL)), []
    for piece in pieces:
        states = decoder.decode(sequences(piece), states)
        made.append(states.values)
    assert decoder.token_embedding is not None
    return torch.cat(made, 1) @ decoder.token_embedding.T


@torch.no_grad()
def test_logits_are_the_official_ones() -> None:
    found_BTV = logits(filled(), SOURCE, TARGET)
    first = torch.tensor([-0.0887, -0.2792, -0.3288, -0.2123, 0.0113])
    last = torch.tensor([-0.0810, -0.2660, -0.3167, -0.2076, 0.0064])
    assert_close(found_BTV[0, 0, :5], first, atol=6e-5, rtol=0)
    assert_close(found_BTV[0, 2, :5], last, atol=6e-5, rtol=0)
    # at its one padded position the reference sees what is real before it, and here a position also sees itself
    as_there = Sight((torch.ones(3, 3, dtype=torch.bool).tril() & (TARGET != 0)[:, None])[:, None], False)
    ours = masks.sight

    def sight(seen: Tensor | None, bias: Tensor | None, *, causal: bool, queries: int) -> Sight:
        return as_there if causal else ours(seen, bias, causal=causal, queries=queries)

    with mock.patch("encoders.blocks.stack.sight", sight):
        every_BTV = logits(filled(), SOURCE, TARGET)
    assert_close(every_BTV[TARGET != 0], found_BTV[TARGET != 0])
    assert float(every_BTV.sum()) == pytest.approx(-2.4427, abs=6e-5)
    assert float(every_BTV.std()) == pytest.approx(0.2262, abs=6e-5)


@torch.no_grad()
def test_what_short_sources_and_small_numbers_do_not_tell() -> None:
    """The wavelengths, and GELU by tanh: the reference's logits are the same within its digits with others."""
    decoder = filled()
    for stack in (decoder.get_submodule("encoder"), decoder.get_submodule("decoder")):
        cos, sin = stack.position.rotation(torch.tensor([[3]]))  # type: ignore[operator]
        angle = 3 / 10000 ** torch.tensor([0.0, 0.5])
        assert_close(torch.stack([cos, sin]).view(2, 2), torch.stack([angle.cos(), angle.sin()]))
        for layer in layers(stack):
            x_D, feed_forward = torch.linspace(-3, 3, 32), layer.feed_forward
            hidden = feed_forward.up(x_D)
            assert_close(feed_forward(x_D), feed_forward.down(F.gelu(hidden, approximate="tanh")))
            assert (F.gelu(hidden) - F.gelu(hidden, approximate="tanh")).abs().max() > 1e-4


@torch.no_grad()
def test_padding_and_pieces_change_nothing() -> None:
    decoder = filled()
    at_once = logits(decoder, SOURCE, TARGET)[TARGET != 0]
    for source in (torch.cat([SOURCE, SOURCE[:, :2] * 0], 1), SOURCE[:, :5]):
        assert_close(logits(decoder, source, TARGET)[TARGET != 0], at_once, atol=1e-6, rtol=0)
    in_steps = logits(decoder, SOURCE, TARGET[:, :1], TARGET[:, 1:2], TARGET[:, 2:])
    assert_close(in_steps[TARGET != 0], at_once, atol=1e-6, rtol=0)
    later = TARGET.clone()
    later[0, 2] = 30
    assert_close(logits(decoder, SOURCE, later)[:, :2], logits(decoder, SOURCE, TARGET)[:, :2], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "name, parameters",
    [("published/return_of_encoder", 332_042_240), ("published/return_of_encoder_causal", 332_018_816)],
)
def test_published_parameters(name: str, parameters: int) -> None:
    with torch.device("meta"):
        encoder = preset(name, InputSpec(max_length=1024, vocab_size=32128, target_length=256))
    attention = 2 * (1024 * 384 + 1024 * 192) + 384 + 2 * 192 + 1024

    def layer(hidden: int) -> int:
        return attention + 1024 * hidden * 2 + hidden + 1024 + 2 * 1024

    if name.endswith("causal"):
        expected = 30 * layer(4288) + 1024
    else:
        expected = 30 * layer(4096) + 10 * (attention + 1024) + 2 * 1024
    assert sum(p.numel() for p in encoder.parameters()) == 32128 * 1024 + expected == parameters


@pytest.mark.parametrize(
    "name", ["return_of_encoder", "published/return_of_encoder", "published/return_of_encoder_causal"]
)
def test_what_no_number_of_states_tells(name: str) -> None:
    """Mu's epsilon; dropout of attention's weights and behind each block, none between the maps of the feed-forward."""
    with torch.device("meta"):
        encoder = preset(name, InputSpec(max_length=8, vocab_size=50, target_length=4))
    layers = [module for module in encoder.modules() if isinstance(module, Layer)]
    assert {m.eps for m in encoder.modules() if isinstance(m, nn.RMSNorm)} == {1e-6}
    assert not any(isinstance(m, nn.LayerNorm) for m in encoder.modules())
    for layer in layers:
        crosses = [] if layer.cross is None else [layer.cross]
        assert {attention.dropout for attention in (layer.attention, *crosses)} == {0.1}
        assert {m.p for n, m in layer.named_modules() if n.endswith("residual.dropout")} == {0.1}
        assert layer.feed_forward.dropout.p == 0.0


def test_both_small_ones_have_as_many_parameters_within_a_thousandth() -> None:
    spec = InputSpec(max_length=64, vocab_size=50, target_length=4)
    one, other = (
        sum(p.numel() for p in preset(name, spec).parameters())
        for name in ("return_of_encoder", "return_of_encoder_causal")
    )
    assert abs(one - other) < 0.001 * one
