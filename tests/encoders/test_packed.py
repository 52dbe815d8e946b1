"""Padding-free against padded: the same states, gradients and continuations, for every family and kind of position."""
# B batch, L positions, N real positions, D width, H heads, E width of a head

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from encoders.base import Decoder, Encoder, InputSpec, Sequences
from encoders.blocks.masks import Sight
from encoders.blocks.packed_attention import PackedSight, _padded, packed_attention
from encoders.blocks.segments import Segments
from seqbench.build import build
from seqbench.composition.nodes import compose_node
from seqbench.costs.operations import counting

P = "encoders.blocks.positions."
POSITIONS: dict[str, dict[str, Any]] = {
    "none": {"_target_": f"{P}NoPosition"},
    "learned": {"_target_": f"{P}Learned"},
    "sinusoidal": {"_target_": f"{P}Sinusoidal", "base": 10000.0},
    "rotary": {"_target_": f"{P}Rotary", "base": 10000.0},
    "alibi": {"_target_": f"{P}ALiBi"},
    "t5": {"_target_": f"{P}RelativeBias", "buckets": 8, "max_distance": 16},
}
FAMILIES = ("encoder_only", "decoder_only", "encoder_decoder")
PRESETS = ("bert", "gpt2", "llama", "t5", "bart")
LENGTHS = [5, 11, 1, 5, 8, 11]
SPEC = InputSpec(max_length=12, vocab_size=19, target_length=7)


def make(name: str, position: str | None = None, *, spec: InputSpec = SPEC, **changes: Any) -> Encoder:
    node = {**compose_node("encoder", name), "dim": 16, "hidden": 24, "depth": 2, "dropout": 0.0, **changes}
    if position is not None:
        node["position"] = POSITIONS[position]
    torch.manual_seed(0)
    encoder = build(node, "encoder", ["encoders"], spec=spec)
    assert isinstance(encoder, Encoder)
    return encoder.eval()


