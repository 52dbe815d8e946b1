"""RED and PALM: both ends of the switches are the families, the sheet's numbers, a slow PALM, what may not leak."""
# B batch, L source positions, T target positions, S both, D width

from __future__ import annotations

import itertools
import math
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from encoders.base import InputSpec, Sequences
from encoders.blocks.attention import AttentionOptions, CrossAttention, SelfAttention
from encoders.blocks.layer import Layer, Residual
from encoders.blocks.masks import Sight
from encoders.systems.palm import Palm
from encoders.systems.palm_parts import share_of_first
from seqbench.build import build
from seqbench.composition.nodes import compose_node

SPEC = InputSpec(max_length=12, vocab_size=17, target_length=8)
SMALL: dict[str, Any] = {"dim": 16, "depth": 3, "heads": 2, "hidden": 24, "dropout": 0.0}
POSITIONS = "encoders.blocks.positions"
PLACES: dict[str, dict[str, Any]] = {
    "sinusoidal": {"_target_": f"{POSITIONS}.Sinusoidal", "base": 10000.0},
    "rotary": {"_target_": f"{POSITIONS}.Rotary", "base": 10000.0},
    "learned": {"_target_": f"{POSITIONS}.Learned"},
    "alibi": {"_target_": f"{POSITIONS}.ALiBi"},
    "relative": {"_target_": f"{POSITIONS}.RelativeBias", "buckets": 8, "max_distance": 16},
}
PLAIN = {"partial": False, "language": False}
LM = {**PLAIN, "joint": True, "causal_source": True, "shared": True, "coordinated": True, "consecutive": True}
ED = {**PLAIN, "joint": False, "causal_source": False, "shared": False, "coordinated": False, "consecutive": False}


def make(name: str = "palm", spec: InputSpec = SPEC, position: str = "sinusoidal", **changes: Any) -> Any:
    torch.manual_seed(0)
    node = {**compose_node("encoder", name, changes={**SMALL, **changes}), "position": PLACES[position]}
    encoder = build(node, "encoder", ["encoders"], spec=spec).double().eval()
    with torch.no_grad():  # biases, too, and larger, so that softmaxes are not flat
        for parameter in encoder.parameters():
            parameter.normal_(std=0.3)
    return encoder


def rows(lengths: tuple[int, ...], seed: int) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 17, (len(lengths), max(lengths)), generator=generator)
    return Sequences(values=values, mask=torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1))


SOURCE, TARGET = rows((9, 5, 1), 1), rows((6, 8, 3), 2)


def target_states(encoder: Any, source: Sequences = SOURCE, target: Sequences = TARGET) -> Tensor:
    states: Tensor = encoder.decode(target, encoder.prefill(source)).values
    return states


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("position", PLACES)
def test_all_switches_on_is_the_causal_language_model(position: str, placement: str) -> None:
    layer = {"placement": placement}
    ours = make(position=position, **LM, source_loss=1.0, layer=layer)
    theirs = make("decoder_only", position=position, layer=layer)
    theirs.load_state_dict({name.replace("decoder.", "stack."): w for name, w in ours.state_dict().items()})
    assert ours.causal
    for read in (lambda e: e(SOURCE).values, lambda e: e.prefill(SOURCE).values):
        assert_close(read(ours)[SOURCE.mask], read(theirs)[SOURCE.mask], atol=1e-10, rtol=0)
    assert_close(target_states(ours)[TARGET.mask], target_states(theirs)[TARGET.mask], atol=1e-10, rtol=0)


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("position", PLACES)
def test_all_switches_off_is_the_encoder_decoder(position: str, placement: str) -> None:
    layer = {"placement": placement}
    ours = make(position=position, **ED, layer=layer)
    theirs = make("encoder_decoder", position=position, decoder_depth=None, layer=layer)
    theirs.load_state_dict(ours.state_dict())
    for read in (lambda e: e(SOURCE).values, lambda e: e.prefill(SOURCE).values):
        assert_close(read(ours)[SOURCE.mask], read(theirs)[SOURCE.mask], atol=1e-10, rtol=0)
    assert_close(target_states(ours)[TARGET.mask], target_states(theirs)[TARGET.mask], atol=1e-10, rtol=0)


