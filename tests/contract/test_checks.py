"""The checks can fail: a correct tiny decoder passes all of them, and each defect is caught by the check it is for."""
# B batch, L positions, D width

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from encoders.base import Decoder, InputSpec, Sequences, States
from encoders.blocks.embedding import InputEmbedding
from tests.contract.cases import Case, Check
from tests.contract.decoder_checks import DECODER_CHECKS, checks_of
from tests.contract.dropout_checks import DROPOUT_CHECKS
from tests.contract.encoder_checks import ENCODER_CHECKS, keys_are_the_arguments


class Sums(Decoder):
    """Prefix sums of the embedding: the smallest Decoder. A subclass below breaks one thing of it."""

    causal = True
    reads = frozenset({"kind"})

    def __init__(self, *, dim: int, spec: InputSpec) -> None:
        super().__init__()
        self.dim = dim
        self.embed = InputEmbedding(dim=dim, patch=1, spec=spec)

    def forward(self, source: Sequences) -> States:
        x_BLD, mask_BL = self.embed(source)
        return self.resume(x_BLD, mask_BL, 0)

    def prefill(self, source: Sequences) -> States:
        return self.forward(source)

    def decode(self, target: Sequences, before: States) -> States:
        return self.resume(*self.embed.embed(target), before.cache)

    def resume(self, x_BLD: Tensor, mask_BL: Tensor, total: Tensor | int) -> States:
        x_BLD = (x_BLD * mask_BL.unsqueeze(-1)).cumsum(1) + total
        return States(values=x_BLD, mask=mask_BL, cache=x_BLD[:, -1:])


class Leaks(Sums):
    """Sees padding."""

    def forward(self, source: Sequences) -> States:
        x, mask = self.embed(source)
        return States(values=x + x.mean(1, keepdim=True), mask=mask)

    causal = False


class Mixes(Sums):
    """Sees the other rows of the batch."""

    def forward(self, source: Sequences) -> States:
        states = super().forward(source)
        return States(values=states.values - states.values[-1:], mask=states.mask, cache=states.cache)


class PacksWithoutBounds(Sums):
    """Packed, a row goes on where the one before it ended."""

    packs = True

    def forward(self, source: Sequences) -> States:
        states = super().forward(source)
        if not self.packed:
            return states
        values = torch.zeros_like(states.values)
        values[source.mask] = self.embed(source)[0][source.mask].cumsum(0)
        return States(values=values, mask=states.mask, cache=states.cache)


class PacksNothing(Sums):
    """Works on padding whatever `packed` says; its states are right."""

    packs = True

    def __init__(self, *, dim: int, spec: InputSpec) -> None:
        super().__init__(dim=dim, spec=spec)
        self.mix = nn.Linear(dim, dim)

    def forward(self, source: Sequences) -> States:
        states = super().forward(source)
        return States(values=self.mix(states.values), mask=states.mask, cache=states.cache)


class ClaimsToBeCausal(Sums):
    """Sees the whole row."""

    def forward(self, source: Sequences) -> States:
        x, mask = self.embed(source)
        real = mask.unsqueeze(-1)
        return States(values=x + (x * real).sum(1, keepdim=True) / real.sum(1, keepdim=True), mask=mask)


class ClaimsNotToBe(Sums):
    """Is causal and says no."""

    causal = False


class HasAnIdleParameter(Sums):
    """One that nothing reads."""

    def __init__(self, *, dim: int, spec: InputSpec) -> None:
        super().__init__(dim=dim, spec=spec)
        self.idle = nn.Parameter(torch.zeros(3))


class FallsInEvaluation(Sums):
    """Is not deterministic."""

    def forward(self, source: Sequences) -> States:
        states = super().forward(source)
        return States(values=nn.functional.dropout(states.values), mask=states.mask, cache=states.cache)


class WritesIntoItsInput(Sums):
    """Zeroes padding in place."""

    def forward(self, source: Sequences) -> States:
        source.values.mul_(source.mask if source.values.ndim == 2 else source.mask.unsqueeze(-1))
        return super().forward(source)


class HoldsStateOutsideItsWeights(Sums):
    """A random scale that no state dict has."""

    def __init__(self, *, dim: int, spec: InputSpec) -> None:
        super().__init__(dim=dim, spec=spec)
        self.scale = torch.rand(()).item() if not torch.empty(0).is_meta else 0.5

    def resume(self, x_BLD: Tensor, mask_BL: Tensor, total: Tensor | int) -> States:
        return super().resume(x_BLD * self.scale, mask_BL, total)


