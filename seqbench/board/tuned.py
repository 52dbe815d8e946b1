"""Score against the number of trials: what a row would have come to with fewer; and who was tuned at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb

from seqbench.record import Record, TuningFacts


def expected_best(values: Sequence[float], draws: int) -> float:
    """Expected maximum of `draws` of the values drawn without replacement, 1 <= draws <= len(values).

    Sum over i of v_(i) C(i - 1, n - 1) / C(N, n), v_(i) the i-th smallest of N: the unbiased estimate of the expected
    best validation score of n random trials (Tang et al. 2020, "Showing Your Work Doesn't Always Work", arXiv
    2004.13705) in place of that of Dodge et al. 2019 ("Show Your Work", arXiv 1909.03004, section 3), which draws
    with replacement and is too low. Raises ValueError for another number of draws.
    """
    if not 1 <= draws <= len(values):
        raise ValueError(f"draws: {draws} of {len(values)} values")
    total = comb(len(values), draws)
    return sum(v * (comb(i, draws - 1) / total) for i, v in enumerate(sorted(values)))


def curve(tuning: TuningFacts) -> list[float]:
    """Best validation score of 1, 2, ... trials: expected for random ones, the best so far for those in sequence.

    A trial that failed counts as the worst that was seen. Empty where none has a score.
    """
    sign = 1 if tuning.best == "max" else -1
    known = [sign * trial.value for trial in tuning.trials if trial.value is not None]
    if not known:
        return []
    values = [min(known) if trial.value is None else sign * trial.value for trial in tuning.trials]
    if tuning.sampler == "random":
        return [sign * expected_best(values, draws) for draws in range(1, len(values) + 1)]
    return [sign * max(values[: i + 1]) for i in range(len(values))]


def notices(rows: Mapping[str, Sequence[Record]], label: str) -> list[str]:
    """Sentences on a column's finished runs by the labels of their rows, floors left out; none if none is tuned."""
    tuned = {row: [r.tuning for r in records if r.tuning is not None] for row, records in rows.items()}
    if not any(tuned.values()):
        return []
    told = []
    bare = [row for row, records in rows.items() if len(tuned[row]) < len(records)]
    if bare:
        told.append(f"{label}: not tuned, unlike the others, so no fair pair with them: {', '.join(bare)}")
    efforts = {(len(t.trials), t.sampler, t.seed, repr(sorted(t.space.items()))) for ts in tuned.values() for t in ts}
    if len(efforts) > 1:
        told.append(
            f"{label}: the rows were not tuned alike: {len(efforts)} searches differ in trials, space or sampler"
        )
    for row, tunings in tuned.items():
        if tunings and (points := curve(tunings[0])):
            told.append(f"{label}: {row}, {_line(tunings[0], points)}")
    return told


def _line(tuning: TuningFacts, points: Sequence[float]) -> str:
    """`validation accuracy expected of the best of n trials: 1: 0.71, 2: 0.78, 4: 0.82, 8: 0.84`."""
    shown = sorted({1, 2, 4, 8, 16, 32, 64, 128, len(points)} & set(range(1, len(points) + 1)))
    what = "expected of the best of n trials" if tuning.sampler == "random" else "after n trials in sequence"
    failed = sum(trial.value is None for trial in tuning.trials)
    told = f" ({failed} failed)" if failed else ""
    return f"validation {tuning.metric} {what}{told}: " + ", ".join(f"{n}: {points[n - 1]:.4g}" for n in shown)
