"""Each block against its equation, computed another way."""
# B batch, L positions, T queries, S keys, D width, H heads, G heads of keys and values, E width of a head

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from encoders.base import InputSpec, Sequences
from encoders.blocks.attention import (
    AttentionOptions,
    CrossAttention,
    SelfAttention,
    nearest_divisor,
    rotate,
)
from encoders.blocks.embedding import InputEmbedding
from encoders.blocks.feed_forward import FeedForward, FeedForwardOptions
from encoders.blocks.layer import Layer, LayerOptions
from encoders.blocks.masks import Sight, see_past, see_real, sight
from encoders.blocks.norms import LayerNorm, RMSNorm
from encoders.blocks.positions import (
    ALiBi,
    Learned,
    NoPosition,
    Position,
    PositionModule,
    RelativeBias,
    Rotary,
    Sinusoidal,
    relative_bucket,
)

EVERYTHING = Sight(None, False)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def options(**changes: Any) -> AttentionOptions:
    return AttentionOptions(
        **({"kv_heads": None, "head_dim": None, "bias": True, "scaled": True, "dropout": 0.0} | changes)
    )


def made(position: Position, *, heads: int = 4, length: int = 12, causal: bool = False) -> PositionModule:
    return position.make(dim=4 * heads, heads=heads, head_dim=4, length=length, causal=causal)


