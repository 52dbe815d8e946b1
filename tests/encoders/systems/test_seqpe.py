"""SeqPE against the numbers of its official module, equations by hand, and a model without positions.

The reference values (of the reader; of both losses in test_seqpe_losses.py) were computed with the official module
(ghrua/seqpe@4c4b908, float32, no dropout), its tensors filled by a formula; maps within its blocks are (in, out).
"""
# U positions, M digits, D width, H heads

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from encoders.base import Decoder, InputSpec, Sequences, part_losses
from encoders.blocks.attention import AttentionOptions
from encoders.blocks.feed_forward import FeedForwardOptions
from encoders.blocks.layer import Layer, LayerOptions
from encoders.blocks.masks import Sight
from encoders.blocks.norms import LayerNorm
from encoders.systems.seqpe import DigitReader, _Sequential
from encoders.systems.seqpe_losses import contrast_loss, transfer_loss
from seqbench.composition.compose import CONFIGS
from seqbench.composition.nodes import compose_node
from tests.encoders.transformers_models import preset

SPEC = InputSpec(max_length=40, vocab_size=11, target_length=8)
SMALL: dict[str, Any] = {"dim": 16, "depth": 2, "hidden": 32}
REFERENCE = {  # of positions, the first four numbers
    0: (1.2355, 2.1611, -2.9844, 0.9062),
    7: (1.2252, 2.1683, -2.9821, 0.8966),
    42: (1.1738, 2.2035, -2.9702, 0.8480),
    815: (1.1704, 2.2057, -2.9694, 0.8448),
}
MASKED = {0: (1.2546, 2.1477, -2.9885, 0.9243), 42: (1.1517, 2.2183, -2.9648, 0.8271), 815: REFERENCE[815]}


def reader(*, masks_padding: bool = False, causal: bool = True, filled: bool = True) -> DigitReader:
    """The set-up of the reference values."""
    attention = AttentionOptions(kv_heads=None, head_dim=None, bias=True, scaled=True, dropout=0.0)
    feed_forward = FeedForwardOptions(activation="gelu_tanh", gated=False, bias=True, dropout=0.0)
    layer = LayerOptions(placement="pre", norm=LayerNorm(eps=1e-5), attention=attention, feed_forward=feed_forward)
    made = DigitReader(
        digits=3, width=8, depth=2, heads=2, dropout=0.0, causal=causal, masks_padding=masks_padding, layer=layer, out=8
    )
    return fill(made) if filled else made.eval()


@torch.no_grad()
def fill(made: DigitReader) -> DigitReader:
    for tensor, turned in tensors(made):
        tensor.copy_(wave(*(tensor.T.shape if turned else tensor.shape)).T if turned else wave(*tensor.shape))
    return made.eval()


def tensors(made: DigitReader) -> list[tuple[Tensor, bool]]:
    """Each but those of norms, and whether the official one has it the other way round."""
    found: list[tuple[Tensor, bool]] = [(made.cls, False), (made.place.weight, False), (made.digit.weight, False)]
    for layer in made.layers:
        assert isinstance(layer, Layer)
        linears = (layer.attention.qkv, layer.attention.out, layer.feed_forward.up, layer.feed_forward.down)
        for linear in linears:
            found += [(linear.weight, True), (linear.bias, False)]
    return [*found, (made.out.weight, False), (made.out.bias, False)]


def wave(*shape: int) -> Tensor:
    number = math.prod(shape)
    return (0.5 * torch.cos(1.3 * torch.arange(number, dtype=torch.float64) + 0.7 * number)).float().view(shape)


@torch.no_grad()
@pytest.mark.parametrize("masks_padding, expected", [(False, REFERENCE), (True, MASKED)])
def test_the_reader_gives_the_official_numbers(masks_padding: bool, expected: dict[int, tuple[float, ...]]) -> None:
    pe_UD = reader(masks_padding=masks_padding)(torch.tensor(list(expected)))
    assert_close(pe_UD[:, :4], torch.tensor(list(expected.values())), atol=6e-5, rtol=0)


