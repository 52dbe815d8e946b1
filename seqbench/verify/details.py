"""What a record says beside scores and predictions, held against the run made again: sizes, amounts, curves, splits."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seqbench.record import Point, Record

SIZES = ("parameters", "parameters_encoder", "parameters_embedding", "parameters_trained")
TRAINED = ("train_tokens", "train_items", "flops_train")  # as long as the training was
# How lines begin that explain nothing.
FACTS = ("cost.", "split ", "curves: ", "best_step ", "tuning: ", "the record has no seal", "environment: ")
SEALED = 3
COUNTED = 1e-9  # operations are sums of floats
NO_SEAL = "the record has no seal (sha256), which records of its time were written with: it was taken off or lost"


def sealed(path: Path) -> bool:
    """Whether the file has the checksum that the store writes; False for one that can't be read."""
    try:
        return json.loads(path.read_bytes()).get("sha256") is not None
    except (OSError, ValueError, AttributeError):
        return False


def unsealed(path: Path, record: Record) -> str | None:
    """A line for a record without the checksum that the store writes; None for older ones, which never had any.

    Seals came under the recipe of ids SEALED. Its first records were made an hour or two before; none was published.
    """
    return None if sealed(path) or record.ids is None or record.ids < SEALED else NO_SEAL


def differences(recorded: Record, again: Record, tolerance: float | None) -> tuple[list[str], list[str]]:
    """A line for each fact that is another, and for each that may be another elsewhere.

    `tolerance` None: to the last bit. Else amounts and curves may differ by so much, relative to max(1, |recorded|)
    for curves; where a run ends early or by its clock, how long it trained and its best step say nothing elsewhere.
    What a record of before has not got is not compared.
    """
    budget = recorded.config.get("budget") or {}
    timed = budget.get("seconds") is not None
    free = timed or (tolerance is not None and budget.get("patience") is not None)
    wrong = [*_sizes(recorded, again), *_splits(recorded, again)]
    trained = [*_trained(recorded, again, tolerance)]
    best = [*_changed("best_step", recorded.best_step, again.best_step)] if recorded.curves else []
    curves = [] if timed else [*_curves(recorded.curves, again.curves, tolerance)]
    if free:
        return [*wrong, *curves], [*trained, *best]
    if tolerance is not None:  # evaluations that are nearly as good may change places
        return [*wrong, *trained, *curves], best
    return [*wrong, *trained, *best, *curves], []


def _sizes(recorded: Record, again: Record) -> Iterator[str]:
    for name in SIZES:
        then = getattr(recorded.cost, name)
        if then is not None:
            yield from _changed(f"cost.{name}", then, getattr(again.cost, name))


def _splits(recorded: Record, again: Record) -> Iterator[str]:
    for split, then in recorded.splits.items():
        now = again.splits.get(split)
        for name in type(then).model_fields:
            value = getattr(then, name)
            if value is not None:
                yield from _changed(f"split {split}: {name}", value, getattr(now, name, None))


def _trained(recorded: Record, again: Record, tolerance: float | None) -> Iterator[str]:
    for name in (*TRAINED, "flops_forward"):
        then, now = getattr(recorded.cost, name), getattr(again.cost, name)
        allowed = tolerance or (COUNTED if name.startswith("flops") else 0.0)
        if then is not None and (now is None or not math.isclose(then, now, rel_tol=allowed)):
            yield from _changed(f"cost.{name}", then, now)


def _curves(recorded: list[Point], again: list[Point], tolerance: float | None) -> Iterator[str]:
    """The first value that is another. Points are held together by their steps."""
    if not recorded:
        if again:
            yield f"curves: none -> {len(again)} points"
        return
    now = {point.step: point for point in again}
    kept = {name for point in recorded for name in point.values}  # what has come since is no difference
    if tolerance is None and [point.step for point in recorded] != [point.step for point in again]:
        yield f"curves: {len(recorded)} points up to step {recorded[-1].step} -> {_end(again)}"
        return
    for then in recorded:
        point = now.get(then.step)
        if point is None:
            continue
        if tolerance is None:
            yield from _changed(f"curves: tokens at step {then.step}", then.tokens, point.tokens)
        names = [*then.values, *(name for name in point.values if name in kept and name not in then.values)]
        for name in names:
            a, b = then.values.get(name), point.values.get(name)
            if not _near(a, b, tolerance):
                yield f"curves: {name} at step {then.step} {a} -> {b}"
                return


def _near(one: float | None, other: float | None, tolerance: float | None) -> bool:
    if one is None or other is None or tolerance is None:
        return one == other
    return abs(one - other) <= tolerance * max(1.0, abs(one))


def _end(points: list[Point]) -> str:
    return f"{len(points)} up to step {points[-1].step}" if points else "none"


def _changed(name: str, then: Any, now: Any) -> list[str]:
    return [] if then == now else [f"{name} {then} -> {'none' if now is None else now}"]
