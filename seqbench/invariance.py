"""What may not change a score: how many rows share a batch, how far they are padded, who makes the batches."""
# N rows of the sample

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.base import Encoder, States
from seqbench.record import Variation
from seqbench.training.evaluation import Evaluator
from tasks.loading import Batching, plan_batches, sample_rows

SPLIT = "test"
# Sums in another order move the last digits: by up to 2e-7 over all configured encoders, in fp32 on a CPU.
TOLERANCE, ACCELERATED, HALF = 1e-4, 1e-3, 3e-2  # fp32 on a CPU; fp32 elsewhere (TF32 convolutions); bf16 and fp16
FLOOR = 0.1  # differences are relative to the number compared, but to no less than this
TIES = 0.1  # share of discrete predictions (classes, words, ranks) that rounding may flip while the losses stay
SHARE, LEAST = 0.01, 0.25  # of the run's seconds so far that each variation may take, or this many seconds
HUGE = 1e9  # stands for a difference that has no number

Batches = list[NDArray[np.int64]]


def check(
    evaluator: Evaluator, predictions: Mapping[int, Any], *, rows: int, precision: str, seconds: float
) -> dict[str, Variation]:
    """Score a fixed sample of the test split again in each variation and compare it with the run itself.

    `rows` is the sample's size, `predictions` are the run's (row -> prediction), `seconds` what the run has taken so
    far, which bounds this: no batch begins after a hundredth of it (or a quarter of a second). Variations:

    - `workers_0`, `workers_2`: the sample in batches as the run cuts them, made here, or by two processes;
    - `batch_1`: each row alone, so without padding;
    - `padding`: batches that the split's longest row stretches.

    Moved is a variation in which a batch's loss or a predicted number differs by more than the tolerance of the
    precision, or in which more discrete predictions flip than near ties explain. Losses are means that add up over
    rows, so that the rows alone say what each batch's must be: they show a leak before it crosses a decision.
    Auxiliary losses of the encoder, which may be a whole batch's, are left out of them.
    """
    lengths = evaluator.task.lengths(SPLIT)
    sample = sample_rows(len(lengths), rows)
    longest = int(lengths.argmax())
    as_run = [sample[p] for p in plan_batches(lengths[sample], evaluator.batching, seed=0, epoch=0, shuffle=False)]
    alone = [np.array([row]) for row in dict.fromkeys([longest, *sample.tolist()])]
    comparison = _Comparison(
        evaluator=evaluator,
        predictions=predictions,
        tolerance=tolerance_of(evaluator.device, precision),
        seconds=max(LEAST, SHARE * seconds),
    )
    with _without_auxiliary(evaluator.encoder):
        workers_0, plain = comparison.of(as_run)
        workers_2, _ = comparison.of(as_run, workers=2, expected=plain)
        batch_1, single = comparison.of(alone)
        done = np.array([int(row[0]) for row in alone[: len(single)]], dtype=np.int64)
        if len(single) < len(alone):  # time was up: the rows that were had, together, to have something to compare with
            as_run = [done] if len(done) else []
            plain = comparison.of(as_run)[1] if as_run else []
        batch_1 = comparison.judged(batch_1, _largest(_expected(as_run, single, alone), plain))
        batches = _stretched(sample[np.isin(sample, done)], longest, lengths, evaluator.batching)
        if batches and single:
            padding, _ = comparison.of(batches, expected=_expected(batches, single, alone))
        else:
            padding = Variation(rows=0, verdict="not_applicable", reason="all rows of the sample are equally long")
    return {"workers_0": workers_0, "workers_2": workers_2, "batch_1": batch_1, "padding": padding}


def tolerance_of(device: torch.device, precision: str) -> float:
    """How far a number may move, relative to itself, by the order of sums alone."""
    if precision != "32-true":
        return HALF
    return TOLERANCE if device.type == "cpu" else ACCELERATED