def by_loops(q_THE: Tensor, k_SGE: Tensor, v_SGE: Tensor, seen_TS: Tensor, scale: float) -> Tensor:
    """softmax(q k / scale) v, a head and a query at a time: (T, H * E)."""
    q_THE, k_SGE, v_SGE = q_THE.detach(), k_SGE.detach(), v_SGE.detach()
    queries, heads, width = q_THE.shape
    shared = heads // k_SGE.shape[1]
    out_THE = torch.zeros_like(q_THE)
    for h in range(heads):
        for t in range(queries):
            keys = [s for s in range(len(k_SGE)) if seen_TS[t, s]]
            scores = [math.exp(float(q_THE[t, h] @ k_SGE[s, h // shared]) / scale) for s in keys]
            for s, score in zip(keys, scores, strict=True):
                out_THE[t, h] += score / sum(scores) * v_SGE[s, h // shared]
    return out_THE.reshape(queries, heads * width)


def test_streams_are_added_by_tables_and_maps_and_no_further_than_the_source() -> None:
    streams = {"type": InputSpec(max_length=5, vocab_size=3), "time": InputSpec(max_length=9, channels=2)}
    spec = InputSpec(max_length=5, channels=4, streams=streams)
    embed = InputEmbedding(dim=6, patch=1, spec=spec)
    values_BLC, time_BPS = torch.randn(2, 5, 4), torch.randn(2, 9, 2)
    type_BL, mask_BL = torch.randint(3, (2, 5)), torch.ones(2, 5, dtype=torch.bool)
    beside = {
        "type": Sequences(values=type_BL, mask=mask_BL),
        "time": Sequences(values=time_BPS, mask=torch.ones(2, 9, dtype=torch.bool)),
    }
    x_BLD, _ = embed(Sequences(values=values_BLC, mask=mask_BL, streams=beside))
    table, matrix = (embed.streams[f"stream_{name}"].weight for name in ("type", "time"))
    assert isinstance(table, Tensor)
    assert isinstance(matrix, Tensor)
    assert embed.linear is not None
    assert_close(x_BLD, embed.linear(values_BLC) + table[type_BL] + time_BPS[:, :5] @ matrix.T)
    with pytest.raises(ValueError, match="patch: 2 positions are merged, so the stream type can't be added; use 1"):
        InputEmbedding(dim=6, patch=2, spec=spec)


@pytest.mark.parametrize("kv_heads", [None, 2, 1])
@pytest.mark.parametrize("scaled", [True, False])
def test_self_attention_is_its_equation(kv_heads: int | None, scaled: bool) -> None:
    attention = SelfAttention(dim=12, heads=4, options=options(kv_heads=kv_heads, head_dim=5, scaled=scaled))
    x_BTD = torch.randn(2, 6, 12)
    groups = kv_heads or 4
    mask_BL = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    out_BTD, _ = attention(x_BTD, Sight(see_real(mask_BL), False), None, None)
    for row in range(2):
        parts: list[Tensor] = list(torch.split(attention.qkv(x_BTD[row]), [20, 5 * groups, 5 * groups], dim=-1))
        q, k, v = parts
        seen_TS = mask_BL[row].expand(6, 6)
        scale = math.sqrt(5) if scaled else 1.0
        expected = by_loops(q.view(6, 4, 5), k.view(6, groups, 5), v.view(6, groups, 5), seen_TS, scale)
        assert_close(out_BTD[row], attention.out(expected), atol=1e-5, rtol=1e-5)


def test_cross_attention_is_its_equation() -> None:
    attention = CrossAttention(dim=12, heads=4, options=options(kv_heads=2))
    x_BTD, memory_BSD = torch.randn(1, 3, 12), torch.randn(1, 5, 12)
    out_BTD = attention(x_BTD, EVERYTHING, attention.project(memory_BSD))
    parts: list[Tensor] = list(torch.chunk(attention.key_value(memory_BSD[0]), 2, dim=-1))
    k, v = parts
    q_THE = attention.query(x_BTD[0]).view(3, 4, 3)
    expected = by_loops(q_THE, k.view(5, 2, 3), v.view(5, 2, 3), torch.ones(3, 5), math.sqrt(3))
    assert_close(out_BTD[0], attention.out(expected), atol=1e-5, rtol=1e-5)


def test_attention_weights_are_dropped_in_training_alone() -> None:
    attention = SelfAttention(dim=8, heads=2, options=options(dropout=0.5))
    x_BTD = torch.randn(1, 6, 8)

    def run() -> Tensor:
        out_BTD: Tensor = attention(x_BTD, EVERYTHING, None, None)[0]
        return out_BTD

    assert not torch.equal(run(), run())
    attention.eval()
    assert torch.equal(run(), run())


@pytest.mark.parametrize(
    "heads, changes, message",
    [
        (5, {}, r"^heads: dim 128 can't be divided by 5 heads; use heads 4, or dim 130$"),
        (4, {"kv_heads": 3}, r"^layer\.attention\.kv_heads: 4 heads can't share 3 of keys and values; use 2$"),
        (4, {"kv_heads": 8}, r"^layer\.attention\.kv_heads: 4 heads can't share 8 of keys and values; use 4$"),
    ],
)
def test_impossible_heads_are_refused_with_the_nearest(heads: int, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelfAttention(dim=128, heads=heads, options=options(**changes))


def test_nearest_divisor() -> None:
    assert [nearest_divisor(12, wish) for wish in (1, 5, 7, 9, 100)] == [1, 4, 6, 6, 12]


# -- masks ---------------------------------------------------------------------------------------------------------
def test_nothing_hidden_needs_no_mask() -> None:
    assert see_real(torch.ones(2, 3, dtype=torch.bool)) is None


def test_an_empty_row_sees_its_first_position_and_no_other_row_more() -> None:
    mask_BS = torch.tensor([[True, True, False], [False, False, False]])
    seen = see_real(mask_BS)
    assert seen is not None
    assert seen[:, 0, 0].tolist() == [[True, True, False], [True, False, False]]
    assert mask_BS.sum() == 2  # the contract's mask is not written to


def test_the_past_is_what_is_real_before_and_oneself() -> None:
    mask_BS = torch.rand(4, 7) > 0.4
    seen = see_past(mask_BS, 3)
    for row in range(4):
        for t, at in enumerate(range(4, 7)):
            expected = [s == at or (s < at and bool(mask_BS[row, s])) for s in range(7)]
            assert seen[row, 0, t].tolist() == expected


def test_sight_joins_order_and_bias() -> None:
    bias = torch.randn(1, 2, 3, 3)
    view = sight(None, bias, causal=True, queries=3)
    assert not view.causal
    assert view.mask is not None
    past = torch.ones(3, 3).tril().bool()
    assert torch.equal(view.mask[..., past], bias[..., past])
    assert bool((view.mask[..., ~past] == -math.inf).all())
    assert sight(None, None, causal=True, queries=3) == Sight(None, True)


# -- positions -----------------------------------------------------------------------------------------------------
def test_learned_positions_are_rows_of_a_table() -> None:
    module = made(Learned())
    x_BLD, positions_BL = torch.randn(2, 3, 16), torch.tensor([[0, 1, 2], [7, 8, 11]])
    table_LD = module.get_parameter("table.weight")
    assert table_LD.shape == (12, 16)
    assert_close(module.add(x_BLD, positions_BL) - x_BLD, table_LD[positions_BL], atol=1e-6, rtol=1e-6)


def test_sinusoids_are_the_formula() -> None:
    added_LD = made(Sinusoidal(base=10000.0)).add(torch.zeros(1, 1, 16), torch.arange(12)[None])[0]
    for p in range(12):
        for i in range(8):
            angle = p / 10000 ** (2 * i / 16)
            expected = torch.tensor([math.sin(angle), math.cos(angle)])
            assert_close(added_LD[p, 2 * i : 2 * i + 2], expected, atol=1e-6, rtol=1e-6)


def test_rotation_is_a_product_of_complex_numbers() -> None:
    module = Rotary(base=100.0).make(dim=18, heads=3, head_dim=6, length=12, causal=True)
    x_BLNE, positions_BL = torch.randn(2, 4, 3, 6), torch.tensor([[0, 1, 2, 3], [4, 8, 10, 11]])
    rotation = module.rotation(positions_BL)
    assert rotation is not None
    turned = rotate(x_BLNE, rotation)
    frequency = torch.tensor([100.0 ** (-2 * i / 6) for i in range(3)])
    phase = torch.polar(torch.ones(2, 4, 3), positions_BL[..., None] * frequency)
    expected = torch.complex(x_BLNE[..., :3], x_BLNE[..., 3:]) * phase[:, :, None]
    assert_close(turned, torch.cat((expected.real, expected.imag), dim=-1), atol=1e-5, rtol=1e-5)


def test_rotated_scores_depend_on_distance_alone() -> None:
    module = Rotary(base=10000.0).make(dim=8, heads=1, head_dim=8, length=60, causal=True)
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(query: int, key: int) -> float:
        turned = []
        for x, at in ((q, query), (k, key)):
            rotation = module.rotation(torch.tensor([[at]]))
            assert rotation is not None
            turned.append(rotate(x, rotation))
        return float((turned[0] * turned[1]).sum())

    assert score(9, 4) == pytest.approx(score(54, 49), abs=1e-4)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-3)


def test_alibi_is_the_published_slopes_times_the_distance() -> None:
    position = torch.arange(5)[None]
    slopes = {
        8: [2.0**-h for h in range(1, 9)],
        6: [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3],  # the official get_slopes(6)
        1: [2.0**-8],
    }
    for heads, expected in slopes.items():
        bias = made(ALiBi(), heads=heads).bias(position, position)
        assert bias is not None
        assert bias.shape == (1, heads, 5, 5)
        assert_close(-bias[0, :, 4, 3], torch.tensor(expected), atol=1e-7, rtol=1e-6)
        assert_close(bias[0, :, 4, 0], 4 * bias[0, :, 4, 3], atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("buckets, max_distance", [(32, 128), (8, 20)])
def test_relative_buckets_are_t5_s(causal: bool, buckets: int, max_distance: int) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-300, 301)
    theirs: Any = T5Attention._relative_position_bucket
    expected = theirs(distance, bidirectional=not causal, num_buckets=buckets, max_distance=max_distance)
    got = relative_bucket(distance, buckets=buckets, max_distance=max_distance, causal=causal)
    assert torch.equal(got, expected)


def test_relative_bias_is_looked_up_by_distance() -> None:
    module = made(RelativeBias(buckets=8, max_distance=20))
    table = module.get_parameter("table.weight")
    query_BT, key_BS = torch.tensor([[3], [11]]), torch.tensor([[0, 3, 4], [11, 0, 9]])
    bias = module.bias(query_BT, key_BS)
    assert bias is not None
    assert bias.shape == (2, 4, 1, 3)
    # four buckets a direction: distances 0 and 1 have their own; 3 is in bucket 2, all from 7 on in bucket 3
    buckets = [[2, 0, 5], [0, 3, 2]]
    for row in range(2):
        assert torch.equal(bias[row, :, 0].T, table[buckets[row]])


def test_no_position_leaves_everything() -> None:
    module = made(NoPosition())
    x_BLD, position = torch.randn(1, 3, 16), torch.arange(3)[None]
    assert module.add(x_BLD, position) is x_BLD
    assert module.rotation(position) is None
    assert module.bias(position, position) is None


@pytest.mark.parametrize(
    "position, message",
    [
        (
            Rotary(base=10.0),
            r"^position: Rotary turns pairs of channels, so a head must be even; got 3 \(dim 9, heads 3\)",
        ),
        (Sinusoidal(base=10.0), r"^position: Sinusoidal pairs channels, so dim must be even; got 9, use 10$"),
        (RelativeBias(buckets=32, max_distance=8), r"^position\.max_distance: 8 must be beyond the 8 distances"),
    ],
)
def test_impossible_positions_are_refused(position: Position, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        position.make(dim=9, heads=3, head_dim=3, length=4, causal=False)


# -- norms, feed-forward, layer --------------------------------------------------------------------------------------
def test_norms_are_their_formulas() -> None:
    x_LD = torch.randn(5, 7, dtype=torch.float64) * 3 + 2
    centred = x_LD - x_LD.mean(1, keepdim=True)
    layer, rms = LayerNorm(eps=0.1).make(7).double(), RMSNorm(eps=0.1).make(7).double()
    assert_close(layer(x_LD), centred / (centred.square().mean(1, keepdim=True) + 0.1).sqrt())
    assert_close(rms(x_LD), x_LD / (x_LD.square().mean(1, keepdim=True) + 0.1).sqrt())


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "silu"])
def test_feed_forward_is_its_formula(gated: bool, activation: Literal["relu", "gelu", "gelu_tanh", "silu"]) -> None:
    def act(x: Tensor) -> Tensor:
        if activation == "relu":
            return x.clamp_min(0)
        if activation == "silu":
            return x / (1 + torch.exp(-x))
        if activation == "gelu":
            return x * (1 + torch.erf(x / math.sqrt(2))) / 2
        return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2

    choice = FeedForwardOptions(activation=activation, gated=gated, bias=True, dropout=0.0)
    block = FeedForward(dim=4, hidden=6, options=choice).double()
    x_BLD = 3 * torch.randn(2, 3, 4, dtype=torch.float64)
    h = x_BLD @ block.up.weight.T + block.up.bias
    h = act(h[..., :6]) * h[..., 6:] if gated else act(h)
    assert_close(block(x_BLD), h @ block.down.weight.T + block.down.bias)


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_a_layer_is_three_residuals(placement: Literal["pre", "post"]) -> None:
    layer = Layer(
        dim=8,
        heads=2,
        hidden=12,
        dropout=0.0,
        options=LayerOptions(
            placement=placement,
            norm=LayerNorm(eps=1e-5),
            attention=options(),
            feed_forward=FeedForwardOptions(activation="relu", gated=False, bias=True, dropout=0.0),
        ),
        cross=True,
    )
    assert layer.cross is not None
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x, memory = torch.randn(1, 3, 8), layer.cross.project(torch.randn(1, 5, 8))
    got, _ = layer(x, Sight(None, True), None, None, memory, EVERYTHING)
    blocks: list[tuple[Any, Any]] = [
        (layer.attention_residual.norm, lambda y: layer.attention(y, Sight(None, True), None, None)[0]),
        (layer.cross_residual.norm, lambda y: layer.cross(y, EVERYTHING, memory)),
        (layer.feed_forward_residual.norm, layer.feed_forward),
    ]
    for norm, block in blocks:
        x = x + block(norm(x)) if placement == "pre" else norm(x + block(x))
    assert_close(got, x, atol=1e-5, rtol=1e-5)
