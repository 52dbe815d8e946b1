"""Layers without their causal mask: the sheet's toy numbers, what leaks from where, both ends of the family."""
# B batch, L positions, D width

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from encoders.base import InputSpec, Sequences
from encoders.blocks.masks import sight
from seqbench.build import build
from seqbench.composition.nodes import compose_node

SPEC = InputSpec(max_length=12, vocab_size=17)
BITS = ["".join(bits) for bits in itertools.product("01", repeat=4)]  # by the paper's numbers, 0 to 15
TOY = {  # first entries of the output at position 0, from the paper's sheet
    "0000": (8.0332, 6.5900, -0.3463),
    "1000": (-5.4983, -2.4742, 2.8521),
    "0001": (7.6748, 5.8306, -0.6768),
    "1111": (0.4975, 0.3849, 0.2589),
}


def make(name: str = "unmasked_layers", **changes: Any) -> Any:
    torch.manual_seed(0)
    return build({**compose_node("encoder", name), **changes}, "encoder", ["encoders"], spec=SPEC).eval()


def rows(lengths: tuple[int, ...] = (9, 6), seed: int = 1) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 17, (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return Sequences(values=values, mask=mask)


@pytest.mark.parametrize("bits", TOY)
def test_toy_numbers_of_the_sheet(bits: str) -> None:
    """Single-head attention without norms and feed-forward over a formula's inputs, by our mask and kernel."""
    i = torch.arange(48, dtype=torch.float64)
    x_LD = torch.sin(0.3 * i).reshape(6, 8)
    index = torch.arange(64, dtype=torch.float64)
    for layer, causal in enumerate(make(unmasked=bits).stack.causal):
        q, k, v = (x_LD @ (0.4 * torch.cos(index * (0.7 + 0.1 * layer + 0.05 * j))).reshape(8, 8) for j in range(3))
        seen = sight(None, None, causal=causal, queries=6)
        out = torch.nn.functional.scaled_dot_product_attention(
            q[None, None], k[None, None], v[None, None], is_causal=seen.causal, scale=1 / math.sqrt(8)
        )
        x_LD = x_LD + out[0, 0]
    assert x_LD[0, :3].tolist() == pytest.approx(TOY[bits], abs=6e-5)


@pytest.mark.parametrize("bits", BITS)
def test_the_last_token_reaches_all_positions_if_any_group_is_unmasked(bits: str) -> None:
    encoder, source = make(unmasked=bits), rows((9,))
    assert encoder.causal == (bits == "0000")
    values = source.values.clone()
    values[0, -1] = (values[0, -1] + 1) % 17
    before, after = (encoder(Sequences(values=v, mask=source.mask)).values for v in (source.values, values))
    moved = (before != after).any(-1)[0]
    assert bool(moved[-1])
    assert bool(moved[:-1].all()) is (bits != "0000")
    assert bool(moved[:-1].any()) is (bits != "0000")


def test_both_ends_are_the_families() -> None:
    source = rows()
    for bits, family in (("0000", "decoder_only"), ("1111", "encoder_only")):
        ours, theirs = make(unmasked=bits), make(family)
        theirs.load_state_dict(ours.state_dict())
        a, b = ours(source), theirs(source)
        torch.testing.assert_close(a.values[a.mask], b.values[b.mask], atol=1e-6, rtol=0)


def test_settings_have_the_same_weights_and_the_first_bit_is_next_to_the_input() -> None:
    shapes = {tuple((n, tuple(p.shape)) for n, p in make(unmasked=bits).named_parameters()) for bits in BITS}
    assert len(shapes) == 1
    assert make(unmasked="1000").stack.causal == (False, True, True, True)
    assert make(unmasked="01").stack.causal == (True, True, False, False)


def test_unmasked_layers_see_what_is_real_alone() -> None:
    encoder = make(unmasked="1010")
    padded, alone = rows((9, 6)), rows((9, 6))
    values = padded.values.clone()
    values[1, 6:] = 3
    first = encoder(Sequences(values=values, mask=padded.mask)).values[1, :6]
    cut = Sequences(values=alone.values[1:, :6], mask=alone.mask[1:, :6])
    torch.testing.assert_close(first, encoder(cut).values[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("bits", ["", "0120", "00000", "000"])
def test_bits_that_are_none(bits: str) -> None:
    with pytest.raises(ValueError, match=r"encoder\.unmasked"):
        make(unmasked=bits)


def test_parameters_of_the_published_size() -> None:
    """The sheet's 67.99 M as a language model and 67.36 M as a tagger of nine: with RoBERTa's two padding positions and
    its one token type, and what stands behind the stack.
    """
    spec = InputSpec(max_length=512, vocab_size=50265)
    with torch.device("meta"):
        encoder: Any = build(compose_node("encoder", "published/unmasked_roberta4"), "encoder", ["encoders"], spec=spec)
    assert len(encoder.stack.causal) == 4
    layer = 4 * (768**2 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    number = sum(p.numel() for p in encoder.parameters())
    assert number == (50265 + 512 + 2) * 768 + 4 * layer == 67_349_760
    roberta = number + (2 + 1) * 768
    assert roberta + 9 * 768 + 9 == pytest.approx(67.36e6, abs=5e3)
    assert roberta + 768**2 + 768 + 2 * 768 + 50265 == pytest.approx(67.99e6, abs=5e3)
