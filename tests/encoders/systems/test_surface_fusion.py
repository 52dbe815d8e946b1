"""SurfaceFusion: an encoder-decoder without it, numbers of the sheet, whose gradients there are, which layers mix."""
# B batch, L source positions, T target positions, D width, V vocabulary

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from encoders.base import InputSpec, Sequences
from encoders.systems.surface_fusion_parts import fused
from seqbench.build import build
from seqbench.composition.nodes import compose_node
from tasks.heads import VocabularyHead

SPEC = InputSpec(max_length=12, vocab_size=17, target_length=8)
SMALL: dict[str, Any] = {"dim": 16, "depth": 3, "decoder_depth": 2, "heads": 2, "hidden": 24, "dropout": 0.0}
POST = {"layer": {"placement": "post"}}


def make(name: str = "surface_fusion", spec: InputSpec = SPEC, **changes: Any) -> Any:
    torch.manual_seed(0)
    encoder = build(compose_node("encoder", name, changes={**SMALL, **changes}), "encoder", ["encoders"], spec=spec)
    encoder = encoder.double().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_(std=0.3)
    return encoder


def rows(lengths: tuple[int, ...], seed: int) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 17, (len(lengths), max(lengths)), generator=generator)
    return Sequences(values=values, mask=torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1))


SOURCE, TARGET = rows((9, 5, 1), 1), rows((6, 8, 3), 2)


def target_states(encoder: Any) -> Tensor:
    states: Tensor = encoder.decode(TARGET, encoder.prefill(SOURCE)).values[TARGET.mask]
    return states


def head_of(encoder: Any) -> VocabularyHead:
    return VocabularyHead(encoder=encoder, vocab_size=17, tie=True).double()


def plain(**changes: Any) -> Any:
    place = compose_node("encoder", "surface_fusion")["position"]
    return make("encoder_decoder", position=place, **changes)


@pytest.mark.parametrize("changes", [{}, POST], ids=["pre", "post"])
def test_without_fusion_and_with_all_of_the_gate_it_is_the_encoder_decoder(changes: dict[str, Any]) -> None:
    theirs = plain(**changes)
    none, surface = make(fusion="none", residual=False, **changes), make(gate=1.0, residual=False, **changes)
    none.load_state_dict(theirs.state_dict())
    assert surface.load_state_dict(theirs.state_dict(), strict=False).unexpected_keys == []
    expected = target_states(theirs)
    assert torch.equal(target_states(none), expected)
    assert_close(none(SOURCE).values[SOURCE.mask], theirs(SOURCE).values[SOURCE.mask], atol=1e-12, rtol=0)
    states = target_states(surface)
    assert states.shape == (17, 32)
    assert torch.equal(states[:, :16], expected)
    scores = head_of(surface)(states, surface)
    assert torch.equal(scores, head_of(theirs)(expected, theirs).log_softmax(1))


def test_fusions_of_the_sheet() -> None:
    t, s = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 0.0, 1.0])
    hard = fused(t, s, mode="hard", gate=0.8, temperature=1.0)
    assert hard.tolist() == pytest.approx([-1.9601, -1.7601, -0.7601], abs=5e-5)
    assert hard.exp().sum().item() == pytest.approx(0.7805, abs=5e-5)
    soft = {k: fused(t, s, mode="soft", gate=None, temperature=k) for k in (1.0, 0.2)}
    assert soft[1.0].tolist() == pytest.approx([-0.7586, -2.7586, -0.7586], abs=5e-5)
    assert soft[0.2].tolist() == pytest.approx([-2.0075, -1.6075, -0.4075], abs=5e-5)
    assert_close(fused(t, s, mode="postnorm", gate=None, temperature=0.2), soft[0.2])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_training_has_the_two_cross_entropies(smoothing: float) -> None:
    encoder = make(gate=0.8)
    head, states, label = head_of(encoder), target_states(encoder), TARGET.values[TARGET.mask]
    scores = head(states, encoder)
    t, s = (
        F.cross_entropy(part @ encoder.token_embedding.T + head.bias, label, label_smoothing=smoothing)
        for part in states.chunk(2, dim=1)
    )
    assert_close(head.loss(scores, label, encoder, smoothing=smoothing), 0.8 * t + 0.2 * s, atol=1e-10, rtol=0)
    tested = head.eval().loss(scores, label, encoder, smoothing=0.0)
    p = scores.exp() / scores.exp().sum(1, keepdim=True)
    assert tested.item() == pytest.approx(-p.log()[torch.arange(17), label].mean().item())
    with pytest.raises(ValueError, match="some of them"):
        head.some(states, label[:, None], encoder)


