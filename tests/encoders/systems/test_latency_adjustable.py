"""Scores, costs and counts by the sheet's numbers; what stays against a slow loop; one training, many speeds."""
# B batch, H heads, L positions, N states of a layer, D width

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from encoders.base import InputSpec, Sequences
from encoders.systems import elimination
from encoders.systems.latency_adjustable import LatencyAdjustable
from seqbench.composition.nodes import compose_node
from seqbench.costs.operations import counting
from tests.contract.cases import Case
from tests.contract.encoder_checks import ENCODER_CHECKS, works_in_bfloat16
from tests.encoders.transformers_models import preset

LENGTH, VOCABULARY = 24, 50
SPEC = InputSpec(max_length=LENGTH, vocab_size=VOCABULARY)
SMALL: dict[str, Any] = {"dim": 32, "hidden": 64, "heads": 2, "depth": 3, "dropout": 0.0}
BASE = {"dim": 768, "hidden": 3072}
NOWHERE = {"_target_": "encoders.blocks.positions.NoPosition"}


def make(name: str = "latency_adjustable", spec: InputSpec = SPEC, **changes: Any) -> LatencyAdjustable:
    """A small one whose attention is far from even."""
    torch.manual_seed(0)
    encoder = preset(name, spec, **{**SMALL, **changes})
    with torch.no_grad():
        for part_name, parameter in encoder.named_parameters():
            if "qkv" in part_name:
                parameter.mul_(6)
    return encoder  # type: ignore[return-value]


def rows(*lengths: int, ids: Tensor | None = None) -> Sequences:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return Sequences(values=torch.randint(VOCABULARY, mask.shape) if ids is None else ids, mask=mask)


def sheet_weights() -> Tensor:
    """The sheet's attention: softmax over j of sin(0.37 n), n the flat index of 2 heads x 4 x 4; as a batch of one."""
    return torch.sin(0.37 * torch.arange(32, dtype=torch.float64)).reshape(1, 2, 4, 4).softmax(3)


def test_scores_of_the_sheet() -> None:
    weights, mask = sheet_weights(), torch.ones(1, 4, dtype=torch.bool)
    logits = np.sin(0.37 * np.arange(32)).reshape(2, 4, 4)
    by_hand = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    s = elimination.received(weights, mask)
    sig = elimination.significance(weights, mask)
    assert_close(s[0], torch.from_numpy(by_hand.mean((0, 1))))
    assert_close(sig[0], torch.from_numpy(by_hand.mean(0).sum(0) - by_hand.mean(0).diagonal()))
    assert_close(s[0], torch.tensor([0.263955, 0.245903, 0.241201, 0.248942]).double(), atol=5e-7, rtol=0)
    assert_close(sig[0], torch.tensor([0.914409, 0.706283, 0.772493, 0.715045]).double(), atol=5e-7, rtol=0)
    assert s[0].argsort(descending=True).tolist() == [0, 3, 1, 2]
    assert sig[0].argsort(descending=True).tolist() == [0, 2, 3, 1]
    effective, mass, above = elimination.contributions(s, mask)[:, 0].tolist()
    assert 4 * effective == pytest.approx(3.9977, abs=5e-5)
    assert (4 * mass, 4 * above) == (4, 4)  # three of four sum to 0.759; all are above 0.5 / 4


@pytest.mark.parametrize("measure", [elimination.received, elimination.significance])
def test_padding_has_no_part_in_a_score(measure: Any) -> None:
    weights, mask = torch.zeros(1, 2, 6, 6).double(), torch.tensor([[True] * 4 + [False] * 2])
    weights[:, :, :4, :4] = sheet_weights()
    weights[:, :, 4:, :4] = torch.rand(2, 4).double()  # what a padded row looks at
    assert_close(measure(weights, mask)[:, :4], measure(sheet_weights(), mask[:, :4]))


def test_contributions_by_hand() -> None:
    whole = [[0.6, 0.3, 0.08, 0.02], [0.5, 0.34, 0.11, 0.05]]  # 0.9 is 90 %, 0.84 is not; 0.11 is below 0.5 / 4
    s = torch.tensor([[*whole[0], 9.0], [0.5, 0.5, 0.0, 0.0, 9.0], [*whole[1], 9.0]])
    mask = torch.arange(5) < torch.tensor([4, 2, 4]).unsqueeze(1)
    first, last = (math.exp(-sum(p * math.log(p) for p in row)) / 4 for row in whole)
    expected = [[first, 1.0, last], [2 / 4, 1.0, 3 / 4], [2 / 4, 1.0, 2 / 4]]
    assert_close(elimination.contributions(s, mask), torch.tensor(expected))


