"""What holds for every Decoder beside the checks of encoders: it continues what it has read, however it is cut up."""
# T target positions, D width

from __future__ import annotations

import torch
from torch import Tensor

from encoders.base import Decoder, Sequences
from tests.contract.cases import TARGET, Case, Check, joined, real, same
from tests.contract.dropout_checks import DROPOUT_CHECKS
from tests.contract.encoder_checks import ENCODER_CHECKS


def _rows(case: Case) -> tuple[Sequences, Sequences, Sequences]:
    """Sources of different lengths, and two pieces of target; a row may end early, or have nothing in a piece."""
    return case.draw([6, 3, 1]), case.draw([3, 1, 2], seed=2), case.draw([2, 3, 0], seed=3)


def _alone(case: Case, row: int, *pieces: Sequences) -> Tensor:
    """States of the row's real targets (T, D), decoded at once, alone and without padding."""
    source, *targets = pieces
    before = case.decoder.prefill(real(source, row))
    return case.decoder.decode(joined(*(real(target, row) for target in targets)), before).values[0]


def decodes_in_pieces_as_at_once(case: Case) -> None:
    source, first, second = pieces = _rows(case)
    one = case.decoder.decode(first, case.decoder.prefill(source))
    two = case.decoder.decode(second, one)
    for target, states in ((first, one), (second, two)):
        assert states.values.shape == (*target.mask.shape, case.decoder.dim)
        assert torch.equal(states.mask, target.mask)
    for row in range(3):
        together = torch.cat([one.values[row][one.mask[row]], two.values[row][two.mask[row]]])
        same(together, _alone(case, row, *pieces))


def decodes_step_by_step_as_at_once(case: Case) -> None:
    source, target = case.draw([6, 3, 1]), case.draw([TARGET] * 3, seed=2)
    states = case.decoder.prefill(source)
    steps = []
    for t in range(TARGET):
        step = Sequences(values=target.values[:, t : t + 1], mask=target.mask[:, t : t + 1])
        states = case.decoder.decode(step, states)
        steps.append(states.values)
    for row in range(3):
        same(torch.cat(steps, 1)[row], _alone(case, row, source, target))


def causal_decoder_continues_its_source(case: Case) -> None:
    if not case.decoder.causal:
        return
    source, target = case.draw([6, 3, 1]), case.draw([4, 2, 3], seed=2)
    before = case.decoder.prefill(source)
    after = case.decoder.decode(target, before)
    for row in range(3):
        whole = case.decoder(joined(real(source, row), real(target, row))).values[0]
        parts = torch.cat([before.values[row][before.mask[row]], after.values[row][after.mask[row]]])
        same(parts, whole)


def decoding_is_causal_within_the_target(case: Case) -> None:
    before = case.decoder.prefill(case.draw([6, 3]))
    target, other = case.draw([5, 5], seed=2), case.draw([5, 5], seed=3)
    changed = Sequences(values=torch.cat([target.values[:, :2], other.values[:, 2:]], 1), mask=target.mask)
    one, two = case.decoder.decode(target, before), case.decoder.decode(changed, before)
    same(one.values[:, :2], two.values[:, :2])


def decoding_leaves_what_it_continues(case: Case) -> None:
    before = case.decoder.prefill(case.draw([6, 3]))
    target, other = case.draw([1, 1], seed=2), case.draw([1, 1], seed=3)
    once = case.decoder.decode(target, before).values
    case.decoder.decode(other, before)
    assert torch.equal(case.decoder.decode(target, before).values, once)


def states_can_be_selected(case: Case) -> None:
    """In any order, and as beams are: several of each row, then some of these in another order."""
    source, first, second = case.draw([6, 3, 1]), case.draw([2, 2, 2], seed=2), case.draw([1, 2, 1], seed=3)
    for before in (case.decoder.prefill(source), case.decoder.decode(first, case.decoder.prefill(source))):
        after = case.decoder.decode(second, before).values
        for order, again in (([2, 0, 0, 1], [3, 1]), ([0, 0, 1, 1, 2, 2], [3, 2, 5, 4])):
            rows = torch.tensor(order)
            beams = before.select(rows)
            for chosen, states in ((rows, beams), (rows[again], beams.select(torch.tensor(again)))):
                target = Sequences(values=second.values[chosen], mask=second.mask[chosen])
                found = case.decoder.decode(target, states).values
                same(found[target.mask], after[chosen][target.mask])


def decoding_gives_gradients_and_works_in_bfloat16(case: Case) -> None:
    parameters = list(case.decoder.parameters())
    source, target = case.draw([6, 3]), case.draw([4, 2], seed=2)
    exact = case.decoder.decode(target, case.decoder.prefill(source))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = case.decoder.decode(target, case.decoder.prefill(source))
        rough = case.decoder.decode(case.draw([1, 1], seed=3), rough)
    assert torch.isfinite(rough.values).all()
    if parameters:
        gradients = torch.autograd.grad(exact.values[exact.mask].square().sum(), parameters, allow_unused=True)
        assert all(gradient is None or torch.isfinite(gradient).all() for gradient in gradients)
        assert any(gradient is not None and gradient.any() for gradient in gradients)


DECODER_CHECKS: list[Check] = [
    decodes_in_pieces_as_at_once,
    decodes_step_by_step_as_at_once,
    causal_decoder_continues_its_source,
    decoding_is_causal_within_the_target,
    decoding_leaves_what_it_continues,
    states_can_be_selected,
    decoding_gives_gradients_and_works_in_bfloat16,
]


def checks_of(case: Case) -> list[Check]:
    """Those that hold for the type of the encoder."""
    return [*ENCODER_CHECKS, *DROPOUT_CHECKS, *(DECODER_CHECKS if issubclass(case.target, Decoder) else [])]