@torch.no_grad()
def test_the_reader_of_the_config_is_the_official_one() -> None:
    position = {"seqpe": {"max_position": 1000, "head_dim": 4}}
    made: Any = preset("seqpe", SPEC, dim=8, depth=1, hidden=8, heads=2, position=position)
    pe_UD = fill(made.get_submodule("stack.position.made.reader"))(torch.tensor(list(REFERENCE)))
    assert_close(pe_UD[:, :4], torch.tensor(list(REFERENCE.values())), atol=6e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("direction", ["causal", "both"])
@pytest.mark.parametrize("masks_padding", [False, True])
def test_the_reader_looks_where_the_config_says(direction: str, masks_padding: bool) -> None:
    seqpe = {"max_position": 1000, "head_dim": 4, "direction": direction, "masks_padding": masks_padding}
    made: Any = preset("seqpe", SPEC, dim=8, depth=1, hidden=8, heads=2, position={"seqpe": seqpe})
    pe_UD, positions = fill(made.get_submodule("stack.position.made.reader"))(torch.arange(1000)), torch.arange(1000)
    for causal, masked in itertools.product([False, True], repeat=2):
        same = (pe_UD - reader(causal=causal, masks_padding=masked)(positions)).abs().max() < 1e-5
        assert same == ((causal, masked) == (direction == "causal", masks_padding))


@torch.no_grad()
def test_every_digit_and_its_place_are_read_and_nothing_else() -> None:
    made = reader()
    assert made.digits_of(torch.tensor([7, 815])).tolist() == [[0, 0, 7], [8, 1, 5]]
    pe_UD = made(torch.arange(1000))
    assert len(torch.unique(pe_UD.round(decimals=5), dim=0)) > 950  # 17 and 71 are two
    assert_close(made(torch.tensor([815])), pe_UD[815:816], atol=1e-6, rtol=0)  # whatever else is encoded
    both = reader(causal=False)(torch.arange(1000))
    assert (both - pe_UD).abs().max() > 1e-3  # digits that see each other


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
def test_padding_that_is_masked_is_as_if_it_were_not_there(causal: bool) -> None:
    """Digits alone, at their places counted from the right, and [CLS], which digits see where all see all."""
    made = reader(masks_padding=True, causal=causal)
    seen = Sight(None, causal)
    for position in (0, 7, 42, 815):
        digits = torch.tensor([int(digit) for digit in str(position)])
        x_1MD = torch.cat((made.digit(digits) + made.place.weight[3 - len(digits) :], made.cls[None]))[None]
        for layer in made.layers:
            x_1MD, _ = layer(x_1MD, seen, None, None, None, seen)
        assert_close(made(torch.tensor([position])), made.out(made.norm(x_1MD[:, -1])), atol=1e-5, rtol=1e-5)
        own = made._seen(torch.tensor([position])).mask
        assert own is not None
        assert own.any(3).all()  # a digit that is padding sees itself: some kernels make NaN of nothing


def test_parameters() -> None:
    assert sum(p.numel() for p in reader().parameters()) == 1944
    with torch.device("meta"):
        encoder = preset("published/seqpe", InputSpec(max_length=512, vocab_size=50257))
    position = encoder.get_submodule("stack.position.made")
    assert sum(p.numel() for p in position.get_submodule("reader").parameters()) == 14_780_160
    layer = 4 * (768 * 768 + 768) + 768 * 3072 + 3072 + 3072 * 768 + 768 + 4 * 768
    gpt2 = 50257 * 768 + 12 * layer + 2 * 768  # without its table of 1024 positions
    assert sum(p.numel() for p in encoder.parameters()) == gpt2 + 14_780_160 + 768 * 1536 + 1536 == 139_614_720


def test_the_published_preset_is_the_released_set_up() -> None:
    """What no count of parameters tells: weights and sizes of the losses, shares of steps, rates of dropout."""
    node = compose_node("encoder", "published/seqpe")
    position, layer = node["position"], node["layer"]
    seqpe = position["seqpe"]
    shift = {"kind": "seqpe", "chance": 0.1, "windows": 320, "offsets": 16}
    assert {key: position[key] for key in shift} == shift
    reader: dict[str, Any] = {"max_position": 20000, "width": None, "depth": 2, "head_dim": 64, "dropout": 0.1}
    reader |= {"strength": 1.0, "direction": "causal", "masks_padding": False}
    assert {key: seqpe[key] for key in reader} == reader
    contrast = {"weight": 0.1, "pivots": 16, "candidates": 32, "hard": 0.4, "near": 256}
    transfer = {"weight": 0.1, "offsets": 16, "indices": 32}
    for part, given in (("contrast", contrast), ("transfer", transfer)):
        assert {key: seqpe[part][key] for key in given} == given
    for block, attention in ((seqpe["layer"], 0.0), (layer, 0.1)):
        assert (block["placement"], block["feed_forward"]["activation"]) == ("pre", "gelu_tanh")
        assert (block["attention"]["dropout"], block["feed_forward"]["dropout"]) == (attention, 0.0)
    assert (node["dropout"], node["stem"]["scaled"], node["stem"]["norm"]) == (0.1, False, False)


def test_the_reader_starts_as_published() -> None:
    """Every map and table, and what stands behind the digits, normal with 0.02; maps' biases 0."""
    made = preset("seqpe", SPEC, dim=768, depth=1, hidden=8, heads=12)
    for name, parameter in made.get_submodule("stack.position.made.reader").named_parameters():
        if "norm" not in name:
            expected = 0.0 if name.endswith("bias") else 0.02
            assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.1), name