def test_a_table_of_the_tasks_own_serves_both() -> None:
    encoder = make(gate=0.8)
    head, states = VocabularyHead(encoder=encoder, vocab_size=17, tie=False).double(), target_states(encoder)
    t, s = (head.linear(part).log_softmax(1) for part in states.chunk(2, dim=1))
    assert_close(head(states, encoder), 0.8 * t + 0.2 * s, atol=1e-12, rtol=0)


def test_the_surface_gives_gradients_to_embeddings_and_its_own_alone() -> None:
    encoder = make()
    t, s = target_states(encoder).chunk(2, dim=1)

    def with_gradient(out: Tensor) -> set[str]:
        encoder.zero_grad()
        (out @ encoder.token_embedding.T).log_softmax(1)[:, 0].sum().backward(retain_graph=True)
        found = {n for n, p in encoder.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        return {name.split(".")[0] for name in found}

    assert with_gradient(s) == {"embed", "surface", "residual"}
    assert with_gradient(t) == {"embed", "encoder", "decoder", "residual"}
    encoder = make(value="top")  # a control: what stands in the embeddings' place has the gradient that they had
    assert with_gradient(target_states(encoder).chunk(2, dim=1)[1]) == {"embed", "encoder", "surface", "residual"}


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("value", ["embedding", "top"])
def test_the_surface_is_one_head_over_embeddings(residual: bool, value: str) -> None:
    """By the sheet's equations, each row alone."""
    encoder = make(residual=residual, value=value)
    found = encoder.decode(TARGET, encoder.prefill(SOURCE)).values
    bare = make(residual=False, value=value)
    bare.load_state_dict(encoder.state_dict(), strict=False)
    for row in range(3):
        length, end = int(SOURCE.mask[row].sum()), int(TARGET.mask[row].sum())
        h = bare.decode(TARGET, bare.prefill(SOURCE)).values[row, :end, :16]
        one = Sequences(values=SOURCE.values[row : row + 1, :length], mask=SOURCE.mask[row : row + 1, :length])
        top = bare.prefill(one).values[0, :, :16]
        x0 = 4.0 * encoder.embed.table(SOURCE.values[row, :length]) if value == "embedding" else top
        a = encoder.surface
        weights = (a.query(h) @ a.key(top).T / 4.0).softmax(1)
        e = a.out(weights @ a.value(x0))
        if residual:
            h, e = (x + encoder.residual.down(encoder.residual.up(x).relu()) for x in (h, e))
        assert_close(found[row, :end], torch.cat([h, e], 1), atol=1e-10, rtol=0)


def test_the_gate_may_be_learnt() -> None:
    encoder = make(gate=None)
    states = target_states(encoder)
    scores = head_of(encoder)(states, encoder)
    t, s = ((part @ encoder.token_embedding.T).log_softmax(1) for part in states.chunk(2, dim=1))
    gate = torch.sigmoid(states @ encoder.gating.weight.T + encoder.gating.bias)
    assert_close(scores, gate * t + (1 - gate) * s, atol=1e-10, rtol=0)
    assert gate.max() - gate.min() > 0.2


@pytest.mark.parametrize("mode", ["soft", "postnorm"])
def test_soft_fusion_is_of_the_mode_and_the_temperature(mode: str) -> None:
    encoder = make(mode=mode, temperature=0.4, gate=None)
    states = target_states(encoder)
    t, s = (part @ encoder.token_embedding.T for part in states.chunk(2, dim=1))
    scores = head_of(encoder)(states, encoder)
    assert_close(scores, (t + (0.4 * s).log_softmax(1)).log_softmax(1), atol=1e-10, rtol=0)
    scores.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())  # nor has it a gate that nobody reads


def test_embeddings_are_dropped_as_the_encoders_input_is() -> None:
    encoder = make(dropout=0.5).train()
    seen: dict[str, Tensor] = {}
    encoder.encoder.layers[0].register_forward_pre_hook(lambda m, x: seen.update(input=x[0]))
    encoder.surface.value.register_forward_pre_hook(lambda m, x: seen.update(value=x[0]))
    encoder.prefill(SOURCE)
    assert torch.equal(seen["input"] == 0, seen["value"] == 0)
    assert 0.3 < (seen["value"] == 0).double().mean() < 0.7
    whole = 2.0 * 4.0 * encoder.embed.table(SOURCE.values)
    assert_close(seen["value"], torch.where(seen["value"] == 0, 0.0, whole))