class DrawsFromElsewhere(Sums):
    """Weights that the seed does not decide."""

    def __init__(self, *, dim: int, spec: InputSpec) -> None:
        super().__init__(dim=dim, spec=spec)
        generator = torch.Generator()
        generator.seed()
        if not torch.empty(0).is_meta:
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.normal_(generator=generator)


class TakesAnyLength(Sums):
    """Does not look at spec.max_length."""

    def forward(self, source: Sequences) -> States:
        return self.resume(*self.embed.embed(source), 0)


class Overflows(Sums):
    """Is not finite in bfloat16."""

    def forward(self, source: Sequences) -> States:
        states = super().forward(source)
        huge = states.values @ torch.eye(self.dim)  # a product that autocast rounds
        return States(values=states.values + (huge - states.values) * 1e3, mask=states.mask, cache=states.cache)


class MissesTheMetaDevice(Sums):
    """A buffer made from data."""

    def __init__(self, *, dim: int, spec: InputSpec) -> None:
        super().__init__(dim=dim, spec=spec)
        self.register_buffer("ones", torch.ones(dim, device="cpu"))


class IgnoresItsStream(Sums):
    """Names a stream and does not read it."""

    def forward(self, source: Sequences) -> States:
        return super().forward(Sequences(values=source.values, mask=source.mask))


