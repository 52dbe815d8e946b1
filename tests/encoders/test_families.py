"""The families: continuing equals reading at once, for every kind of position, however the source is padded."""
# B batch, L source positions, T target positions, D width

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from encoders.base import Decoder, Encoder, InputSpec, Sequences, States
from encoders.blocks.attention import CrossAttention
from encoders.blocks.stack import initial_std
from seqbench.composition.nodes import compose_node
from tests.encoders.transformers_models import concatenated, preset, rows, source, target

P = "encoders.blocks.positions."
POSITIONS: dict[str, dict[str, Any]] = {
    "none": {"_target_": P + "NoPosition"},
    "learned": {"_target_": P + "Learned"},
    "sinusoidal": {"_target_": P + "Sinusoidal", "base": 10000.0},
    "rotary": {"_target_": P + "Rotary", "base": 10000.0},
    "alibi": {"_target_": P + "ALiBi"},
    "relative": {"_target_": P + "RelativeBias", "buckets": 8, "max_distance": 20},
}
FAMILIES = ["encoder_only", "decoder_only", "encoder_decoder"]
DECODERS = ["decoder_only", "encoder_decoder"]
IDS = InputSpec(max_length=16, vocab_size=50, target_length=12)


def small(name: str, position: str = "rotary", spec: InputSpec = IDS, **changes: Any) -> Encoder:
    """A family's plain config, small and with weights large enough for positions to matter."""
    sizes: dict[str, Any] = {"dim": 16, "depth": 2, "hidden": 24, "layer": {"attention": {"kv_heads": 2}}}
    encoder = preset(name, spec, position=POSITIONS[position], **(sizes | changes))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in encoder.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(0.5 * noise if weight.ndim == 2 else 0.1 * noise + weight)
    return encoder


def decoder(name: str, position: str = "rotary", **changes: Any) -> Decoder:
    encoder = small(name, position, **changes)
    assert isinstance(encoder, Decoder)
    return encoder


def steps(model: Decoder, batch: Sequences, before: States, ends: list[int]) -> Tensor:
    """States of a target that is decoded in pieces, (B, T, D)."""
    made = []
    for start, stop in itertools.pairwise([0, *ends]):
        before = model.decode(rows(batch, start, stop), before)
        made.append(before.values)
    return torch.cat(made, dim=1)


def close(got: Tensor, expected: Tensor) -> None:
    assert_close(got, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("position", POSITIONS)
def test_prefix_concatenation_is_one_sequence(position: str) -> None:
    model = decoder("decoder_only", position)
    decoded = model.decode(target(), model.prefill(source())).values
    one = small("decoder_only", position, spec=InputSpec(max_length=28, vocab_size=50))
    for row, ids in enumerate(concatenated(source(), target())):
        length = int(target().mask[row].sum())
        whole = one(Sequences(values=ids[None], mask=torch.ones(1, len(ids), dtype=torch.bool)))
        close(decoded[row, :length], whole.values[0, -length:])


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("name", DECODERS)
def test_steps_are_the_same_as_at_once(name: str, position: str) -> None:
    model, real = decoder(name, position), target().mask
    at_once = model.decode(target(), model.prefill(source())).values
    for ends in ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [5, 6, 12]):
        close(steps(model, target(), model.prefill(source()), ends)[real], at_once[real])


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("name", DECODERS)
def test_padding_of_the_source_changes_no_target(name: str, position: str) -> None:
    model, real = decoder(name, position), target().mask
    decoded = steps(model, target(), model.prefill(source()), [4, 5, 12])
    for row, length in enumerate(source().mask.sum(1).tolist()):
        alone = Sequences(values=source().values[row : row + 1, :length], mask=source().mask[row : row + 1, :length])
        part = Sequences(values=target().values[row : row + 1], mask=target().mask[row : row + 1])
        expected = model.decode(part, model.prefill(alone)).values
        close(decoded[row][real[row]], expected[0][real[row]])


@pytest.mark.parametrize("position", [name for name in POSITIONS if name != "none"])
@pytest.mark.parametrize("name", FAMILIES)
def test_positions_tell_order(name: str, position: str) -> None:
    model = small(name, position)
    ids_BL = torch.tensor([[3, 4, 5, 6], [5, 4, 3, 6]])
    values_BLD = model(Sequences(values=ids_BL, mask=torch.ones(2, 4, dtype=torch.bool))).values
    assert (values_BLD[0, 3] - values_BLD[1, 3]).abs().max() > 1e-2


def test_without_positions_an_encoder_reads_a_set() -> None:
    model = small("encoder_only", "none")
    ids_BL = torch.tensor([[3, 4, 5, 6], [5, 4, 3, 6]])
    values_BLD = model(Sequences(values=ids_BL, mask=torch.ones(2, 4, dtype=torch.bool))).values
    close(values_BLD[0, 3], values_BLD[1, 3])


@pytest.mark.parametrize("name", DECODERS)
def test_selected_rows_go_on_as_themselves(name: str) -> None:
    model, order = decoder(name), torch.tensor([2, 0, 0, 1])
    before = model.decode(rows(target(), 0, 3), model.prefill(source()))
    after = model.decode(rows(target(), 3, 6), before).select(order)
    again = Sequences(values=target().values[order, 3:6], mask=target().mask[order, 3:6])
    close(model.decode(again, before.select(order)).values, after.values)


