"""Uni-Encoder: scores of the official module by formula, order, padding, one candidate, what sees what, the loop."""
# B batch, L positions, D width, N candidates

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from encoders.base import Encoder, InputSpec, Sequences
from encoders.conversion import bert_names, convert
from encoders.systems.uni_encoder import UniEncoder, part_positions
from tests.encoders.transformers_models import preset

SPEC = InputSpec(max_length=64, vocab_size=40, streams={"part": InputSpec(max_length=64, vocab_size=9)})
SMALL: dict[str, Any] = {"dim": 16, "depth": 2, "heads": 2, "hidden": 32, "dropout": 0.0}
CONTEXT, CANDIDATES = [2, 5, 6, 7, 8, 3], [[2, 10, 11, 3], [2, 12, 3], [2, 13, 14, 15, 3]]
OFFICIAL = {  # the sheet's, from the official module (dll-wu/Uni-Encoder@3c8186c): together, alone, running positions
    "arrow": (
        [-0.360527, -0.373865, -0.398560],
        [-0.357642, -0.364475, -0.382813],
        [-0.371119, -0.332910, -0.480410],
    ),
    "square": (
        [-0.332997, -0.338973, -0.343800],
        [-0.357642, -0.364475, -0.382813],
        [-0.377845, -0.377685, -0.388927],
    ),
    "diag": (
        [-0.288497, -0.136485, -0.346821],
        [-0.288497, -0.136485, -0.346821],
        [-0.288497, -0.479515, 0.483633],
    ),
}


def packed(candidates: Sequence[Sequence[int]], context: Sequence[int] = CONTEXT, padding: int = 0) -> Sequences:
    """One row: the context, then the candidates; padding of another id behind."""
    ids = [*context, *(i for ids in candidates for i in ids), *[9] * padding]
    parts = [0] * len(context) + [n for n, ids in enumerate(candidates, 1) for _ in ids] + [7] * padding
    mask = torch.arange(len(ids))[None] < len(ids) - padding
    return Sequences(
        values=torch.tensor([ids]), mask=mask, streams={"part": Sequences(values=torch.tensor([parts]), mask=mask)}
    )


def wave(k: int, *shape: int) -> Tensor:
    """Tensor number k of the sheet: 0.3 sin(0.37 i + k) of the flattened index i."""
    count = torch.Size(shape).numel()
    return (0.3 * torch.sin(0.37 * torch.arange(count, dtype=torch.float64) + k)).float().view(shape)


def formula(encoder: Encoder) -> tuple[Tensor, Tensor]:
    """Fill the encoder by the sheet's formula, tensors in the official order; gives weight and bias of the head."""
    names = [
        *(f"embeddings.{name}_embeddings.weight" for name in ("word", "position", "token_type")),
        *(f"embeddings.LayerNorm.{end}" for end in ("weight", "bias")),
        *(
            f"encoder.layer.{layer}.{part}.{end}"
            for layer in range(2)
            for part in (
                *(f"attention.self.{one}" for one in ("query", "key", "value")),
                "attention.output.dense",
                "attention.output.LayerNorm",
                "intermediate.dense",
                "output.dense",
                "output.LayerNorm",
            )
            for end in ("weight", "bias")
        ),
    ]
    assert len(names) == 37
    shapes = {"word": (40, 16), "position": (64, 16), "token_type": (2, 16)}
    theirs = {}
    for k, name in enumerate(names):
        if "LayerNorm" in name:
            theirs[name] = torch.ones(16) if name.endswith("weight") else torch.zeros(16)
            continue
        table = next((shape for key, shape in shapes.items() if f".{key}_emb" in name), None)
        width = 32 if "intermediate" in name else 16
        inner = 32 if name.split(".")[3:5] == ["output", "dense"] else 16
        theirs[name] = wave(k, *(table or ((width, inner) if name.endswith("weight") else (width,))))
    weights = convert(theirs, bert_names(prefix="", offset=0), encoder.state_dict())
    weights["embed.table.weight"] = theirs["embeddings.word_embeddings.weight"]  # without a type in it
    weights["token_type.weight"] = theirs["embeddings.token_type_embeddings.weight"]
    encoder.load_state_dict(weights)
    # between the last layer and the head: pooler 2, masked language model 5, next sentence 2 tensors
    return wave(46, 1, 16), wave(47, 1)