class PromisesFewerStates(Sums):
    """Counts wrongly."""

    def num_states(self, length: int) -> int:
        return -(-length // 2)


class IsOfNoWidth(Sums):
    """Says a width as a float."""

    def __init__(self, *, dim: int, spec: InputSpec) -> None:
        super().__init__(dim=dim, spec=spec)
        self.dim = float(dim)  # type: ignore[assignment]


class ContinuesPadding(Sums):
    """Keeps the state at the last column, with what padding adds to it."""

    def decode(self, target: Sequences, before: States) -> States:
        x, mask = self.embed.embed(target)
        x = x.cumsum(1) + before.cache
        return States(values=x, mask=mask, cache=x[:, -1:])


class ForgetsBetweenSteps(Sums):
    """Its cache is that of the source for ever."""

    def decode(self, target: Sequences, before: States) -> States:
        states = super().decode(target, before)
        return States(values=states.values, mask=states.mask, cache=before.cache)


class IgnoresItsSource(Sums):
    """Starts anew."""

    def prefill(self, source: Sequences) -> States:
        states = super().prefill(source)
        return States(values=states.values, mask=states.mask, cache=0 * states.cache)


class SeesTheTargetsFuture(Sums):
    """Adds up backwards within the target."""

    def decode(self, target: Sequences, before: States) -> States:
        states = super().decode(target, before)
        return States(values=states.values.flip(1), mask=states.mask, cache=states.cache)


class WritesIntoItsCache(Sums):
    """Goes on in place."""

    def decode(self, target: Sequences, before: States) -> States:
        states = super().decode(target, before)
        before.cache.copy_(states.cache.detach())
        return states


class HidesItsCacheFromSelect(Sums):
    """Keeps it where reordering does not reach."""

    def prefill(self, source: Sequences) -> States:
        states = super().prefill(source)
        return States(values=states.values, mask=states.mask, cache=_Hidden(states.cache))

    def decode(self, target: Sequences, before: States) -> States:
        kept: Tensor = before.cache.tensor
        rows = target.mask.shape[0]
        states = self.resume(*self.embed.embed(target), kept.repeat(rows, 1, 1)[:rows])
        return States(values=states.values, mask=states.mask, cache=_Hidden(states.cache))


class _Hidden:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class DecodesWithoutGradients(Sums):
    """Is cut off from its parameters while decoding."""

    def decode(self, target: Sequences, before: States) -> States:
        states = super().decode(target, before)
        return States(values=(states.values.detach() + 0 * states.values), mask=states.mask, cache=states.cache)


class Drops(Sums):
    """Dropout of the embedding, as it should be."""

    def __init__(self, *, dim: int, dropout: float, spec: InputSpec) -> None:
        super().__init__(dim=dim, spec=spec)
        self.dropout = nn.Dropout(dropout)

    def resume(self, x_BLD: Tensor, mask_BL: Tensor, total: Tensor | int) -> States:
        return super().resume(self.dropout(x_BLD), mask_BL, total)


class DropsAtItsOwnRate(Drops):
    """Does not ask the config."""

    def resume(self, x_BLD: Tensor, mask_BL: Tensor, total: Tensor | int) -> States:
        return super().resume(nn.functional.dropout(x_BLD, 0.2, self.training), mask_BL, total)


class DropsNothing(Drops):
    """Drops, and goes on with what was there."""

    def resume(self, x_BLD: Tensor, mask_BL: Tensor, total: Tensor | int) -> States:
        self.dropout(x_BLD)
        return Sums.resume(self, x_BLD, mask_BL, total)


class DropsOnlyInForward(Drops):
    """Not when it reads to continue."""

    def prefill(self, source: Sequences) -> States:
        return Sums.resume(self, *self.embed(source), 0)

    def decode(self, target: Sequences, before: States) -> States:
        return Sums.resume(self, *self.embed.embed(target), before.cache)


def case_of(name: str) -> Case:
    node = {"_target_": f"{__name__}.{name}", "dim": 5} | ({"dropout": 0.1} if "Drops" in name[:5] else {})
    return Case(node, "ids", ("tests",))


@cache
def failing(name: str) -> set[str]:
    """Names of the checks that a decoder of this file does not pass."""
    case, names = case_of(name), set()
    for check in checks_of(case):
        try:
            check(case)
        except (Exception, pytest.fail.Exception):  # some defects end in an error of torch
            names.add(check.__name__)
    return names


EVERY = [*ENCODER_CHECKS, *DROPOUT_CHECKS, *DECODER_CHECKS]
CAUGHT = {
    "declares_what_it_is": IsOfNoWidth,
    "has_one_state_for_each_that_it_promises": PromisesFewerStates,
    "padding_changes_nothing": Leaks,
    "packed_gives_the_same_states": PacksWithoutBounds,
    "packed_does_less_work": PacksNothing,
    "rows_are_independent": Mixes,
    "causal_tells_the_truth": ClaimsToBeCausal,
    "every_parameter_gets_a_gradient": HasAnIdleParameter,
    "evaluates_the_same_again": FallsInEvaluation,
    "seed_decides_the_weights": DrawsFromElsewhere,
    "weights_can_be_stored_and_loaded": HoldsStateOutsideItsWeights,
    "takes_every_length_up_to_its_own": TakesAnyLength,
    "works_in_bfloat16": Overflows,
    "is_built_on_the_meta_device": MissesTheMetaDevice,
    "reads_the_streams_that_it_names": IgnoresItsStream,
    "dropout_acts_in_training_at_its_rate": DropsAtItsOwnRate,
    "each_dropout_acts": DropsNothing,
    "decodes_in_pieces_as_at_once": ContinuesPadding,
    "decodes_step_by_step_as_at_once": ForgetsBetweenSteps,
    "causal_decoder_continues_its_source": IgnoresItsSource,
    "decoding_is_causal_within_the_target": SeesTheTargetsFuture,
    "decoding_leaves_what_it_continues": WritesIntoItsCache,
    "states_can_be_selected": HidesItsCacheFromSelect,
    "decoding_gives_gradients_and_works_in_bfloat16": DecodesWithoutGradients,
}


def test_a_correct_decoder_passes_every_check() -> None:
    assert failing("Sums") == failing("Drops") == set()
    assert set(CAUGHT) == {check.__name__ for check in EVERY}


@pytest.mark.parametrize("check", EVERY, ids=lambda check: check.__name__)
def test_a_defect_is_caught(check: Check) -> None:
    assert check.__name__ in failing(CAUGHT[check.__name__].__name__)


def test_causality_is_held_both_ways_and_input_is_left_alone() -> None:
    assert failing("ClaimsNotToBe") == {"causal_tells_the_truth"}
    assert "evaluates_the_same_again" in failing("WritesIntoItsInput")
    assert failing("DropsOnlyInForward") == {"dropout_acts_in_training_at_its_rate", "each_dropout_acts"}


@pytest.mark.parametrize("node", [{"dim": 5, "width": 3}, {}, {"dim": 5, "spec": None}])
def test_keys_that_are_not_the_arguments_are_seen(node: dict[str, object]) -> None:
    with pytest.raises(AssertionError):
        keys_are_the_arguments({"_target_": f"{__name__}.Sums", **node}, ("tests",))