@pytest.mark.parametrize("position", PLACES)
def test_a_source_that_sees_both_sides_is_read_as_by_an_encoder(position: str) -> None:
    ours, theirs = make(position=position, **{**LM, "causal_source": False}), make("encoder_only", position=position)
    weights = {name.replace("decoder.", "stack."): w for name, w in ours.state_dict().items()}
    if position == "learned":  # a target has positions of its own
        weights["stack.position.table.weight"] = weights["stack.position.table.weight"][:12]
    theirs.load_state_dict(weights)
    assert_close(ours(SOURCE).values[SOURCE.mask], theirs(SOURCE).values[SOURCE.mask], atol=1e-10, rtol=0)


def test_a_target_that_begins_at_0_tells_the_places_of_a_source_ahead_of_it() -> None:
    """By T5's buckets: those above 4 of 8 are of what is ahead, and a single layer reads embeddings alone."""
    encoder = make(position="relative", **{**LM, "consecutive": False}, depth=1)
    before = target_states(encoder)
    with torch.no_grad():
        encoder.decoder.position.table.weight[5:] += torch.arange(6.0).view(3, 2)
    assert not torch.isclose(before, target_states(encoder))[:2, 0].all(-1).any()


@pytest.mark.parametrize("switch", ["joint", "causal_source", "shared", "coordinated", "consecutive"])
def test_each_switch_alone_changes_the_target(switch: str) -> None:
    on, off = make(**LM), make(**{**LM, switch: False})
    weights = on.state_dict()
    weights = {**weights, **{n.replace("decoder.", "encoder."): w for n, w in weights.items()}}
    missing = off.load_state_dict(weights, strict=False).missing_keys  # those of the cross-attention, where apart
    assert all(".cross" in name for name in missing)
    same = torch.allclose(target_states(on)[TARGET.mask], target_states(off)[TARGET.mask], atol=1e-6)
    assert same is (switch == "shared")  # which changes nothing until the weights differ


@pytest.mark.parametrize("position", ["sinusoidal", "rotary", "alibi"])
def test_two_stacks_of_the_same_weights_are_one(position: str) -> None:
    """Keys that the target's weights make of the source stand where the source's own would."""
    one, two = make(position=position, **LM), make(position=position, **{**LM, "shared": False})
    weights = one.state_dict()
    two.load_state_dict({**weights, **{n.replace("decoder.", "encoder."): w for n, w in weights.items()}})
    assert_close(target_states(two)[TARGET.mask], target_states(one)[TARGET.mask], atol=1e-10, rtol=0)


def test_a_target_apart_stands_behind_its_source_too() -> None:
    """With two attentions: as one that begins at 0, of a table that begins at the source's end."""
    apart = make(**{**ED, "consecutive": True})
    first = make(**ED, spec=InputSpec(max_length=12, vocab_size=17, target_length=20))
    first.load_state_dict(apart.state_dict())
    first.decoder.position.table_LD = first.decoder.position.table_LD[5:]
    source = rows((5, 5, 5), 4)
    assert_close(target_states(first, source)[TARGET.mask], target_states(apart, source)[TARGET.mask])


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("coordinated", [True, False])
def test_a_coordinated_target_layer_reads_what_the_source_layer_reads(joint: bool, coordinated: bool) -> None:
    """So the last feed-forward of the source reaches no target, and the one before it the last layer's alone."""
    encoder = make(**{**LM, "joint": joint, "coordinated": coordinated, "shared": False})
    before = target_states(encoder)
    with torch.no_grad():
        encoder.encoder.layers[2].feed_forward.down.bias += 1 + torch.arange(16)
    assert torch.equal(before, target_states(encoder)) is coordinated
    with torch.no_grad():
        encoder.encoder.layers[1].feed_forward.down.bias += 1 + torch.arange(16)
    assert not torch.equal(before, target_states(encoder))


def test_share_of_the_source_with_uniform_scores() -> None:
    """S / (S + i), the paper's account of why the source fades."""
    encoder = make(spec=InputSpec(max_length=8, vocab_size=17, target_length=32), **LM)
    with torch.no_grad():
        for layer in encoder.decoder.layers:
            layer.attention.qkv.weight[:32] = 0.0
            layer.attention.qkv.bias[:32] = 0.0
    share = encoder.source_share(rows((8,), 1), rows((32,), 2))[0]
    known = [0.8889, 0.8, 0.6667, 0.5, 0.3333, 0.2]  # the sheet's
    assert [share[i - 1].item() for i in (1, 2, 4, 8, 16, 32)] == pytest.approx(known, abs=5e-5)
    padded = encoder.source_share(rows((8, 4), 1), rows((32, 32), 2))[1]
    assert padded[:3].tolist() == pytest.approx([4 / 5, 4 / 6, 4 / 7])
    assert torch.equal(make(**ED).source_share(SOURCE, TARGET), torch.ones(3, 8, dtype=torch.float64))