def test_the_memory_is_projected_once() -> None:
    model, calls = decoder("encoder_decoder"), []
    for module in model.modules():
        if isinstance(module, CrossAttention):
            module.key_value.register_forward_hook(lambda *_: calls.append(1))
    steps(model, target(), model.prefill(source()), [1, 2, 3, 12])
    assert len(calls) == 2  # once a layer


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_without_positions_stays_finite(name: str) -> None:
    model = small(name, "alibi")
    empty = Sequences(values=source().values, mask=source().mask & torch.tensor([[True], [False], [True]]))
    assert bool(model(empty).values.isfinite().all())
    if isinstance(model, Decoder):
        states = steps(model, target(), model.prefill(empty), [1, 2, 12])
        assert bool(states.isfinite().all())


@pytest.mark.parametrize("name", DECODERS)
def test_a_target_beyond_its_length_is_refused(name: str) -> None:
    model = decoder(name)
    before = model.decode(target(), model.prefill(source()))
    with pytest.raises(ValueError, match="a target of 13 positions; this encoder was made for at most 12"):
        model.decode(rows(target(), 0, 1), before)


@pytest.mark.parametrize("name", FAMILIES)
def test_patches_merge_positions_and_hide_padding(name: str) -> None:
    model = small(name, spec=InputSpec(max_length=11, channels=2, target_length=4), patch=4)
    values_BLC = torch.randn(2, 11, 2, generator=torch.Generator().manual_seed(0))
    mask_BL = torch.arange(11) < torch.tensor([[11], [5]])
    batch = Sequences(values=values_BLC, mask=mask_BL)
    both = model(batch)
    assert both.values.shape == (2, model.num_states(11), 16)
    assert both.mask.tolist() == [[True, True, True], [True, True, False]]
    alone = model(Sequences(values=values_BLC[1:, :5], mask=mask_BL[1:, :5]))
    close(both.values[1, :2], alone.values[0])
    if isinstance(model, Decoder):
        with pytest.raises(ValueError, match="patch: 4 positions are merged, so a target can't be continued; use 1"):
            model.decode(rows(batch, 0, 4), model.prefill(batch))


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_learns(name: str, position: str) -> None:
    model = small(name, position)
    model(source()).values[source().mask].square().sum().backward()
    idle = [key for key, weight in model.named_parameters() if weight.grad is None or not bool(weight.grad.any())]
    assert idle == []


def test_attention_without_padding_or_past_builds_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which leaves the kernels free to skip what is not seen; right padding needs none in a causal stack either."""
    seen: list[tuple[bool, bool]] = []
    product = F.scaled_dot_product_attention

    def spy(*args: Any, **more: Any) -> Tensor:
        seen.append((more["attn_mask"] is not None, more["is_causal"]))
        return product(*args, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    full = rows(source(), 0, 5)
    small("encoder_only")(full)
    assert set(seen) == {(False, False)}
    seen.clear()
    small("decoder_only")(source())
    assert set(seen) == {(False, True)}
    seen.clear()
    small("encoder_only")(source())
    assert set(seen) == {(True, False)}


def test_the_three_share_everything_but_the_arrangement() -> None:
    """Equal options in the plain configs, and equal weights of a stack where there is one."""
    nodes = [compose_node("encoder", name) for name in FAMILIES]
    shared = [{k: v for k, v in node.items() if k not in ("_target_", "depth", "decoder_depth")} for node in nodes]
    assert shared[0] == shared[1] == shared[2]
    counts = [sum(p.numel() for p in preset(name, IDS).parameters()) for name in FAMILIES]
    assert counts[0] == counts[1]
    assert counts[0] < counts[2] < 1.2 * counts[0]


def test_initial_weights_are_gpt_2_s_at_its_width_and_what_enters_has_unit_variance() -> None:
    assert initial_std(768) == pytest.approx(0.02)
    torch.manual_seed(0)
    model = preset("decoder_only", IDS)
    writes = ("attention.out.weight", "feed_forward.down.weight")
    for name, weight in model.named_parameters():
        if name.startswith("embed"):
            assert (weight * math.sqrt(128)).std().item() == pytest.approx(1, rel=0.05)
        elif weight.ndim == 2:
            std = 0.02 * math.sqrt(768 / 128) / (math.sqrt(8) if name.endswith(writes) else 1)
            assert weight.std().item() == pytest.approx(std, rel=0.1), name
        elif "norm" not in name:
            assert not bool(weight.any()), name


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_autocast_stays_near(name: str) -> None:
    model = preset(name, IDS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(source()).values
        if isinstance(model, Decoder):
            model.decode(rows(target(), 0, 1), model.prefill(source()))
    assert low.dtype == torch.float32
    assert_close(low, model(source()).values, atol=0.05, rtol=0.05)


def test_dropout_is_in_training_alone() -> None:
    model: nn.Module = small("encoder_only", dropout=0.3)
    assert torch.equal(model(source()).values, model(source()).values)
    model.train()
    assert not torch.equal(model(source()).values, model(source()).values)