@torch.no_grad()
def test_scores_are_those_of_the_equation() -> None:
    """softmax((Q K^T + s P_q P_k^T) / sqrt(E)), the layer's own Q and K, from the state before."""
    torch.manual_seed(2)
    encoder = preset("seqpe", SPEC, **SMALL, heads=2, position={"seqpe": {"strength": 1.7}})
    position: Any = encoder.get_submodule("stack.position.made")
    nn.init.normal_(position.maps.weight)
    query, key = torch.tensor([[3, 17]]), torch.arange(20)[None]
    bias = position.bias(query, key)
    pe_UD = position.reader(torch.arange(20)).double().numpy()
    weight, shift = position.maps.weight.double().numpy(), position.maps.bias.double().numpy()
    p_UF = pe_UD @ weight.T + shift
    for head in range(2):
        queries, keys = (p_UF[:, begin + 8 * head : begin + 8 * head + 8] for begin in (0, 16))
        expected = 1.7 * queries[[3, 17]] @ keys.T / math.sqrt(8)
        assert_close(bias[0, head], torch.tensor(expected, dtype=torch.float32), atol=1e-5, rtol=1e-4)
    assert bias.std() > 1e-3


@torch.no_grad()
def test_without_strength_it_is_a_model_without_positions_bit_for_bit() -> None:
    source = Sequences(values=torch.randint(11, (3, 40)), mask=torch.ones(3, 40, dtype=torch.bool))
    without = preset("seqpe", SPEC, **SMALL, position={"kind": "none"})
    for strength, equal in ((0.0, True), (1.0, False)):
        made = preset("seqpe", SPEC, **SMALL, position={"seqpe": {"strength": strength}})
        shared = {k: v for k, v in without.state_dict().items() if "position" not in k}
        made.load_state_dict(shared, strict=False)
        for parameter in made.get_submodule("stack.position").parameters():
            parameter.mul_(10)
        assert torch.equal(made(source).values, without(source).values) is equal