def apart(one: Any, other: Any) -> float:
    """How far two predictions are from each other: the largest relative difference of their numbers.

    Infinite where they differ in anything else: a class, a word, a rank, a length.
    """
    if hasattr(one, "detach"):
        one, other = one.detach().cpu().numpy(), other.detach().cpu().numpy()
    if isinstance(one, np.ndarray):
        return _numbers_apart(one, np.asarray(other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return math.inf if one.keys() != other.keys() else max([0.0, *(apart(one[k], other[k]) for k in one)])
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return math.inf if len(one) != len(other) else max([0.0, *map(apart, one, other)])
    if isinstance(one, float | np.floating) and isinstance(other, float | np.floating):
        return _numbers_apart(np.asarray(one), np.asarray(other))
    return 0.0 if one == other else math.inf


def _numbers_apart(one: NDArray[Any], other: NDArray[Any]) -> float:
    if one.shape != other.shape or one.dtype.kind != "f":
        return 0.0 if np.array_equal(one, other) else math.inf
    a, b = one.astype(np.float64), other.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):  # infinity minus infinity, which `same` has
        relative = np.where(same, 0.0, np.abs(a - b) / np.maximum(FLOOR, np.abs(a)))
    return float(np.where(np.isfinite(relative), relative, HUGE).max(initial=0.0))


Losses = list[tuple[float, int]]  # of each batch: mean over its items, and how many items


@dataclass(frozen=True, kw_only=True, slots=True)
class _Comparison:
    """Variations of one run's evaluation, each held against the run's own predictions."""

    evaluator: Evaluator
    predictions: Mapping[int, Any]
    tolerance: float
    seconds: float

    def of(
        self, batches: Batches, *, workers: int = 0, expected: Sequence[tuple[float, int] | None] = ()
    ) -> tuple[Variation, Losses]:
        """What came of these batches, and their losses; `expected` is what the losses should be, where it is known."""
        try:
            with _without_advice():
                got = self.evaluator.over(SPLIT, batches, workers=workers, seconds=self.seconds)
        except Exception as error:  # an encoder that can't read a row by itself is a finding, and no failure of the run
            text = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            return Variation(rows=0, verdict="failed", reason=text, tolerance=self.tolerance), []
        distances = np.array([apart(self.predictions[row], value) for row, value in got.predictions.items()])
        numbers = distances[np.isfinite(distances)]
        found = Variation(
            rows=len(distances),
            flipped=int(np.isinf(distances).sum()),
            moved=int((distances > self.tolerance).sum()),
            largest_difference=float(numbers.max(initial=0.0)),
            tolerance=self.tolerance,
            seconds=got.seconds,
            verdict="same",
        )
        return self.judged(found, _largest(expected, got.losses)), got.losses

    def judged(self, found: Variation, loss_difference: float | None) -> Variation:
        """With the verdict, once it is known how far losses are apart."""
        if found.verdict == "failed":
            return found
        by_number = found.moved > found.flipped
        by_loss = loss_difference is not None and loss_difference > self.tolerance
        by_flips = found.flipped > max(1, TIES * found.rows)
        reason = None
        if by_loss:
            reason = f"a batch's loss is another by {loss_difference:.1e}"
        elif by_number:
            reason = f"a predicted number is another by {found.largest_difference:.1e}"
        elif by_flips:
            reason = f"{found.flipped} of {found.rows} predictions are others"
        elif found.flipped:
            reason = f"{found.flipped} of {found.rows} predictions flip, as near ties do; the losses stay"
        verdict = "moved" if by_loss or by_number or by_flips else "same"
        return found.model_copy(update={"verdict": verdict, "reason": reason, "loss_difference": loss_difference})


def _largest(expected: Sequence[tuple[float, int] | None], losses: Losses) -> float | None:
    """Largest relative difference of batches' losses; None where none could be compared."""
    pairs = [(a[0], b[0]) for a, b in zip(expected, losses, strict=False) if a is not None]
    return max((_numbers_apart(np.asarray(a), np.asarray(b)) for a, b in pairs), default=None)


def _expected(batches: Batches, single: Losses, alone: Batches) -> list[tuple[float, int] | None]:
    """Losses of batches from those of their rows alone; None where one of these is not known."""
    known = {int(rows[0]): loss for rows, loss in zip(alone, single, strict=False)}
    found: list[tuple[float, int] | None] = []
    for batch in batches:
        parts = [known.get(row) for row in batch.tolist()]
        whole = [part for part in parts if part is not None]
        items = sum(number for _, number in whole)
        complete = len(whole) == len(parts) and items > 0
        found.append((sum(loss * number for loss, number in whole if number) / items, items) if complete else None)
    return found


def _stretched(sample: NDArray[np.int64], longest: int, lengths: NDArray[np.int64], batching: Batching) -> Batches:
    """Batches in which the split's longest row stretches the others; [] where no row is shorter.

    As wide as a batch of the split can be, and no wider: what a task's batches never do is no fault.
    """
    shorter = sample[lengths[sample] < lengths[longest]]
    room = batching.rows if batching.rows is not None else (batching.tokens or 1) // max(1, int(lengths[longest]))
    step = max(1, room - 1)
    return [np.append(shorter[i : i + step], longest) for i in range(0, len(shorter), step)]


@contextmanager
def _without_advice() -> Iterator[None]:
    """Without torch's advice on the number of workers: two are what is tested, however many cores there are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        yield


@contextmanager
def _without_auxiliary(encoder: Encoder) -> Iterator[None]:
    """States without the losses of a whole batch, for as long as it lasts."""

    def drop(module: Any, given: Any, states: Any) -> Any:
        return replace(states, losses={}) if isinstance(states, States) and states.losses else states

    handle = encoder.register_forward_hook(drop)
    try:
        yield
    finally:
        handle.remove()
