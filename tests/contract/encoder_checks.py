"""The contract of encoders as functions: each takes a Case, and fails with an assertion.

They are run for every file of configs/encoder by test_encoders.py, and for the example of encoders/README.md by
tests/docs; test_checks.py shows that each of them can fail.
"""
# S states, D width

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from encoders.base import Sequences, part_losses
from seqbench.build import build, locate
from seqbench.costs.operations import counting
from tests.arguments import arguments_of
from tests.contract.cases import LONGEST, VOCAB, Case, Check, cut, joined, real, same


def declares_what_it_is(case: Case) -> None:
    encoder = case.encoder
    assert type(encoder) is case.target
    assert not inspect.isabstract(case.target)
    assert type(encoder.dim) is int
    assert encoder.dim > 0
    assert type(encoder.causal) is bool
    assert encoder.family
    assert encoder.requires <= encoder.reads
    table = encoder.token_embedding
    if table is not None:
        assert case.kind == "ids"
        assert table.shape == (VOCAB, encoder.dim // encoder.outputs)
        assert any(table is parameter for parameter in encoder.parameters())


def has_one_state_for_each_that_it_promises(case: Case) -> None:
    lengths = [7, 4, 12, 1]
    states = case.encoder(case.draw(lengths))
    num_states = case.encoder.num_states(12)
    assert states.values.shape == (4, num_states, case.encoder.dim)
    assert states.values.dtype == torch.float32
    assert states.mask.shape == (4, num_states)
    assert states.mask.dtype == torch.bool
    expected = torch.arange(num_states) < torch.tensor([case.encoder.num_states(n) for n in lengths]).unsqueeze(1)
    assert torch.equal(states.mask, expected)
    assert torch.isfinite(states.values[states.mask]).all()
    assert all(loss.shape == () for loss in states.losses.values())


def padding_changes_nothing(case: Case) -> None:
    source = case.draw([7, 4, 12, 1])
    states = case.encoder(source)
    for row in range(4):
        alone = case.encoder(real(source, row))
        same(states.values[row : row + 1, : alone.values.shape[1]], alone.values)


def packed_gives_the_same_states(case: Case) -> None:
    if not case.encoder.packs:
        return
    source, encoder = case.draw([7, 4, 1, 4]), case.make()
    padded = encoder(source)
    encoder.packed = True
    packed = encoder(source)
    assert torch.equal(packed.mask, padded.mask)
    same(packed.values[packed.mask], padded.values[padded.mask])


def packed_does_less_work(case: Case) -> None:
    """Fewer operations than with padding: equal states alone would not show that `packed` is heeded."""
    if not case.encoder.packs:
        return
    source, encoder, found = case.draw([7, 4, 1, 4]), case.make(), []
    for packed in (False, True):
        encoder.packed = packed
        with counting() as counter:
            encoder(source)
        found.append(counter.get_total_flops())
    assert found[1] < found[0], f"packed, {found[1]} operations; with padding {found[0]}"


def rows_are_independent(case: Case) -> None:
    source, other = case.draw([9, 9, 5], seed=1), case.draw([9, 9, 5], seed=2)
    states, turned = case.encoder(source), case.encoder(cut(source, 0, 0, 9))
    same(turned.values, states.values[:1])
    pick = lambda a, b: torch.cat([a[:1], b[1:]])  # noqa: E731
    streams = {
        k: Sequences(values=pick(v.values, other.streams[k].values), mask=v.mask) for k, v in source.streams.items()
    }
    mixed = Sequences(values=pick(source.values, other.values), mask=source.mask, streams=streams)
    same(case.encoder(mixed).values[:1], states.values[:1])


def causal_tells_the_truth(case: Case) -> None:
    """Row t is changed from position t on. Up to there a causal encoder's states stay, and another's move visibly.

    In most rows: states of zeros and ones need not, where little is changed or little came before.
    """
    length = LONGEST
    source = case.draw([length])
    other = case.draw([length], seed=2)
    num_states = case.encoder.num_states(length)
    before = case.encoder(source).values[0]
    differences = []
    for t in range(1, length):
        changed = case.encoder(joined(cut(source, 0, 0, t), cut(other, 0, t, length))).values[0]
        whole = t * num_states // length  # states that are made of positions before t alone
        if whole:
            differences.append((changed[:whole] - before[:whole]).abs().max().item())
    if not differences:  # one state for a whole row, which is of no position
        assert num_states == 1
        assert not case.encoder.causal
        return
    if case.encoder.causal:
        assert max(differences) < 1e-5, f"causal, but states move by {max(differences)} with later positions"
    else:
        most = sorted(differences)[len(differences) // 2]
        assert most > 1e-4, f"not causal, but later positions move states by {differences} only"


def every_parameter_gets_a_gradient(case: Case) -> None:
    encoder = case.encoder
    named = dict(encoder.named_parameters())
    assert all(parameter.requires_grad for parameter in named.values())
    if not named:
        return
    states = encoder(case.draw([12, 12, 7]))
    weights = torch.randn(states.values.shape, generator=torch.Generator().manual_seed(5))
    loss = (states.values * weights)[states.mask].sum() + sum([*states.losses.values(), *part_losses(encoder)])
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    none = [
        name
        for name, gradient in zip(named, gradients, strict=True)
        if gradient is None or not torch.isfinite(gradient).all() or not gradient.any()
    ]
    assert not none, f"no gradient: {none}"


def evaluates_the_same_again(case: Case) -> None:
    source = case.draw([7, 4])
    kept = source.values.clone(), source.mask.clone()
    assert torch.equal(case.encoder(source).values, case.encoder(source).values)
    assert torch.equal(source.values, kept[0])
    assert torch.equal(source.mask, kept[1])


def seed_decides_the_weights(case: Case) -> None:
    one, again, other = (case.make(seed=seed).state_dict() for seed in (3, 3, 4))
    assert list(one) == list(again)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not one or any(not torch.equal(one[key], other[key]) for key in one)


def weights_can_be_stored_and_loaded(case: Case) -> None:
    one, other = case.make(seed=3), case.make(seed=4)
    other.load_state_dict(one.state_dict())
    source = case.draw([7, 4])
    assert torch.equal(one(source).values, other(source).values)


def takes_every_length_up_to_its_own(case: Case) -> None:
    for length in (1, LONGEST):
        assert case.encoder(case.draw([length])).values.shape[1] == case.encoder.num_states(length)
    with pytest.raises(ValueError):
        case.encoder(case.draw([LONGEST + 1]))


def works_in_bfloat16(case: Case) -> None:
    source = case.draw([12, 5])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = case.encoder(source)
    assert torch.isfinite(states.values[states.mask]).all()
    rough = (states.values.float() - case.encoder(source).values)[states.mask].norm()
    assert rough <= 0.02 * case.encoder(source).values[states.mask].norm()
    parameters = list(case.encoder.parameters())
    if parameters:
        loss = states.values.float()[states.mask].square().sum()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)


def is_built_on_the_meta_device(case: Case) -> None:
    with torch.device("meta"):
        outline = build(case.node, "encoder", case.allowed, spec=case.spec())
    assert all(tensor.is_meta for tensor in [*outline.parameters(), *outline.buffers()])
    shapes = {name: parameter.shape for name, parameter in outline.named_parameters()}
    assert shapes == {name: parameter.shape for name, parameter in case.encoder.named_parameters()}


def reads_the_streams_that_it_names(case: Case) -> None:
    if not case.target.reads:
        return
    spec = case.spec(streams=case.target.reads)
    encoder, source = case.make(spec=spec), case.draw([7, 4], spec=spec)
    states = encoder(source)
    same(encoder(real(source, 1)).values, states.values[1:, : encoder.num_states(4)])
    for name, stream in source.streams.items():
        turned = Sequences(values=1 - stream.values, mask=stream.mask)
        changed = encoder(Sequences(values=source.values, mask=source.mask, streams={**source.streams, name: turned}))
        assert (changed.values - states.values)[states.mask].abs().max() > 1e-4, f"ignores the stream {name}"


ENCODER_CHECKS: list[Check] = [
    declares_what_it_is,
    has_one_state_for_each_that_it_promises,
    padding_changes_nothing,
    packed_gives_the_same_states,
    packed_does_less_work,
    rows_are_independent,
    causal_tells_the_truth,
    every_parameter_gets_a_gradient,
    evaluates_the_same_again,
    seed_decides_the_weights,
    weights_can_be_stored_and_loaded,
    takes_every_length_up_to_its_own,
    works_in_bfloat16,
    is_built_on_the_meta_device,
    reads_the_streams_that_it_names,
]


def keys_are_the_arguments(node: Mapping[str, Any], allowed: tuple[str, ...] = ("encoders",)) -> None:
    """A node's keys are its constructor's arguments but spec, all by keyword, without defaults; in nested nodes too."""
    target = locate(node["_target_"], "encoder", allowed)
    parameters = arguments_of(target)
    kinds = {parameter.kind for parameter in parameters.values()}
    assert kinds <= {inspect.Parameter.KEYWORD_ONLY}, f"{target}: {parameters}"
    assert all(parameter.default is inspect.Parameter.empty for parameter in parameters.values()), str(parameters)
    assert set(node) - {"_target_"} == set(parameters) - {"spec"}, node["_target_"]
    for value in node.values():
        if isinstance(value, Mapping) and "_target_" in value:
            keys_are_the_arguments(value, allowed)