def ids(lengths: list[int], *, seed: int = 1) -> Sequences:
    """Right-padded rows with random ids, at padding, too."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return Sequences(values=torch.randint(19, mask.shape, generator=torch.Generator().manual_seed(seed)), mask=mask)


def read(encoder: Encoder, lengths: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
    """States at real positions, and the gradients of a loss over them."""
    source = ids(lengths)
    states = encoder(source)
    assert torch.equal(states.mask, source.mask)
    real = states.values[states.mask]
    (real * torch.linspace(-1, 1, real.numel()).view_as(real)).sum().backward()
    gradients = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad(set_to_none=True)
    return real.detach(), gradients


def taught(encoder: Decoder, sources: list[int], targets: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
    """The same of a target that is continued at once, as in teacher forcing."""
    states = encoder.decode(ids(targets, seed=2), encoder.prefill(ids(sources)))
    real = states.values[states.mask]
    (real * torch.linspace(-1, 1, real.numel()).view_as(real)).sum().backward()
    gradients = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad(set_to_none=True)
    return real.detach(), gradients


def agree(one: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]]) -> None:
    assert_close(one[0], other[0], atol=1e-5, rtol=1e-5)
    assert one[1].keys() == other[1].keys()
    largest = max(float(g.abs().max()) for g in one[1].values())
    for name, gradient in one[1].items():
        assert_close(gradient, other[1][name], atol=1e-5 * max(1.0, largest), rtol=1e-5, msg=name)


@pytest.mark.parametrize("lengths", [LENGTHS, [4, 4, 4], [7]], ids=["unequal", "equal", "one"])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_states_and_gradients_are_those_of_the_padded_path(family: str, position: str, lengths: list[int]) -> None:
    encoder = make(family, position)
    padded = read(encoder, lengths)
    encoder.packed = True
    agree(read(encoder, lengths), padded)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("family", ["decoder_only", "encoder_decoder"])
def test_a_target_taught_at_once_has_the_states_and_gradients_of_the_padded_path(family: str, position: str) -> None:
    decoder = make(family, position)
    assert isinstance(decoder, Decoder)
    padded = taught(decoder, LENGTHS, [3, 7, 2, 1, 0, 3])
    decoder.packed = True
    agree(taught(decoder, LENGTHS, [3, 7, 2, 1, 0, 3]), padded)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_agree(preset: str) -> None:
    """Norm after the block, gated feed-forward, shared heads of keys, bare scores."""
    encoder = make(preset, heads=4)
    padded = read(encoder, LENGTHS)
    encoder.packed = True
    agree(read(encoder, LENGTHS), padded)


@pytest.mark.parametrize("family", FAMILIES)
def test_channels_in_patches_agree(family: str) -> None:
    spec = InputSpec(max_length=12, channels=2)
    encoder = make(family, "learned", spec=spec, patch=3)
    mask = ids(LENGTHS).mask
    source = Sequences(values=torch.randn(*mask.shape, 2), mask=mask)
    with torch.no_grad():
        padded = encoder(source)
        encoder.packed = True
        packed = encoder(source)
    assert torch.equal(packed.mask, padded.mask)
    assert_close(packed.values[packed.mask], padded.values[packed.mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("position", ["learned", "rotary", "t5"])
@pytest.mark.parametrize("family", ["decoder_only", "encoder_decoder"])
def test_what_is_continued_in_pieces_and_reordered_is_the_same(family: str, position: str) -> None:
    """The cache of a packed prefill serves any further decoding: whole, by single positions, with rows picked."""
    decoder = make(family, position)
    assert isinstance(decoder, Decoder)
    first, second, single = ids([2, 3, 1, 3, 3, 2], seed=3), ids([3, 1, 2, 3, 0, 3], seed=4), ids([1] * 4, seed=5)

    def states() -> list[Tensor]:
        with torch.no_grad():
            one = decoder.decode(first, decoder.prefill(ids(LENGTHS)))
            two = decoder.decode(second, one)
            last = decoder.decode(single, two.select(torch.tensor([5, 0, 0, 2])))
            beams = decoder.decode(ids([2, 1, 2, 2], seed=6), one.select(torch.tensor([0, 0, 2, 2])))
        return [s.values[s.mask] for s in (one, two, last, beams)]

    padded = states()
    decoder.packed = True
    for packed, expected in zip(states(), padded, strict=True):
        assert_close(packed, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_packing_counts_the_operations_of_each_row_alone(family: str) -> None:
    """So the count is of real work: that of rows which have no padding, to the last operation."""
    encoder = make(family, "rotary")

    def operations(lengths: list[int]) -> int:
        with counting() as counter:
            encoder(ids(lengths)).values.sum().backward()
        return counter.get_total_flops()

    padded, alone = operations(LENGTHS), sum(operations([length]) for length in LENGTHS)
    encoder.packed = True
    assert operations(LENGTHS) == alone < padded


def test_no_segment_sees_another() -> None:
    encoder = make("encoder_only", "learned")
    encoder.packed = True
    source = ids(LENGTHS)
    changed = Sequences(values=source.values.clone(), mask=source.mask)
    changed.values[1] = (changed.values[1] + 1) % 19
    with torch.no_grad():
        before, after = encoder(source).values, encoder(changed).values
    assert torch.equal(before[[0, 2, 3, 4, 5]], after[[0, 2, 3, 4, 5]])
    assert not torch.allclose(before[1, :11], after[1, :11])


def test_segments_pack_and_unpack() -> None:
    mask = ids([2, 0, 3, 1]).mask
    segments = Segments.of(mask)
    x_BL = torch.arange(12).view(4, 3)
    assert segments.pack(x_BL).tolist() == [[9, 0, 1, 6, 7, 8]]  # shortest first
    assert segments.blocks == [(1, 1), (1, 2), (1, 3)]
    assert segments.bounds.tolist() == [0, 0, 1, 3, 6]
    assert torch.equal(segments.unpack(segments.pack(x_BL)), x_BL * mask)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_the_padded_kernel_agrees_with_the_one_by_blocks(causal: bool, biased: bool) -> None:
    """What is taken where there is no faster kernel: on other devices, for float32 or biases on CUDA."""
    torch.manual_seed(0)
    segments = Segments.of(ids([3, 6, 1, 3]).mask)
    q, k, v = torch.randn(3, 1, 2, 13, 4)
    mask = torch.randn(1, 2, 6, 6) if biased else None
    if mask is not None and causal:
        mask = mask.masked_fill(~torch.ones(6, 6, dtype=torch.bool).tril(), float("-inf"))
    seen = PackedSight(segments, Sight(mask, causal and not biased), True)
    by_blocks = packed_attention(q, k, v, seen, dropout=0.0, scale=None)
    assert_close(_padded(q, k, v, seen, 0.0, None), by_blocks, atol=1e-6, rtol=1e-5)


def test_the_variable_length_kernel_counts_as_each_row_alone() -> None:
    """Twice the forward for the backward, as any kernel; on the meta device, where it needs no CUDA."""
    from torch.nn.attention.varlen import varlen_attn

    lengths, heads, width = [3, 6, 1, 3], 2, 8
    bounds = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    q, k, v = (torch.empty(13, heads, width, dtype=torch.bfloat16, device="meta") for _ in range(3))
    with counting() as counter:
        varlen_attn(q, k, v, bounds, bounds, 6, 6)
    forward = counter.get_total_flops()
    with counting() as counter:
        for length in lengths:
            alone = [torch.randn(1, heads, length, width) for _ in range(3)]
            torch.nn.functional.scaled_dot_product_attention(*alone)
    assert forward == counter.get_total_flops() == sum(4 * heads * width * n * n for n in lengths)
    with counting() as counter:
        lse = torch.empty(heads, 13, device="meta")
        random = torch.empty(2, dtype=torch.uint64, device="meta")
        torch.ops.torch_attn._varlen_attn_backward(q, q, k, v, q, lse, bounds, bounds, 6, 6, False, random)
    assert counter.get_total_flops() == 2 * forward


@pytest.mark.cuda
@pytest.mark.parametrize("causal", [False, True])
def test_the_variable_length_kernel_agrees_with_the_padded_one(causal: bool) -> None:
    from encoders.blocks.packed_attention import _flash, _flash_knows

    torch.manual_seed(0)
    segments = Segments.of(ids([5, 40, 1, 33]).mask.cuda())
    q, k, v = (torch.randn(1, 4, 79, 32, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    seen = PackedSight(segments, Sight(None, causal), True)
    assert _flash_knows(q, seen, 0.0)
    found = []
    for out in (_flash(q, k, v, seen, None), _padded(q, k, v, seen, 0.0, None)):
        weights = torch.linspace(-1, 1, out.numel(), device="cuda").view(out.shape)
        found.append((out, *torch.autograd.grad((out * weights).sum(), (q, k, v))))
    for flash, padded in zip(*found, strict=True):
        assert_close(flash, padded, atol=2e-2, rtol=2e-2)


@pytest.mark.cuda
@pytest.mark.parametrize("family", FAMILIES)
def test_families_agree_on_cuda_in_float32(family: str) -> None:
    encoder = make(family, "rotary").cuda()
    source = ids(LENGTHS).to("cuda")
    with torch.no_grad():
        padded = encoder(source).values[source.mask]
        encoder.packed = True
        assert_close(encoder(source).values[source.mask], padded, atol=1e-4, rtol=1e-4)