def make(**changes: Any) -> UniEncoder:
    torch.manual_seed(0)
    encoder = preset("uni_encoder", SPEC, **{**SMALL, **changes})
    assert isinstance(encoder, UniEncoder)
    return encoder


@torch.no_grad()
def means(encoder: Encoder, source: Sequences) -> Tensor:
    """Mean state of each candidate, (N, D)."""
    states = encoder(source).values[0]
    part_L = source.streams["part"].values[0] * source.mask[0]
    return torch.stack([states[part_L == n].mean(0) for n in range(1, int(part_L.max()) + 1)])


@pytest.mark.parametrize("attention", OFFICIAL)
def test_scores_are_those_of_the_official_module(attention: str) -> None:
    """Its weights and figures by the sheet's formula; ours differ from them by their rounding, 5e-7 at most."""
    together, alone, running = OFFICIAL[attention]
    encoder = make(attention=attention)
    weight, bias = formula(encoder)

    def scores(encoder: Encoder, candidates: Sequence[Sequence[int]]) -> list[float]:
        return (means(encoder, packed(candidates)) @ weight[0] + bias).tolist()

    assert scores(encoder, CANDIDATES) == pytest.approx(together, abs=2e-6)
    assert [scores(encoder, [one])[0] for one in CANDIDATES] == pytest.approx(alone, abs=2e-6)
    other = make(attention=attention, same_positions=False)
    formula(other)
    assert scores(other, CANDIDATES) == pytest.approx(running, abs=2e-6)


@pytest.mark.parametrize("attention", OFFICIAL)
def test_candidates_may_stand_in_any_order(attention: str) -> None:
    encoder = make(attention=attention)
    h_ND, turned_ND = means(encoder, packed(CANDIDATES)), means(encoder, packed(CANDIDATES[::-1]))
    assert_close(turned_ND.flip(0), h_ND, atol=1e-6, rtol=0)
    running = make(attention=attention, same_positions=False)
    moved = means(running, packed(CANDIDATES[::-1])).flip(0) - means(running, packed(CANDIDATES))
    assert moved.abs().amax() > 1e-3


@pytest.mark.parametrize("attention", OFFICIAL)
@pytest.mark.parametrize("same", [True, False])
def test_padding_and_neighbours_in_the_batch_change_nothing(attention: str, same: bool) -> None:
    encoder = make(attention=attention, same_positions=same)
    alone = means(encoder, packed(CANDIDATES))
    assert_close(means(encoder, packed(CANDIDATES, padding=5)), alone, atol=1e-6, rtol=0)


def test_one_candidate_is_bert_on_the_pair() -> None:
    """States of BERT with the same weights, its token types given as the stream "type"."""
    types = InputSpec(max_length=64, vocab_size=2)
    bert = preset("bert", InputSpec(max_length=64, vocab_size=40, streams={"type": types}), **SMALL)
    source = packed(CANDIDATES[:1], padding=2)
    typed = Sequences(values=source.values, mask=source.mask, streams={"type": source.streams["part"]})
    typed.streams["type"].values.clamp_max_(1)
    for attention in ("arrow", "square"):
        encoder = make(attention=attention)
        weights = {key.replace("token_type", "embed.streams.stream_type"): w for key, w in encoder.state_dict().items()}
        bert.load_state_dict(weights)
        with torch.no_grad():
            got, expected = encoder(source).values, bert(typed).values
        assert_close(got[source.mask], expected[source.mask], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "attention, depth, reaches",
    [("diag", 1, False), ("diag", 2, False), ("arrow", 1, False), ("arrow", 2, True), ("square", 1, True)],
)
def test_what_reaches_a_candidate_of_another(attention: str, depth: int, reaches: bool) -> None:
    """With arrow only what the context brings back, so nothing in one layer."""
    encoder = make(attention=attention, depth=depth)
    other = [CANDIDATES[0], [2, 30, 31, 32, 3], CANDIDATES[2]]
    moved_ND = (means(encoder, packed(other)) - means(encoder, packed(CANDIDATES))).abs()
    assert moved_ND[1].max() > 1e-2
    assert float(moved_ND[[0, 2]].max()) == pytest.approx(0.0, abs=1e-6) or reaches
    assert (moved_ND[[0, 2]].max() > 1e-4) == reaches


