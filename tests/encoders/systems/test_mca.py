"""MCA: the official layers by formula, counts of parameters, what the context decides, padding, n-grams, baselines.

Once, outside of this repository, the official MCA (PaccMann/paccmann_predictor at ed31bd6, with its gate, convolutions,
contextual attentions, batch norms and dense layers; what it imports of pytoda stood in for) ran beside ours with its
weights, and with averages of norms drawn, on the CPU in float32: 6 rows of 60 tokens with 2,128 genes at the published
size, 5 rows of 173 with 808 at the small one. Rows were whole, as the official code attends to padding. Evaluation:
summaries (deviation 0.29) at most 6e-7 apart, last dense layers (0.15 to 0.32) 4e-7, mean attention weights 4e-9.
Training without dropout: last layers 5e-6 apart, averages of norms 2e-7, gradients of the token table 4e-6 of the
largest.
"""
# B batch, L positions, G numbers of the context

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from encoders.base import InputSpec, Sequences
from encoders.systems.mca import BITS, LONGEST, MCA
from encoders.systems.mca_parts import ContextGate, ContextualAttention, NGrams
from seqbench.build import build
from seqbench.composition.nodes import compose_node

KINDS = ["mca", "ca", "sa", "scnn", "birnn", "fingerprint"]


def spec_of(vocabulary: int, genes: int, length: int = 30) -> InputSpec:
    context = InputSpec(max_length=1, channels=genes)
    return InputSpec(max_length=length, vocab_size=vocabulary, streams={"context": context})


def made(name: str, spec: InputSpec, **changes: Any) -> MCA:
    torch.manual_seed(0)
    encoder = build(compose_node("encoder", name) | changes, "encoder", ["encoders"], spec=spec)
    assert isinstance(encoder, MCA)
    return encoder.eval()


def rows(lengths: list[int], genes: int, *, seed: int = 0, vocabulary: int = 40) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    context = torch.randn(len(lengths), 1, genes, generator=generator)
    return Sequences(
        values=torch.randint(vocabulary, mask.shape, generator=generator),
        mask=mask,
        streams={"context": Sequences(values=context, mask=torch.ones(len(lengths), 1, dtype=torch.bool))},
    )


def with_context(source: Sequences, context: Tensor) -> Sequences:
    """The same source beside another vector, (B, 1, G)."""
    stream = Sequences(values=context, mask=source.streams["context"].mask)
    return Sequences(values=source.values, mask=source.mask, streams={"context": stream})


# -- against the official layers, by formula ---------------------------------------------------------------------
def test_contextual_attention_is_the_official_one() -> None:
    """Numbers of the sheet, from the official PyTorch layer; and the same again by numpy, from the equations."""
    shapes = [(4, 3), (4,), (4, 5), (4,), (1, 4)]
    w_r, b_r, w_c, b_c, v = (np.sin(np.arange(np.prod(s)) + i).reshape(s) for i, s in enumerate(shapes))
    layer = ContextualAttention(dim=3, context=5, size=4, heads=1)
    assert layer.context is not None
    with torch.no_grad():
        targets = (layer.read.weight, layer.read.bias, layer.context.weight, layer.context.bias, layer.score)
        for parameter, value in zip(targets, (w_r, b_r, w_c, b_c, v), strict=True):
            parameter.copy_(torch.from_numpy(value))
    r, c = np.cos(np.arange(36)).reshape(2, 6, 3), np.sin(0.5 * np.arange(10)).reshape(2, 5)
    x = torch.from_numpy(r).float()
    alpha = layer(x, torch.ones(2, 6, dtype=torch.bool), torch.from_numpy(c).float())
    output = torch.einsum("bml,bls->bs", alpha, x)
    expected = [[0.080399, -0.019549, -0.101524], [0.085836, 0.085532, 0.006590]]
    assert_close(output, torch.tensor(expected), atol=1e-6, rtol=0)
    of_row = [0.223497, 0.155280, 0.182455, 0.161276, 0.120479, 0.157014]
    assert_close(alpha[0, 0], torch.tensor(of_row), atol=1e-6, rtol=0)
    score = np.exp(np.tanh(r @ w_r.T + b_r + (c @ w_c.T + b_c)[:, None]) @ v[0])
    ours = score / score.sum(1, keepdims=True)
    assert alpha[:, 0].detach().numpy() == pytest.approx(ours, abs=1e-6)