def test_cost_of_bert_base() -> None:
    """128 states, by the sheet: gigaoperations a layer and in all, and three speed-ups."""
    assert elimination.cost(128, 128, **BASE) == 1_862_270_976
    assert 12 * elimination.cost(128, 128, **BASE) == pytest.approx(22.347252e9, rel=1e-7)
    falling = [128, 112, 96, 80, 64, 52, 40, 32, 24, 16, 8, 1]
    for counts, expected in (([64] * 12, 1.9668), ([128] * 6 + [32] * 6, 1.5508), (falling, 2.2210)):
        assert elimination.speed_up(counts, 128, **BASE) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("profile", ["effective", "linear", "geometric"])
@pytest.mark.parametrize("wanted", [1.0, 1.3, 2.0, 4.0, 8.0])
def test_gamma_gives_the_wanted_speed_up_and_no_less_gamma_does(profile: Any, wanted: float) -> None:
    measured = [0.99, 0.97, 0.98, 0.9, 0.95, 0.8]

    def parts(gamma: float) -> list[float]:
        return elimination.fractions(profile, measured, gamma)

    def gives(gamma: float) -> float:
        return elimination.speed_up([elimination.kept(alpha, 400) for alpha in parts(gamma)], 400, **BASE)

    gamma = elimination.solve(wanted, 400, **BASE, parts=parts)
    assert wanted <= gives(gamma) < wanted * 1.03
    assert gamma == 0 or gives(gamma * (1 - 1e-6)) < wanted
    alphas = parts(gamma)
    assert alphas == sorted(alphas, reverse=True)
    if profile == "effective":
        assert alphas == pytest.approx([r**gamma for r in (0.99, 0.97, 0.9699, 0.9, 0.8999, 0.8)])


@pytest.mark.parametrize("key", ["speed_up", "trained_speed_up"])
def test_a_speed_up_out_of_reach_of_any_row_is_told_at_once(key: str) -> None:
    full, least = elimination.cost(24, 24, dim=32, hidden=64), elimination.cost(1, 1, dim=32, hidden=64)
    most = 3 * full / (elimination.cost(24, 1, dim=32, hidden=64) + 2 * least)
    with pytest.raises(ValueError, match=rf"encoder\.{key}: 4.51; {most:.2f} is the most on rows of up to 24 states"):
        make(**{key: 4.51})
    with torch.no_grad():
        make(**{key: most - 0.01}, plain_steps=0)(rows(10))


def test_the_most_is_of_the_row_that_gives_it_and_not_of_the_longest() -> None:
    """Of a long row attention is the first layer's, whole: three layers of 32 gain most on 31 states."""
    small = {"dim": 32, "hidden": 64}
    each = [elimination.most(3, length, **small) for length in (30, 31, 512)]
    assert each[0] < each[1] == each[2] == elimination.speed_up([1] * 3, 31, **small)
    assert elimination.speed_up([1] * 3, 512, **small) < each[2]


def test_counts_are_at_least_one_and_exact_where_a_part_is_whole() -> None:
    assert [elimination.kept(alpha, 10) for alpha in (1.0, 0.7, 0.71, 0.1, 1e-9)] == [10, 7, 8, 1, 1]


def test_survivors_keep_their_order_the_first_one_and_ties_the_earlier() -> None:
    scores = torch.tensor([[0.0, 5.0, 1.0, 7.0, 5.0, 5.0], [0.0, 1.0, 2.0, 3.0, 99.0, 99.0]])
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    index, real = elimination.survivors(scores, mask, torch.tensor([4, 2]), 4)
    assert index[0].tolist() == [0, 1, 3, 4]
    assert index[1][real[1]].tolist() == [0, 3]
    assert real.tolist() == [[True] * 4, [True, True, False, False]]
    scores = torch.arange(60.0)[None] % 2  # so many that a sort which need not be stable is not
    index, _ = elimination.survivors(scores, torch.ones(1, 60, dtype=torch.bool), torch.tensor([9]), 9)
    assert index[0].tolist() == [0, 1, 3, 5, 7, 9, 11, 13, 15]