@pytest.mark.parametrize("position", ["rotary", "alibi"])
def test_share_is_of_the_weights_that_attention_takes(position: str) -> None:
    """Turned, biased, normed, and of keys that several heads have in common."""
    encoder = make(position=position, heads=4, layer={"attention": {"kv_heads": 2}}, consecutive=True)
    attention, taken = F.scaled_dot_product_attention, []

    def watched(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None, **options: Any) -> Tensor:
        if k.shape[2] == 17:  # source and target
            assert attn_mask is not None
            scores = q @ k.transpose(2, 3) / 2.0
            scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
            taken.append(scores.softmax(3)[..., :9].sum(3).mean(1))
        return attention(q, k, v, attn_mask=attn_mask, **options)

    with mock.patch.object(F, "scaled_dot_product_attention", watched):
        target_states(encoder)
    assert len(taken) == 3
    found, expected = encoder.source_share(SOURCE, TARGET), torch.stack(taken).mean(0)
    assert_close(found[TARGET.mask], expected[TARGET.mask], atol=1e-10, rtol=0)
    assert found[TARGET.mask].std() > 0.05


def _identity(kind: type[Any]) -> Any:
    """Single-head attention that leaves queries, keys and values as they are."""
    options = AttentionOptions(kv_heads=None, head_dim=None, bias=False, scaled=True, dropout=0.0)
    attention = kind(dim=4, heads=1, options=options).double()
    with torch.no_grad():
        for weight in attention.parameters():
            weight.copy_(torch.eye(4, dtype=torch.float64).repeat(weight.shape[0] // 4, 1))
    return attention


def test_toy_numbers_of_the_sheet() -> None:
    """X[r, c] = cos(0.7 (4 r + c)), three rows of source and three of target."""
    x_SD = torch.cos(0.7 * torch.arange(24, dtype=torch.float64)).view(6, 4)
    source, target = x_SD[None, :3], x_SD[None, 3:]
    causal = Sight(torch.ones(3, 6, dtype=torch.bool).tril(3)[None, None], False)
    attention = _identity(SelfAttention)
    past = attention.project(source, None)[1:]
    share = share_of_first(attention, target, causal, None, past, 3)
    assert share[0].tolist() == pytest.approx([0.5158, 0.5640, 0.3447], abs=5e-5)
    first = attention(target, causal, None, past)[0][0, 0]
    assert first.tolist() == pytest.approx([-0.4746, -0.6884, -0.5784, -0.1963], abs=5e-5)
    cross = _identity(CrossAttention)
    alone = cross(target, Sight(None, False), cross.project(source))[0, 0]
    assert alone.tolist() == pytest.approx([-0.4327, -0.4449, -0.2478, 0.0658], abs=5e-5)


@pytest.mark.parametrize("causal_source", [True, False])
def test_palm_whose_partial_attention_says_nothing_is_the_language_model(causal_source: bool) -> None:
    palm = make(**{**LM, "partial": True, "language": True, "causal_source": causal_source})
    model = make(**{**LM, "causal_source": causal_source})
    with torch.no_grad():
        palm.language.weight.zero_()
        for layer in palm.decoder.layers:
            layer.cross.out.weight.zero_()
            layer.cross.out.bias.zero_()
    assert model.load_state_dict(palm.state_dict(), strict=False).missing_keys == []
    assert_close(target_states(palm)[TARGET.mask], target_states(model)[TARGET.mask], atol=1e-10, rtol=0)


def slow(encoder: Palm, source: Tensor, target: Tensor) -> Tensor:
    """Target states of one row by the sheet's equations, over [s; t] at once, with explicit masks: (T, D)."""
    length, number = len(source), len(source) + len(target)
    of_source = torch.arange(number) < length
    places = torch.arange(number)
    places = places if encoder.consecutive else torch.where(of_source, places, places - length)
    wave = torch.outer(places.float(), 1.0 / 10000.0 ** (torch.arange(0, 16, 2).float() / 16))
    x_SD = F.embedding(torch.cat((source, target)), encoder.embed.table.weight)  # type: ignore[union-attr]
    if encoder.language is not None:
        x_SD = x_SD + encoder.language.weight[(~of_source).long()]
    x_SD = 4.0 * x_SD + torch.stack((wave.sin(), wave.cos()), -1).flatten(1).double()
    seen = torch.ones(number, number, dtype=torch.bool).tril()
    seen = seen if encoder.causal_source else seen | (of_source[:, None] & of_source[None])

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        heads = []
        for h in (slice(0, 8), slice(8, 16)):
            scores = (q[:, h] @ k[:, h].T / math.sqrt(8)).masked_fill(~mask, -torch.inf)
            heads.append(scores.softmax(1) @ v[:, h])
        return torch.cat(heads, 1)

    def enter(residual: Residual, x: Tensor) -> Tensor:
        return residual.norm(x) if residual.pre else x  # type: ignore[no-any-return]

    def leave(residual: Residual, x: Tensor) -> Tensor:
        return x if residual.pre else residual.norm(x)  # type: ignore[no-any-return]

    for layer, source_map in zip(encoder.decoder.layers, encoder.source_maps, strict=True):
        assert isinstance(layer, Layer)
        assert layer.cross is not None
        q, k, v = layer.attention.qkv(enter(layer.attention_residual, x_SD)).chunk(3, dim=1)
        x_SD = leave(layer.attention_residual, x_SD + layer.attention.out(attend(q, k, v, seen)))
        n_SD = enter(layer.cross_residual, x_SD)
        first = F.gelu(source_map.first(n_SD[:length]))
        k, v = layer.cross.key_value(first + source_map.second(first)).chunk(2, dim=1)
        q = layer.cross.query(n_SD)
        x_SD = leave(layer.cross_residual, x_SD + layer.cross.out(attend(q, k, v, seen[:, :length])))
        hidden = F.gelu(layer.feed_forward.up(enter(layer.feed_forward_residual, x_SD)))
        x_SD = leave(layer.feed_forward_residual, x_SD + layer.feed_forward.down(hidden))
    states: Tensor = encoder.decoder.norm(x_SD)[length:]
    return states


@pytest.mark.parametrize("causal_source, consecutive, language", [*itertools.product([True, False], repeat=3)])
@pytest.mark.parametrize("placement", ["pre", "post"])
def test_palm_is_the_equations_of_one_pass(
    causal_source: bool, consecutive: bool, language: bool, placement: str
) -> None:
    switches = {"causal_source": causal_source, "consecutive": consecutive, "language": language}
    encoder = make(**switches, layer={"placement": placement})
    found = target_states(encoder)
    for row in range(3):
        length, end = int(SOURCE.mask[row].sum()), int(TARGET.mask[row].sum())
        expected = slow(encoder, SOURCE.values[row, :length], TARGET.values[row, :end])
        assert_close(found[row, :end], expected, atol=1e-10, rtol=0)


SETTINGS = {"palm": {}, "palm, causal source": {"causal_source": True}, "lm": LM, "ed": ED}
SETTINGS |= {f"lm, {name} off": {**LM, name: False} for name in LM if name not in PLAIN}


@pytest.mark.parametrize("name", SETTINGS)
def test_no_target_sees_what_follows_it_whatever_the_lengths_of_sources(name: str) -> None:
    """Nor what stands at padding; the re-implementation cuts sources at the longest of a batch, and leaks."""
    encoder = make(**SETTINGS[name])
    before = target_states(encoder)
    for j in range(1, 6):
        values = TARGET.values.clone()
        values[:, j:] = (values[:, j:] + 1) % 17
        after = target_states(encoder, target=Sequences(values=values, mask=TARGET.mask))
        assert torch.equal(before[:, :j], after[:, :j])
        assert not torch.equal(before[:, j], after[:, j])
    hidden = torch.where(SOURCE.mask, SOURCE.values, (SOURCE.values + 3) % 17)
    same = target_states(encoder, Sequences(values=hidden, mask=SOURCE.mask))
    assert_close(before[TARGET.mask], same[TARGET.mask], atol=1e-12, rtol=0)
    moved = Sequences(values=(SOURCE.values + (torch.arange(9) == 0).long()) % 17, mask=SOURCE.mask)
    assert not torch.isclose(before, target_states(encoder, moved)).all(-1)[TARGET.mask].any()


@torch.no_grad()
@pytest.mark.parametrize("position", ["sinusoidal", "alibi"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_target_in_pieces_and_by_beams_is_the_target(name: str, position: str) -> None:
    encoder = make(position=position, **SETTINGS[name])
    whole, states, found = target_states(encoder)[TARGET.mask], encoder.prefill(SOURCE), []
    two = torch.arange(3).repeat_interleave(2)
    beams = encoder.decode(Sequences(values=TARGET.values[two], mask=TARGET.mask[two]), states.select(two)).values
    assert_close(beams[::2][TARGET.mask], whole, atol=1e-10, rtol=0)
    assert_close(beams[1::2][TARGET.mask], whole, atol=1e-10, rtol=0)
    for piece in (slice(0, 3), slice(3, 4), slice(4, 8)):
        states = encoder.decode(Sequences(values=TARGET.values[:, piece], mask=TARGET.mask[:, piece]), states)
        found.append(states.values)
    assert_close(torch.cat(found, 1)[TARGET.mask], whole, atol=1e-10, rtol=0)


def test_a_causal_source_does_not_see_ahead_by_its_partial_attention() -> None:
    encoder = make(causal_source=True)
    values = SOURCE.values.clone()
    values[:, 4:] = (values[:, 4:] + 1) % 17
    one, two = encoder.prefill(SOURCE).values, encoder.prefill(Sequences(values=values, mask=SOURCE.mask)).values
    assert torch.equal(one[:, :4], two[:, :4])
    assert not encoder.causal  # its read-outs are of the target pass, which sees the whole source
    assert not torch.equal(
        encoder(SOURCE).values[0, 0], encoder(Sequences(values=values, mask=SOURCE.mask)).values[0, 0]
    )


def test_the_loss_of_the_source_is_its_next_ids() -> None:
    encoder = make(causal_source=True, source_loss=0.5).train().requires_grad_(False)
    states = encoder.prefill(SOURCE)
    logp = (states.values @ encoder.embed.table.weight.T).log_softmax(-1)
    terms = [-logp[b, t, SOURCE.values[b, t + 1]] for b in range(3) for t in range(8) if SOURCE.mask[b, t + 1]]
    assert len(terms) == 8 + 4 + 0
    assert states.losses["source"].item() == pytest.approx(0.5 * sum(map(float, terms)) / 12)
    assert encoder.prefill(rows((1, 1), 3)).losses["source"].item() == 0.0
    assert encoder.eval().prefill(SOURCE).losses == {}
    assert make(causal_source=True).train().prefill(SOURCE).losses == {}


@pytest.mark.parametrize("scaled", [True, False])
def test_vectors_of_language_begin_as_the_table_does_and_maps_as_torchs(scaled: bool) -> None:
    torch.manual_seed(0)
    node = compose_node("encoder", "palm", changes={"dim": 512, "stem": {"scaled": scaled}, "depth": 1})
    encoder: Any = build(node, "encoder", ["encoders"], spec=SPEC)
    expected = 512**-0.5 if scaled else 0.02 * (768 / 512) ** 0.5
    assert float(encoder.language.weight.detach().square().mean().sqrt()) == pytest.approx(expected, rel=0.1)
    for linear in (encoder.source_maps[0].first, encoder.source_maps[0].second):
        assert float(linear.weight.detach().std()) == pytest.approx((3 * 512) ** -0.5, rel=0.02)
        assert bool(linear.bias.any())


def test_settings_without_a_meaning_are_refused() -> None:
    with pytest.raises(ValueError, match=r"encoder\.source_loss: 0\.5 .* use 0"):
        make(source_loss=0.5)
    with pytest.raises(ValueError, match=r"encoder\.source_loss"):
        make(spec=InputSpec(max_length=12, channels=3, target_length=8), causal_source=True, source_loss=0.5)
    for switch in ("joint", "shared", "coordinated"):
        with pytest.raises(ValueError, match=r"encoder\.partial"):
            make(**{switch: False})


def test_parameters_of_the_published_size() -> None:
    """By the sheet: a layer has 4 D^2 for the partial attention and 2 D^2 for F_p more than a language model's."""
    spec = InputSpec(max_length=256, vocab_size=10000, target_length=256)
    with torch.device("meta"):
        palm, model = (
            build(compose_node("encoder", "published/palm", changes=c), "encoder", ["encoders"], spec=spec)
            for c in ({}, PLAIN)
        )
    more = sum(p.numel() for p in palm.parameters()) - sum(p.numel() for p in model.parameters())
    assert more == 6 * (6 * 512**2 + 6 * 512 + 2 * 512) + 2 * 512  # biases, the norm; two language vectors
    layer = 4 * (512**2 + 512) + 2 * 512 * 1024 + 1024 + 512 + 2 * 2 * 512
    assert sum(p.numel() for p in model.parameters()) == 10000 * 512 + 6 * layer
    assert sum(p.numel() for p in palm.parameters()) == 27_199_488