def test_published_parameters() -> None:
    """8,169,425 of the official example (V = 28, G = 2128): the last 513 are the head's, which is the task's."""
    encoder = made("published/mca", spec_of(28, 2128))
    counts: dict[str, list[torch.nn.Module | None]] = {
        "embedding": [encoder.table],
        "gate": [encoder.gates],
        "convolutions": [encoder.convolutions, encoder.norms],
        "attention": [encoder.attentions],
        "norm": [encoder.norm],
        "dense": [encoder.dense, encoder.dense_norms],
    }
    found = {k: sum(p.numel() for part in v if part is not None for p in part.parameters()) for k, v in counts.items()}
    assert found == {
        "embedding": 448,
        "gate": 4_530_512,
        "convolutions": 20_032,
        "attention": 2_235_392,
        "norm": 1_664,
        "dense": 1_380_864,
    }
    assert sum(found.values()) + 513 == 8_169_425 == sum(p.numel() for p in encoder.parameters()) + encoder.dim + 1
    assert encoder.code_width == 832
    assert (found["gate"] + found["attention"]) / 8_169_425 == pytest.approx(0.83, abs=0.005)


def test_small_parameters() -> None:
    encoder = made("mca", spec_of(40, 808))
    assert sum(p.numel() for p in encoder.parameters()) + encoder.dim + 1 == 941_961


def test_what_is_read_is_what_is_attended_to_in_training_too() -> None:
    """One draw of dropout, one step of the norms' averages, for the weights and for what they weigh."""
    encoder, source = made("mca", spec_of(40, 12), dropout=0.5).train(), rows([9, 4, 7], 12)
    calls: list[tuple[Tensor, Tensor]] = []
    for attention in encoder.attentions:
        attention.register_forward_hook(lambda _, given, out: calls.append((given[0], out)))
    found = encoder.summary(source)
    expected = [torch.einsum("bml,bls->bms", alpha, x).flatten(1) for x, alpha in calls]
    assert (calls[1][0][source.mask] == calls[1][0][source.mask].amin(0)).float().mean() > 0.3  # zeros of dropout
    assert_close(found, torch.cat(expected, 1))
    assert [int(encoder.state_dict()[f"norms.{i}.num_batches_tracked"]) for i in range(3)] == [1, 1, 1]


def drawn(encoder: MCA) -> dict[str, Tensor]:
    """Its weights in float64, norms' too, which are drawn here: at their start they hardly show."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                assert module.running_mean is not None
                assert module.running_var is not None
                for value in (module.running_mean, module.weight, module.bias):
                    value.copy_(torch.randn(value.shape, generator=generator))
                module.running_var.uniform_(0.5, 2, generator=generator)
    return {name: value.double() for name, value in encoder.state_dict().items()}


def normed(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    x = (x - w[f"{name}.running_mean"]) / (w[f"{name}.running_var"] + 1e-5).sqrt()
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def convolved(w: dict[str, Tensor], name: str, x_LC: Tensor) -> Tensor:
    """ReLU of each position's window, which lies about it; zeros beyond the ends."""
    kernel, bias = w[f"{name}.convolution.weight"], w[f"{name}.convolution.bias"]
    half, length = kernel.shape[2] // 2, len(x_LC)
    found = [
        sum((kernel[:, :, j + half] @ x_LC[t + j] for j in range(-half, half + 1) if 0 <= t + j < length), bias)
        for t in range(length)
    ]
    return torch.stack(found).clamp_min(0)


@torch.no_grad()
def test_the_network_is_the_sheet_s() -> None:
    """Section 3 by loops over positions and heads, row by row, of a batch with padding."""
    encoder, source = made("mca", spec_of(40, 6), gates="scale", gate="scaled", filters=5), rows([14, 3], 6)
    w, size = drawn(encoder), 16
    for row, length in enumerate((14, 3)):
        g = source.streams["context"].values[row, 0].double()
        e = w["table.weight"][source.values[row, :length]]
        scales = [e, *(normed(w, f"norms.{i}", convolved(w, f"convolutions.{i}", e)) for i in range(3))]
        code = []
        for i, x in enumerate(scales):
            context = 6 * (w[f"gates.{i}.linear.weight"] @ g + w[f"gates.{i}.linear.bias"]).softmax(0) * g
            at = f"attentions.{i}"
            for head in range(4):
                part = slice(head * size, (head + 1) * size)
                c = w[f"{at}.context.weight"][part] @ context + w[f"{at}.context.bias"][part]
                scores = [
                    w[f"{at}.score"][head] @ (w[f"{at}.read.weight"][part] @ r + w[f"{at}.read.bias"][part] + c).tanh()
                    for r in x
                ]
                code.append(torch.stack(scores).softmax(0) @ x)
        state = normed(w, "norm", torch.cat(code))
        for i in range(2):
            linear = w[f"dense.{i}.weight"] @ state + w[f"dense.{i}.bias"]
            state = normed(w, f"dense_norms.{i}", linear).clamp_min(0)
        assert 0 < (state == 0).float().mean() < 1
        assert_close(encoder(source).values[row, 0], state.float(), atol=1e-5, rtol=1e-5)
    assert [layer.convolution.weight.shape[2] for layer in encoder.convolutions] == [3, 5, 11]  # type: ignore[index,union-attr]