def test_full_speed_is_the_plain_encoder() -> None:
    encoder, plain = make(), make("encoder_only")
    weights = encoder.state_dict()
    assert set(weights) - set(plain.state_dict()) == {"contribution_3L", "states", "passes"}
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    batch = rows(24, 9, 1)
    expected = plain(batch).values
    assert torch.equal(encoder(batch).values, expected)
    every, _ = encoder._layers(*encoder.embed(batch), [1.0] * 3, "acc", torch.zeros(3))  # all stay, padding let go of
    assert_close(every[batch.mask], expected[batch.mask], atol=2e-5, rtol=1e-4)


POSITIONS = [
    {"_target_": "encoders.blocks.positions.Rotary", "base": 10000.0},
    {"_target_": "encoders.blocks.positions.Learned"},
    {"_target_": "encoders.blocks.positions.ALiBi"},
    {"_target_": "encoders.blocks.positions.RelativeBias", "buckets": 8, "max_distance": 16},
]


@pytest.mark.parametrize("position", POSITIONS, ids=lambda node: node["_target_"].rpartition(".")[2])
@pytest.mark.parametrize("score", ["acc", "sig"])
@pytest.mark.parametrize("placement", ["pre", "post"])
def test_states_are_those_of_a_slow_loop(position: dict[str, Any], score: str, placement: str) -> None:
    """Row by row, by the layer's own blocks over shorter and shorter sequences, the attention computed again."""
    encoder = make(position=position, speed_up=3.0, score=score, layer={"placement": placement}, heads=4)
    batch = rows(24, 17, 5)
    with torch.no_grad():
        found = encoder(batch).values
        x_BLD, mask_BL = encoder.embed(batch)
        for row in range(3):
            length = int(mask_BL[row].sum())
            expected = slow(encoder, x_BLD[row : row + 1, :length], score)
            assert_close(found[row, :length], expected, atol=2e-5, rtol=1e-4)


def slow(encoder: LatencyAdjustable, x_1ND: Tensor, score: str) -> Tensor:
    """States of one row without padding."""
    length, stack = x_1ND.shape[1], encoder.stack
    places = torch.arange(length)
    x_1ND = stack.enter(x_1ND, places[None])
    last = {}
    for layer, alpha in zip(stack.layers, encoder.alphas(3.0, "effective"), strict=True):
        heads = layer.attention.heads  # type: ignore[union-attr]
        inner = layer.attention_residual.enter(x_1ND)  # type: ignore[operator, union-attr]
        q, k, v = layer.attention.project(inner, stack.position.rotation(places[None]))  # type: ignore[operator, union-attr]
        bias = stack.position.bias(places[None], places[None])
        weights = (q @ k.transpose(2, 3) / math.sqrt(q.shape[3]) + (0 if bias is None else bias)).softmax(3)
        y = layer.attention.out((weights @ v).transpose(1, 2).flatten(2))  # type: ignore[operator, union-attr]
        x_1ND = layer.attention_residual.leave(x_1ND, y)  # type: ignore[operator, union-attr]
        mean = sum(weights[0, h] for h in range(heads)) / heads
        scores = [float(mean[:, j].sum()) - (float(mean[j, j]) if score == "sig" else 0) for j in range(len(places))]
        last |= {int(p): x_1ND[0, i] for i, p in enumerate(places)}
        number = max(1, math.ceil(alpha * length - 1e-6))
        best = sorted(range(1, len(places)), key=lambda j: -scores[j])[: number - 1]
        stays = torch.tensor(sorted([0, *best]))
        places, x_1ND = places[stays], x_1ND[:, stays]
        inner = layer.feed_forward_residual.enter(x_1ND)  # type: ignore[operator, union-attr]
        x_1ND = layer.feed_forward_residual.leave(x_1ND, layer.feed_forward(inner))  # type: ignore[operator, union-attr]
    last |= {int(p): x_1ND[0, i] for i, p in enumerate(places)}
    return stack.norm(torch.stack([last[p] for p in range(length)]))  # type: ignore[no-any-return]