def test_a_shift_of_positions_reaches_its_encoder() -> None:
    """Which goes through the layers by itself: in training a source stands further out (seqpe_switch.py)."""
    position = compose_node("encoder", "seqpe", changes={"position": {"kind": "sinusoidal", "chance": 1.0}})["position"]
    encoder = make(position=position)
    still = encoder.prefill(SOURCE).values[SOURCE.mask]
    moved = encoder.train().prefill(SOURCE).values[SOURCE.mask]
    assert (still - moved).abs().max() > 1e-2


@pytest.mark.parametrize("fusion", ["coarse", "fine"])
@pytest.mark.parametrize("changes", [{}, POST], ids=["pre", "post"])
def test_layer_fusion_with_all_weight_on_the_top_is_the_encoder_decoder(fusion: str, changes: dict[str, Any]) -> None:
    """Up to the further norm, behind blocks; with equal weights it reads the mean of the layers."""
    ours, theirs = make(fusion=fusion, residual=False, **changes), plain(**changes)
    kept = ours.load_state_dict(theirs.state_dict(), strict=False).missing_keys
    assert {name.split(".")[0] for name in kept} == {"table", *(["surface_norm", "mix_norm"] if changes else [])}
    assert ours.table.shape == (2, 4, 16 if fusion == "fine" else 1)
    with torch.no_grad():
        ours.table.zero_()
        for norm in (ours.surface_norm, ours.mix_norm):
            for parameter, number in zip(norm.parameters(), (1.0, 0.0), strict=False):
                parameter.fill_(number)
    layers: list[Tensor] = []
    for layer in ours.encoder.layers:
        layer.register_forward_hook(lambda m, x, out: layers.append(out[0]))
    x0 = 4.0 * ours.embed.table(SOURCE.values)
    read: list[Tensor] = []
    handle = ours.decoder.layers[1].cross.key_value.register_forward_pre_hook(lambda m, x: read.append(x[0]))
    before = target_states(ours)
    x0 = F.layer_norm(x0, (16,)) if changes else x0
    mean = (x0 + sum(layers[:3])) / 4
    norm = (lambda x: F.layer_norm(x, (16,))) if changes else ours.encoder.norm
    assert_close(read[0], norm(mean), atol=1e-10, rtol=0)
    assert ours.layer_weights().tolist() == [[0.25] * 4] * 2
    with torch.no_grad():
        ours.table[1] = torch.tensor([3.0, 2.0, 1.0, 4.0]).log().unsqueeze(1)
    told = ours.told()
    assert [told[f"weight_2_{n}"] for n in range(4)] == pytest.approx([0.3, 0.2, 0.1, 0.4])
    assert told["embedding_lead"] == pytest.approx(0.3 - 0.2)  # the top is not between
    assert theirs.told() == make().told() == {}
    with torch.no_grad():
        ours.table.zero_()
        ours.table[:, 3] = 30.0
    if changes:
        handle.remove()
        top = theirs.prefill(SOURCE).values
        memory = theirs.decoder.remember(F.layer_norm(top, (16,)))
        x = theirs.embed(TARGET)[0]
        expected, _ = theirs.decoder(x, TARGET.mask, memory=memory, memory_mask=SOURCE.mask)
        assert_close(target_states(ours), expected[TARGET.mask], atol=1e-8, rtol=0)
    else:
        assert_close(target_states(ours), target_states(theirs), atol=1e-8, rtol=0)
    assert not torch.allclose(before, target_states(ours), atol=1e-3)


@pytest.mark.parametrize("part, rate", [("weight_dropout", 0.4), ("mix_dropout", 0.2)])
def test_weights_of_layers_and_what_they_mix_are_dropped(part: str, rate: float) -> None:
    encoder = make(fusion="fine", residual=False, dropout=0.2, layer={"attention": {"dropout": 0.4}})
    assert encoder.get_submodule(part).p == rate

    def keys() -> Tensor:
        torch.manual_seed(3)
        return encoder.prefill(SOURCE).cache["source"].value[0][0][0]  # type: ignore[no-any-return]

    before = keys()
    encoder.get_submodule(part).train()  # it alone
    assert not torch.allclose(before, keys())