@torch.no_grad()
@pytest.mark.parametrize("kind, codes", [("mca", 3), ("ca", 0), ("sa", 0), ("scnn", 4), ("birnn", 0)])
def test_dropout_is_of_convolutions_and_of_dense_layers(kind: str, codes: int) -> None:
    """After ReLU, before the norm of a convolution; of a dense layer the last."""
    encoder, called = made("mca", spec_of(40, 12), smiles_encoder=kind, dropout=0.5).train(), []
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(lambda _, given, out: called.append((given[0], out)))
    found = encoder(rows([9, 4, 7], 12)).values[:, 0]
    assert len(called) == codes + 2
    assert torch.equal(called[-1][1], found)
    for given, out in called:
        assert float(given.amin()) == 0
        assert ((out == 0) | (out == 2 * given)).all()
        assert (out != given).any()


def test_published_values_that_no_count_shows() -> None:
    published = compose_node("encoder", "published/mca")
    choices = {"smiles_encoder": "mca", "concatenate": "none", "gate": "softmax", "gates": "one"}
    numbers = {"kernels": [3, 5, 11], "heads": 4, "embedding": 16, "dropout": 0.5}
    assert {key: published[key] for key in (*choices, *numbers)} == choices | numbers
    assert (BITS, LONGEST) == (512, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_row_trains(kind: str) -> None:
    """As the last batch of an epoch may be: its norms are by the averages so far, and leave them; gradients flow."""
    encoder = made("mca", spec_of(40, 12), smiles_encoder=kind, dropout=0.0)
    drawn(encoder)
    row, before = rows([1], 12), {name: value.clone() for name, value in encoder.named_buffers()}
    expected = encoder(row).values.detach()
    found = encoder.train()(row).values
    assert_close(found, expected)
    assert all(torch.equal(value, before[name]) for name, value in encoder.named_buffers())
    [gradient] = torch.autograd.grad(found.sum(), encoder.dense[0].weight)
    assert gradient.any()


@torch.no_grad()
def test_norms_of_scales_have_seen_real_positions_alone() -> None:
    encoder, source = made("mca", spec_of(40, 12), dropout=0.0), rows([9, 4, 7], 12)
    w = drawn(encoder)
    encoder.train()(source)
    table = w["table.weight"]
    for i in range(3):
        ours = [
            convolved(w, f"convolutions.{i}", table[ids[real]])
            for ids, real in zip(source.values, source.mask, strict=True)
        ]
        expected = 0.9 * w[f"norms.{i}.running_mean"] + 0.1 * torch.cat(ours).mean(0)
        assert_close(encoder.state_dict()[f"norms.{i}.running_mean"], expected.float(), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_baselines_are_their_networks() -> None:
    """Row by row: GRUs of torch that read both ways, and convolutions with maxima of pairs between."""
    source = rows([13, 4], 12)
    encoder = made("mca", spec_of(40, 12), smiles_encoder="birnn")
    w, found = encoder.state_dict(), encoder.summary(source)
    for row, length in enumerate((13, 4)):
        x = w["table.weight"][source.values[row, :length]]
        for i, width in enumerate((32, 16)):
            gru = torch.nn.GRU(x.shape[1], width, bidirectional=True)
            for way, suffix in (("rightward", ""), ("leftward", "_reverse")):
                for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
                    getattr(gru, name + suffix).copy_(w[f"code.{way}.{i}.{name}"])
            x, last = gru(x)
        assert_close(found[row], last.flatten(), atol=1e-6, rtol=1e-5)
    encoder = made("mca", spec_of(40, 12), smiles_encoder="scnn")
    w, found = drawn(encoder), encoder.summary(source)
    for row, length in enumerate((13, 4)):
        x = w["table.weight"][source.values[row, :length]]
        for i in range(4):
            if i:
                x = torch.stack([x[start : start + 2].amax(0) for start in range(0, len(x), 2)])
            x = normed(w, f"code.norms.{i}", convolved(w, f"code.convolutions.{i}", x))
        assert_close(found[row], x.amax(0).float(), atol=1e-5, rtol=1e-5)


def test_all_begins_as_in_the_official_layers() -> None:
    """Tokens from N(0, 1), the first ids too; each linear map and v within one over the root of what it reads."""
    encoder = made("mca", spec_of(400, 50))
    assert encoder.table is not None
    assert_close(encoder.table.weight[:200].std(), torch.tensor(1.0), atol=0.05, rtol=0)
    assert (encoder.table.weight.std(1) > 0.4).all()
    for attention, width in zip(encoder.attentions, (16, 32, 32, 32), strict=True):
        assert isinstance(attention, ContextualAttention)
        assert attention.context is not None
        for weight, fan in ((attention.read.weight, width), (attention.context.weight, 50), (attention.score, 16)):
            assert 0.85 * fan**-0.5 < weight.abs().max() <= fan**-0.5


# -- gate and attention ------------------------------------------------------------------------------------------
@torch.no_grad()
def test_gate_and_attention_sum_to_one() -> None:
    encoder, source = made("mca", spec_of(40, 12)), rows([9, 4], 12)
    alphas = encoder.explain(source)
    assert [alpha.shape for alpha in alphas] == [(2, 4, 9)] * 4
    for alpha in alphas:
        assert_close(alpha.sum(2), torch.ones(2, 4))
        assert (alpha[1, :, 4:] == 0).all()
    raw = source.streams["context"].values[:, 0]
    [gate] = encoder.gates
    assert_close((gate(raw) / raw).sum(1), torch.ones(2), atol=1e-4, rtol=0)
    scaled = ContextGate(genes=12, scaled=True)
    scaled.load_state_dict(gate.state_dict())
    assert_close(scaled(raw), 12 * gate(raw))


@torch.no_grad()
def test_heads_are_so_many_attentions_side_by_side_scale_after_scale() -> None:
    encoder, source = made("mca", spec_of(40, 12)), rows([7, 7], 12)
    found, scales, start = encoder.summary(source), encoder._scales(source), 0
    gated = encoder.gates[0](encoder.context(source))
    for attention, x in zip(encoder.attentions, scales, strict=True):
        assert isinstance(attention, ContextualAttention)
        size = attention.score.shape[1]
        for head in range(4):
            one = ContextualAttention(dim=x.shape[2], context=12, size=size, heads=1)
            part = slice(head * size, (head + 1) * size)
            for name in ("read", "context"):
                getattr(one, name).weight.copy_(getattr(attention, name).weight[part])
                getattr(one, name).bias.copy_(getattr(attention, name).bias[part])
            one.score.copy_(attention.score[head : head + 1])
            alone = torch.einsum("bml,bls->bs", one(x, source.mask, gated), x)
            assert_close(found[:, start : start + x.shape[2]], alone)
            start += x.shape[2]
    assert start == encoder.code_width == found.shape[1]


def test_without_v_attention_is_the_mean_and_the_context_plays_no_part() -> None:
    encoder, source = made("mca", spec_of(40, 12)), rows([9, 4], 12)
    context = source.streams["context"].values.clone().requires_grad_()
    for zero in (False, True):
        if zero:
            for attention in encoder.attentions:
                assert isinstance(attention, ContextualAttention)
                torch.nn.init.zeros_(attention.score)
        [gradient] = torch.autograd.grad(encoder(with_context(source, context)).values.sum(), context)
        assert bool((gradient != 0).any()) != zero
    summary, table = encoder.summary(source), encoder.table
    assert table is not None
    for row, length in enumerate((9, 4)):
        mean = table(source.values[row, :length]).mean(0)
        assert_close(summary[row, :64], mean.repeat(4))


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("concatenate", ["none", "gated", "raw"])
def test_the_context_reaches_what_it_should(kind: str, concatenate: str) -> None:
    encoder = made("mca", spec_of(40, 12), smiles_encoder=kind, concatenate=concatenate)
    source, other = rows([9, 4], 12), rows([9, 4], 12, seed=1)
    read = kind in ("mca", "ca") or concatenate != "none"
    turned = encoder(with_context(source, other.streams["context"].values)).values
    assert bool((turned != encoder(source).values).any()) == read
    summary, raw = encoder.summary(source), encoder.context(source)
    if concatenate == "raw":
        assert torch.equal(summary[:, -12:], raw)
    if concatenate == "gated":
        assert_close(summary[:, -12:], encoder.gates[0](raw))
    assert bool(encoder.explain(source)) == (kind in ("mca", "ca", "sa"))
    assert len(encoder.gates) == int(kind in ("mca", "ca") or concatenate == "gated")  # none that nothing reads


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_every_switch_is_blind_to_padding_and_reads_its_tokens(kind: str) -> None:
    encoder = made("mca", spec_of(40, 12), smiles_encoder=kind)
    source = rows([9, 4], 12)
    other = Sequences(
        values=torch.where(source.mask, source.values, 39 - source.values), mask=source.mask, streams=source.streams
    )
    assert torch.equal(encoder(other).values, encoder(source).values)
    alone = Sequences(
        values=source.values[1:, :4],
        mask=source.mask[1:, :4],
        streams={"context": Sequences(values=source.streams["context"].values[1:], mask=torch.ones(1, 1).bool())},
    )
    assert_close(encoder(alone).values, encoder(source).values[1:], atol=1e-5, rtol=1e-5)
    turned = source.values.clone()
    turned[:, 0] = (turned[:, 0] + 1) % 40
    changed = Sequences(values=turned, mask=source.mask, streams=source.streams)
    assert ((encoder(changed).values - encoder(source).values).abs().amax((1, 2)) > 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_of_every_switch_learns(kind: str) -> None:
    concatenate = "none" if kind == "mca" else "gated"
    encoder = made("mca", spec_of(40, 12), smiles_encoder=kind, concatenate=concatenate, gates="one").train()
    values = encoder(rows([9, 4, 7, 8, 2, 5], 12)).values
    weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad((values * weights).sum(), list(encoder.parameters()), allow_unused=True)
    names = [name for name, _ in encoder.named_parameters()]
    assert not [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]


def test_a_gate_for_each_scale() -> None:
    encoder = made("mca", spec_of(40, 12), gates="scale")
    assert len(encoder.gates) == 4
    values = encoder(rows([5], 12)).values
    gradients = torch.autograd.grad(values.square().sum(), list(encoder.gates.parameters()))
    assert all(gradient.any() for gradient in gradients)


@torch.no_grad()
def test_a_context_of_ids_is_read_by_their_shares() -> None:
    stream = InputSpec(max_length=4, vocab_size=5)
    encoder = made("mca", InputSpec(max_length=9, vocab_size=40, streams={"context": stream}))
    context = Sequences(values=torch.tensor([[2, 3, 2, 4]]), mask=torch.tensor([[True, True, True, False]]))
    source = Sequences(values=torch.ones(1, 3).long(), mask=torch.ones(1, 3).bool(), streams={"context": context})
    assert_close(encoder.context(source), torch.tensor([[0, 0, 2 / 3, 1 / 3, 0]]))


# -- fingerprint and the rest ------------------------------------------------------------------------------------
def test_n_grams_are_zlib_s_crc32() -> None:
    ids, length = [3, 300, 7, 7, 12, 3], 6
    bits = {
        zlib.crc32(b"".join(i.to_bytes(2, "little") for i in ids[start : start + n])) % BITS
        for n in range(1, LONGEST + 1)
        for start in range(length - n + 1)
    }
    values = torch.tensor([[*ids, 9, 9], [5, 0, 0, 0, 0, 0, 0, 0]])
    mask = torch.arange(8) < torch.tensor([[length], [1]])
    found = NGrams(bits=BITS, longest=LONGEST)(values, mask)
    assert set(found[0].nonzero().ravel().tolist()) == bits
    assert len(bits) == 18  # of 20 n-grams two, 3 and 7, come twice
    assert found[1].nonzero().ravel().tolist() == [zlib.crc32(b"\5\0") % BITS]


@pytest.mark.parametrize(
    ("changes", "spec", "message"),
    [
        ({}, InputSpec(max_length=9, vocab_size=9), "reads a stream `context` beside its source"),
        ({}, InputSpec(max_length=9, channels=3), "reads ids"),
        ({"kernels": [3, 4]}, spec_of(9, 3), r"encoder.kernels: 4 is even"),
    ],
)
def test_refusals(changes: dict[str, Any], spec: InputSpec, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made("mca", spec, **changes)