@pytest.mark.parametrize("score", ["acc", "sig"])
def test_an_order_of_the_others_says_nothing_without_positions(score: str) -> None:
    encoder = make(position=NOWHERE, speed_up=3.0, score=score)
    ids = torch.randperm(VOCABULARY)[:20]
    turned = torch.cat([ids[:1], ids[1:][torch.randperm(19)]])
    with torch.no_grad():
        one, other = (encoder(rows(20, ids=row[None])).values[0, 0] for row in (ids, turned))
    assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("score", ["acc", "sig", "random", "first"])
@pytest.mark.parametrize("profile", ["effective", "linear"])
def test_the_contract_holds_at_other_speeds(score: str, profile: str) -> None:
    """All but bfloat16, whose roundings may choose others; what is not kept in the end has no way to the last layer."""
    changes = {**SMALL, "speed_up": 2.5, "score": score, "profile": profile}
    case = Case(compose_node("encoder", "latency_adjustable", changes=changes), "ids")
    for check in ENCODER_CHECKS:
        if check is not works_in_bfloat16:
            check(case)


def test_scores_choose_different_states() -> None:
    batch = rows(24, 24)
    with torch.no_grad():
        states = {s: make(speed_up=3.0, score=s)(batch).values for s in ("acc", "sig", "random", "first")}
    names = list(states)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert not torch.allclose(states[one][:, 0], states[other][:, 0], atol=1e-3), (one, other)


def test_random_is_even_and_another_for_each_row_and_layer() -> None:
    places = torch.arange(64).expand(500, 64)
    drawn = torch.stack([elimination.drawn(torch.arange(500), layer, places) for layer in range(2)])
    ranks = drawn.argsort(2).argsort(2).double()
    means = ranks.mean(1)  # of each place, over rows: 31.5, with deviation 18.5 / sqrt(500)
    assert (means - 31.5).abs().max() < 5 * 18.5 / math.sqrt(500)
    assert abs(float(np.corrcoef(ranks[0].flatten(), ranks[1].flatten())[0, 1])) < 0.03
    assert abs(float(np.corrcoef(ranks[0, :-1].flatten(), ranks[0, 1:].flatten())[0, 1])) < 0.03


def test_what_is_counted_is_the_formula() -> None:
    """Operations of a row by the counter that runs have, at full speed and at 2.5 times it: exactly."""
    row = rows(24)
    for wanted in (1.0, 2.5):
        encoder = make(speed_up=wanted)
        with torch.no_grad(), counting() as counter:
            encoder(row)
        counts = [elimination.kept(alpha, 24) for alpha in encoder.alphas(wanted, "effective")]
        reads = [24, *counts[:-1]]
        expected = sum(elimination.cost(n, k, dim=32, hidden=64) for n, k in zip(reads, counts, strict=True))
        assert counter.get_total_flops() == expected
        assert 3 * elimination.cost(24, 24, dim=32, hidden=64) / expected >= wanted


def test_training_measures_first_and_lets_go_then() -> None:
    encoder = make(trained_speed_up=2.5, plain_steps=2, speed_up=2.5).train()
    batch = rows(20, 8)
    before = encoder.contribution_3L.clone()
    states = encoder(batch).values
    assert_close(states[batch.mask], make().train()(batch).values[batch.mask])
    measured = encoder.contribution_3L.clone()
    assert not torch.equal(measured, before)
    assert float(encoder.states) == 14
    encoder(batch)
    assert_close(encoder.contribution_3L, measured)  # the same batch
    solved = {
        length: elimination.solve(
            2.5, length, dim=32, hidden=64, parts=lambda g: elimination.fractions("effective", measured[0].tolist(), g)
        )
        for length in (14, 24)
    }
    assert encoder.alphas(2.5, "effective") == elimination.fractions("effective", measured[0].tolist(), solved[14])
    assert abs(solved[14] - solved[24]) > 1e-3 * solved[14]  # not of the longest row
    with counting() as counter:
        states = encoder(batch).values
    assert torch.equal(encoder.contribution_3L, measured)
    plain = 2 * 3 * elimination.cost(20, 20, dim=32, hidden=64)
    assert 2.2 < plain / counter.get_total_flops() < 2.8
    assert_close(states[batch.mask], encoder.eval()(batch).values[batch.mask], atol=1e-5, rtol=1e-4)
    states.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    assert int(encoder.passes) == 3