def test_the_surface_and_the_further_feed_forward_are_dropped_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention weights at attention's rate; both maps of the feed-forward, of both streams, at the model's."""
    encoder = make(dropout=0.2, layer={"attention": {"dropout": 0.4}}).train()
    dropped: list[tuple[float, int]] = []
    for part in encoder.residual.modules():
        if isinstance(part, torch.nn.Dropout):
            part.register_forward_hook(lambda module, given, out: dropped.append((module.p, out.shape[2])))
    attend, rates = F.scaled_dot_product_attention, []

    def seen(query: Tensor, *given: Any, **more: Any) -> Tensor:
        rates.append((query.shape[1], more["dropout_p"]))
        return attend(query, *given, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", seen)
    encoder.decode(TARGET, encoder.prefill(SOURCE))
    assert dropped == [(0.2, 24), (0.2, 16)] * 2
    assert [rate for heads, rate in rates if heads == 1] == [0.4]
    encoder.eval().decode(TARGET, encoder.prefill(SOURCE))
    assert [rate for heads, rate in rates if heads == 1] == [0.4, 0.0]


def test_the_published_preset_is_the_published_recipe() -> None:
    """What no count of parameters tells."""
    node = compose_node("encoder", "published/surface_fusion")
    recipe: dict[str, Any] = {"fusion": "surface", "mode": "hard", "gate": 0.8, "residual": True, "dropout": 0.3}
    recipe |= {
        "value": "embedding",
        "dim": 512,
        "depth": 6,
        "decoder_depth": None,
        "heads": 8,
        "hidden": 2048,
        "temperature": 1.0,
    }
    assert {key: node[key] for key in recipe} == recipe
    layer = node["layer"]
    assert (layer["placement"], layer["feed_forward"]["activation"]) == ("post", "relu")
    assert (layer["attention"]["dropout"], layer["feed_forward"]["dropout"]) == (0.0, 0.0)
    assert (node["stem"]["scaled"], node["stem"]["norm"]) == (True, False)
    assert node["position"]["_target_"].endswith(".Sinusoidal")


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"value": "top"}, {"fusion": "fine"}, {"fusion": "coarse", **POST}])
def test_a_target_in_pieces_and_by_beams_is_the_target(changes: dict[str, Any]) -> None:
    """Each row as alone, too; and the read-out of a source that is padded."""
    encoder = make(**changes)
    whole, states, found = target_states(encoder), encoder.prefill(SOURCE), []
    two = torch.arange(3).repeat_interleave(2)
    beams = encoder.decode(Sequences(values=TARGET.values[two], mask=TARGET.mask[two]), states.select(two)).values
    for piece in (slice(0, 3), slice(3, 4), slice(4, 8)):
        states = encoder.decode(Sequences(values=TARGET.values[:, piece], mask=TARGET.mask[:, piece]), states)
        found.append(states.values)
    for again in (beams[::2], beams[1::2], torch.cat(found, 1)):
        assert_close(again[TARGET.mask], whole, atol=1e-10, rtol=0)
    for row, length in enumerate((9, 5, 1)):
        one = Sequences(values=SOURCE.values[row : row + 1, :length], mask=SOURCE.mask[row : row + 1, :length])
        assert_close(encoder(SOURCE).values[row, :length], encoder(one).values[0], atol=1e-10, rtol=0)


def test_layers_without_the_embeddings_start_in_bounds() -> None:
    torch.manual_seed(0)
    node = compose_node("encoder", "surface_fusion", changes={**SMALL, "fusion": "fine", "embedding_layer": False})
    encoder: Any = build(node, "encoder", ["encoders"], spec=SPEC)
    assert encoder.table.shape == (2, 3, 16)
    bound = math.sqrt(2 / (2 + 3 + 1))
    assert 0.9 * bound < encoder.table.abs().max() <= bound
    assert encoder.outputs == 1
    assert set(encoder.told()) == {f"weight_{m}_{n}" for m in (1, 2) for n in (1, 2, 3)}


def test_parameters_of_the_published_size() -> None:
    spec = InputSpec(max_length=256, vocab_size=32000, target_length=256)

    def count(**changes: Any) -> int:
        with torch.device("meta"):
            node = compose_node("encoder", "published/surface_fusion", changes=changes)
            return sum(p.numel() for p in build(node, "encoder", ["encoders"], spec=spec).parameters())

    none = count(fusion="none", residual=False)
    assert count(fusion="none") - none == 2_099_712
    assert count(residual=False) - none == 4 * (512**2 + 512) == 1_050_624
    attention, forward, norm = 4 * (512**2 + 512), 2 * 512 * 2048 + 2048 + 512, 2 * 512
    assert none == 32000 * 512 + 6 * (attention + forward + 2 * norm) + 6 * (2 * attention + forward + 3 * norm)
    assert count() == 63_672_832