def test_the_table_that_is_kept_follows_the_weights() -> None:
    """What was encoded before a step is not used after it, and shorter sources and steps of decoding take from it."""
    made = preset("seqpe", SPEC, **SMALL)
    assert isinstance(made, Decoder)
    source = Sequences(values=torch.randint(11, (2, 30)), mask=torch.ones(2, 30, dtype=torch.bool))
    with torch.no_grad():
        before = made(source).values
        for parameter in made.get_submodule("stack.position").parameters():
            parameter.mul_(3)
        after = made(source).values
    assert (after - before).abs().max() > 1e-4
    assert_close(made(source).values, after, atol=1e-5, rtol=1e-5)  # with gradients nothing is kept


def test_the_table_that_is_kept_is_not_that_before_a_fused_step() -> None:
    """A fused optimizer, which a run takes on a GPU, does not count up the versions of what it changes."""
    made = preset("seqpe", SPEC, **SMALL)
    source = Sequences(values=torch.randint(11, (2, 30)), mask=torch.ones(2, 30, dtype=torch.bool))
    with torch.no_grad():
        before = made.eval()(source).values
    optimizer = torch.optim.AdamW(made.get_submodule("stack.position").parameters(), lr=0.3, fused=True)
    made.train()(source).values.square().sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    with torch.no_grad():
        after = made.eval()(source).values
    assert (after - before).abs().max() > 1e-3
    assert_close(made(source).values.detach(), after, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_table_of_lower_precision_is_not_kept_for_a_higher_one() -> None:
    made = preset("seqpe", SPEC, **SMALL, position={"chance": 0.0}).eval()
    source = Sequences(values=torch.randint(11, (2, 30)), mask=torch.ones(2, 30, dtype=torch.bool))
    expected = made(source).values
    position: Any = made.get_submodule("stack.position")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made(source)
        assert position._kept[1].dtype == torch.bfloat16
    assert torch.equal(made(source).values, expected)


@torch.no_grad()
def test_scores_of_shifted_rows_in_training_are_those_of_the_table() -> None:
    """Training encodes the positions that a batch has, each once, wherever its rows stand."""
    position: Any = preset("seqpe", SPEC, **SMALL, position={"seqpe": {"dropout": 0.0}}).get_submodule("stack.position")
    nn.init.normal_(position.made.maps.weight)
    key_BS = torch.tensor([[70], [3], [900]]) + torch.arange(9)
    query_BT = key_BS[:, -4:]
    expected = position.eval().bias(query_BT, key_BS)
    assert_close(position.train().bias(query_BT, key_BS), expected, atol=1e-5, rtol=1e-4)
    for row in range(3):
        alone = position.eval().bias(query_BT[row : row + 1], key_BS[row : row + 1])
        assert_close(alone, expected[row : row + 1], atol=1e-5, rtol=1e-4)
    assert (expected[0] - expected[1]).abs().max() > 1e-2


def test_a_table_that_is_kept_grows_with_what_is_asked() -> None:
    """Beyond the room that it has, and up to the last position that the digits tell apart."""
    seqpe = {"max_position": 100, "contrast": {"candidates": 4}, "dropout": 0.0}
    changes = {"chance": 0.0, "seqpe": seqpe}
    made = preset("seqpe", InputSpec(max_length=100, vocab_size=11), **SMALL, position=changes).eval()
    position: Any = made.get_submodule("stack.position")
    for length in (3, 70, 100, 9):
        source = Sequences(values=torch.randint(11, (2, length)), mask=torch.ones(2, length, dtype=torch.bool))
        with torch.no_grad():
            found = made(source).values
            table = position._kept[1]
            assert_close(table, position._map(position.reader(torch.arange(len(table)))), atol=1e-6, rtol=1e-5)
        assert len(table) == (64 if length == 3 else 100)
        assert found.isfinite().all()


def trained(**position: Any) -> tuple[Any, dict[str, Tensor]]:
    """The position's module, and the losses of a pass in training without dropout."""
    made = preset("seqpe", SPEC, **SMALL, dropout=0.0, position=position).train()
    source = Sequences(values=torch.zeros(2, 40, dtype=torch.int64), mask=torch.ones(2, 40, dtype=torch.bool))
    torch.manual_seed(7)
    assert not made(source).losses  # no encoder passes them on
    found = next((part.losses() for part in made.modules() if isinstance(part, _Sequential)), {})
    assert not part_losses(made)  # given once
    made.eval()(source)
    assert not part_losses(made)
    return made.get_submodule("stack.position"), found


def taking_a_position() -> list[str]:
    """Every encoder of configs/encoder whose position is a part of it."""
    names = sorted(path.stem for path in (CONFIGS / "encoder").glob("*.yaml"))
    return [name for name in names if "position" in compose_node("encoder", name)]


@pytest.mark.parametrize("name", taking_a_position())
def test_whoever_takes_it_has_its_losses(name: str) -> None:
    """Of either stack, and once for a source and its target in one, by which positions go on. Not in evaluation."""
    position = compose_node("encoder", "seqpe", changes={"position": {"chance": 0.0}})["position"]
    made = preset(name, SPEC, dim=24, hidden=32, heads=6, position=position).train()  # heads that all can share
    parts = [part for part in made.modules() if isinstance(part, _Sequential)]
    source = Sequences(values=torch.zeros(2, 30, dtype=torch.int64), mask=torch.ones(2, 30, dtype=torch.bool))
    source = replace(source, streams=dict.fromkeys(made.requires, source))
    made(source)
    assert len(part_losses(made)) == 2 * len(parts) > 0
    assert not part_losses(made)
    made.eval()(source)
    if isinstance(made, Decoder):
        target = Sequences(values=torch.zeros(2, 8, dtype=torch.int64), mask=torch.ones(2, 8, dtype=torch.bool))
        made.decode(target, made.prefill(source))
        assert not part_losses(made)
        made.train().decode(target, made.prefill(source))
        assert len(part_losses(made)) == 2 * len(parts)
    assert not part_losses(made)


def test_losses_are_of_the_positions_that_are_drawn() -> None:
    module, losses = trained(chance=0.0, seqpe={"dropout": 0.0, "contrast": {"weight": 0.3}})
    torch.manual_seed(7)
    draw, positions = random.Random(int(torch.randint(2**62, ()))), torch.arange(40)
    contrast: Any = module.options.contrast.draw(positions, 4096, draw)
    transfer: Any = module.options.transfer.draw(positions, 4096, draw)
    pivots_bD, candidates_bKD = (module.reader(one) for one in contrast.positions)
    expected = contrast_loss(pivots_bD, candidates_bKD.view(8, 16, 16), contrast.labels_b)
    assert_close(losses["contrast"], 0.3 * expected, atol=1e-6, rtol=1e-5)
    (far_bK,) = transfer.positions
    offset_bK = far_bK.view(8, 16) - transfer.index_bK
    assert torch.equal(offset_bK, offset_bK[:, :1].expand(8, 16))
    assert offset_bK.min() >= 10
    assert offset_bK.max() < 4096 - 40
    assert len(offset_bK.unique()) > 4
    near, far = module.reader(transfer.index_bK.flatten()), module.reader(far_bK)
    by_head, whole = (transfer_loss(near.view(8, 16, 16), far.view(8, 16, 16), heads=n) for n in (2, 1))
    assert_close(losses["transfer"], 0.1 * by_head, atol=0, rtol=1e-3)
    assert abs(by_head / whole - 1) > 0.05
    for module_scale in (1.0, 30.0):
        with torch.no_grad():
            module.reader.out.weight.mul_(module_scale)
        near, far = module.reader(transfer.index_bK.flatten()), module.reader(far_bK)
        loss = transfer_loss(near.view(8, 16, 16), far.view(8, 16, 16), heads=2)
        assert_close(transfer.loss([far], module.reader(positions), 2), loss, atol=1e-7, rtol=1e-4)
    assert float(loss.detach()) > 1e-4


def test_training_has_both_losses_and_a_shifted_pass_no_transfer() -> None:
    assert trained(chance=0.0)[1].keys() == {"contrast", "transfer"}
    assert trained(chance=1.0)[1].keys() == {"contrast"}
    assert trained(chance=0.0, seqpe={"contrast": {"weight": 0.0}})[1].keys() == {"transfer"}
    assert not trained(chance=0.0, seqpe={"contrast": {"weight": 0.0}, "transfer": {"weight": 0.0}})[1]
    assert not trained(chance=0.0, kind="rope")[1]


@pytest.mark.parametrize("kind", ["seqpe", "rope", "sinusoidal", "learned", "alibi", "none"])
def test_a_shift_moves_absolute_positions_and_no_relative_ones(kind: str) -> None:
    """In training alone; a row its own window, 16 of a pool, all within what there is."""
    source = Sequences(values=torch.randint(11, (20, 40)), mask=torch.ones(20, 40, dtype=torch.bool))
    drop = {"dropout": 0.0, "position": {"kind": kind, "seqpe": {"dropout": 0.0}}}
    drop["position"] |= {"chance": 1.0, "windows": 50}  # type: ignore[operator]
    made = preset("seqpe", SPEC, **SMALL, **drop)
    for parameter in made.get_submodule("stack.position").parameters():
        nn.init.normal_(parameter)
    with torch.no_grad():
        still, moved = made(source).values, made.train()(source).values
    moves = float((still - moved).abs().max())
    assert (moves > 1e-2) == (kind in {"seqpe", "sinusoidal", "learned"}), moves
    position: Any = made.get_submodule("stack.position")
    places = position.places(torch.arange(40)[None], 20)
    assert places.shape == (20, 40)
    assert len(places[:, 0].unique()) > 12
    assert torch.equal(places[:16][:4], places[16:])
    assert places.min() >= 0
    assert places.max() < 4096
    assert torch.equal(places - places[:, :1], torch.arange(40).expand(20, 40))
    begins = {int(position.places(torch.arange(40)[None], 1)[0, 0]) for _ in range(400)}
    assert 40 < len(begins) <= 50  # places of the pool, drawn once
    last = torch.arange(4090)[None]  # which leaves seven places
    position.pool_W.copy_(torch.linspace(0, 0.999, 50))
    assert {int(position.places(last, 1)[0, 0]) for _ in range(400)} == set(range(7))
    assert torch.equal(position.eval().places(last, 20), last)


def test_alibi_of_the_official_code_is_slopes_over_the_root_of_the_head_s_width() -> None:
    position = torch.arange(9)[None]
    plain, scaled = (
        preset("seqpe", SPEC, **SMALL, position={"kind": kind, "chance": 0.0}).get_submodule("stack.position")
        for kind in ("alibi", "alibi_scaled")
    )
    one, other = plain.bias(position, position), scaled.bias(position, position)  # type: ignore[operator]
    assert_close(one, other * math.sqrt(8), atol=1e-6, rtol=1e-6)
    assert float(one[0, 0, 8, 0]) == -8 / 16


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"seqpe": {"max_position": 10}},
            r"max_position: 10 has 1 digits, which tell 10 positions apart; there are 48",
        ),
        ({"seqpe": {"max_position": 60, "contrast": {"candidates": 60}}}, "contrast.candidates: 60 of 60 positions"),
        ({"chance": 0.1, "seqpe": {"max_position": 30}}, "position.chance: 48 positions can't be shifted within 30"),
        ({"seqpe": {"width": 100, "head_dim": 30}}, "head_dim: 30 makes 3 heads of a reader of width 100"),
        ({}, "transfer.weight: 0.1, by head, of vectors of 16 numbers, which 3 heads don't divide"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    heads = {} if changes else {"heads": 3, "layer": {"attention": {"head_dim": 8}}}
    with pytest.raises(ValueError, match=message):
        preset("seqpe", SPEC, **SMALL, **heads, position={"chance": 0.0, **changes})