def test_training_has_a_speed_a_score_and_a_profile_of_its_own() -> None:
    trained: dict[str, Any] = {"trained_speed_up": 2.5, "trained_score": "sig", "trained_profile": "linear"}
    encoder, batch = make(**trained, plain_steps=0).train(), rows(20, 8)
    found = encoder(batch).values[batch.mask]
    tested: dict[str, Any] = {"speed_up": 2.5, "score": "sig", "profile": "linear"}
    with torch.no_grad():
        assert_close(found, make(**tested)(batch).values[batch.mask], atol=1e-5, rtol=1e-4)
        for key, value in (("speed_up", 4.0), ("score", "acc"), ("profile", "effective"), ("speed_up", 1.0)):
            states = make(**{**tested, key: value})(batch).values[batch.mask]
            assert not torch.allclose(found, states, atol=1e-3), key
        assert_close(encoder.eval()(batch).values[batch.mask], states)


def test_the_measure_is_of_each_layer_and_goes_on_where_nothing_is_let_go_of() -> None:
    encoder = make(plain_steps=1).train()
    batch = rows(20, 8)
    with torch.no_grad():
        encoder(batch)
        x_BLD = encoder.stack.enter(*(encoder.embed(batch)[0], torch.arange(20)[None]))
        first = encoder.stack.layers[0]
        q, k, _ = first.attention.project(  # type: ignore[operator, union-attr]
            first.attention_residual.enter(x_BLD),  # type: ignore[operator, union-attr]
            encoder.stack.position.rotation(torch.arange(20)[None]),
        )
    parts = []
    for row, length in enumerate((20, 8)):
        weights = (q[row, :, :length] @ k[row, :, :length].transpose(1, 2) / 4).softmax(2)
        s = weights.mean((0, 1))
        parts.append(float(torch.exp(-(s * s.log()).sum())) / length)
    assert float(encoder.contribution_3L[0, 0]) == pytest.approx(np.mean(parts), rel=1e-5)
    other = rows(24)
    before = encoder.contribution_3L.clone()
    with torch.no_grad():
        encoder(other)  # beyond plain_steps, but at trained_speed_up 1
    assert not torch.equal(encoder.contribution_3L, before)
    assert float(encoder.states) == pytest.approx((14 + 24) / 2)


def test_a_profile_is_made_of_what_is_measured_and_not_before() -> None:
    """A plain pass asks for none, so it is not refused at lengths that no row has; an old one goes with its measure."""
    encoder, batch = make(trained_speed_up=4.4, plain_steps=1).train(), rows(20, 8)
    encoder(batch)
    with pytest.raises(ValueError, match=r"speed_up: 4.4; 4.22 is the most on rows of 14 states"):
        encoder(batch)
    encoder = make(trained_speed_up=2.5, plain_steps=2, speed_up=2.5).eval()
    with torch.no_grad():
        before = encoder(batch).values, encoder.alphas(2.5, "effective")
        encoder.train()(batch)
        after = encoder.eval()(batch).values, encoder.alphas(2.5, "effective")
    measured = encoder.contribution_3L[0].tolist()
    gamma = elimination.solve(
        2.5, 14, dim=32, hidden=64, parts=lambda g: elimination.fractions("effective", measured, g)
    )
    assert after[1] == elimination.fractions("effective", measured, gamma) != before[1]
    assert not torch.allclose(after[0], before[0], atol=1e-3)


def test_the_measure_forgets_what_is_a_hundred_passes_old() -> None:
    encoder = make().train()
    encoder.passes.fill_(5000)
    before = encoder.states.clone()
    with torch.no_grad():
        encoder(rows(20, 8))
    assert float(encoder.states) == pytest.approx(0.99 * float(before) + 0.01 * 14)


def test_published_is_bert_base() -> None:
    """109,482,240 parameters of the published checkpoint, less its pooler's 768^2 + 768."""
    spec = InputSpec(max_length=512, vocab_size=30522, streams={"type": InputSpec(max_length=512, vocab_size=2)})
    with torch.device("meta"):
        encoder = preset("published/latency_adjustable", spec)
    assert sum(p.numel() for p in encoder.parameters()) == 109_482_240 - 768**2 - 768