@torch.no_grad()
def test_the_context_sees_candidates_but_in_diag() -> None:
    for attention in OFFICIAL:
        encoder = make(attention=attention)
        one, other = (encoder(packed(c)).values[0, : len(CONTEXT)] for c in (CANDIDATES, [[2, 30, 3]]))
        assert ((one - other).abs().amax() < 1e-6) == (attention == "diag")


def test_mask_and_positions_are_those_of_the_loop() -> None:
    """Parts in any order and interleaved, against loops over queries and keys."""
    part_BL = torch.randint(4, (5, 11))
    mask_BL = torch.arange(11) < torch.tensor([11, 9, 7, 4, 1])[:, None]
    part_BL = part_BL * mask_BL
    source = Sequences(
        values=torch.randint(40, (5, 11)), mask=mask_BL, streams={"part": Sequences(values=part_BL, mask=mask_BL)}
    )
    own_BLL = part_BL[:, :, None] == part_BL[:, None, :]
    positions_BL = part_positions(part_BL, own_BLL, mask_BL)
    assert not positions_BL[~mask_BL].any()  # so padding stands on no position that there may not be
    for row in range(5):
        real = [t for t in range(11) if mask_BL[row, t]]
        part = part_BL[row].tolist()
        context = sum(part[t] == 0 for t in real)
        for t in real:
            rank = sum(part[s] == part[t] for s in real if s < t)
            assert positions_BL[row, t] == rank + (context if part[t] else 0)
    for attention in OFFICIAL:
        layout = make(attention=attention)._layout(part_BL, mask_BL)
        assert layout.seen is not None
        seen = layout.seen.expand(5, 1, 11, 11)[:, 0]
        for row in range(5):
            real = [t for t in range(11) if mask_BL[row, t]]
            part = part_BL[row].tolist()
            for t in real:
                expected = {
                    s
                    for s in real
                    if attention == "square" or part[s] == part[t] or (attention == "arrow" and 0 in (part[s], part[t]))
                }
                assert set(seen[row, t].nonzero().flatten().tolist()) == expected
        assert seen.any(2).all()  # padding sees something, so that nothing is NaN
        assert torch.isfinite(make(attention=attention)(source).values).all()


@torch.no_grad()
def test_candidates_share_positions_so_that_a_source_may_be_longer_than_they() -> None:
    spec = InputSpec(max_length=11, vocab_size=40, streams=SPEC.streams)
    source = packed([CANDIDATES[2]] * 8)
    assert source.values.shape[1] == 46
    equal_ND = means(preset("uni_encoder", spec, **SMALL), source)
    assert equal_ND.std(0).max() < 1e-6  # equal ones stand on equal positions
    with pytest.raises(ValueError, match=r"a context and a candidate of 12 positions; .* at most 11"):
        preset("uni_encoder", spec, **SMALL)(packed([[*CANDIDATES[2], 4], *CANDIDATES[:2]]))
    with pytest.raises(ValueError, match=r"same_positions: false, .* 46 positions; .* at most 11; use true"):
        preset("uni_encoder", spec, **SMALL, same_positions=False)(source)


def test_merged_positions_are_refused() -> None:
    spec = InputSpec(max_length=8, channels=3, streams={"part": InputSpec(max_length=8, vocab_size=3)})
    with pytest.raises(ValueError, match="patch: 2 positions are merged"):
        preset("uni_encoder", spec, patch=2)


def test_tables_begin_as_berts() -> None:
    encoder = preset("uni_encoder", SPEC, dim=768, depth=1, hidden=8)
    for table in (encoder.get_parameter("token_type.weight"), encoder.get_parameter("stack.position.table.weight")):
        assert float(table.detach().square().mean().sqrt()) == pytest.approx(0.02, rel=0.1)


def test_published_parameters() -> None:
    """BERT base without its pooler; with the head of one score 769 more."""
    with torch.device("meta"):
        encoder = preset("published/uni_encoder", InputSpec(max_length=512, vocab_size=30522, streams=SPEC.streams))
    embeddings = (30522 + 512 + 2 + 2) * 768
    layer = 4 * (768 * 768 + 768) + 768 * 3072 + 3072 + 3072 * 768 + 768 + 4 * 768
    assert sum(p.numel() for p in encoder.parameters()) == embeddings + 12 * layer == 108_891_648
