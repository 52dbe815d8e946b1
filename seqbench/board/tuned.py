"""Score against the number of trials: what a row would have come to with fewer; and who was tuned at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb

from seqbench.record import Record, TuningFacts

SHOWN = 3  # files that a sentence names


@dataclass(frozen=True, kw_only=True, slots=True)
class Trials:
    """What a row of a column had come to after 1, 2, ... trials."""

    row: str  # id
    label: str
    sampler: str
    metric: str  # over the validation split
    failed: int  # trials without a score
    points: tuple[float, ...]

    def line(self) -> str:
        """`lstm, validation accuracy expected of the best of n trials: 1: 0.71, 2: 0.78, 4: 0.82, 8: 0.84`."""
        what = "expected of the best of n trials" if self.sampler == "random" else "after n trials in sequence"
        numbers = ", ".join(f"{n}: {self.points[n - 1]:.4g}" for n in shown(len(self.points)))
        return f"{self.label}, validation {self.metric} {what}{self.failures()}: {numbers}"

    def failures(self) -> str:
        """` (2 failed)`, or nothing."""
        return f" ({self.failed} failed)" if self.failed else ""


def shown(trials: int) -> list[int]:
    """Numbers of trials that a table has: powers of two, and all of them."""
    return sorted({2**i for i in range(trials.bit_length())} | {trials})


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


def notices(rows: Mapping[str, tuple[str, Sequence[Record]]], label: str) -> list[str]:
    """Sentences on a column's rows, by id with label and finished runs, floors left out; none if none is tuned."""
    tuned = {row: [r.tuning for r in records if r.tuning is not None] for row, (_, records) in rows.items()}
    if not any(tuned.values()):
        return []
    told = []
    bare = [name for row, (name, records) in rows.items() if len(tuned[row]) < len(records)]
    if bare:
        told.append(f"{label}: not tuned, unlike the others, so no fair pair with them: {', '.join(bare)}")
    efforts = {(len(t.trials), t.sampler, t.seed, repr(sorted(t.space.items()))) for ts in tuned.values() for t in ts}
    if len(efforts) > 1:
        told.append(
            f"{label}: the rows were not tuned alike: {len(efforts)} searches differ in trials, space or sampler"
        )
    for row, (name, _) in rows.items():
        told += [f"{label}: {name}, {line}" for line in _older(tuned[row])]
    return told


def _older(tunings: Sequence[TuningFacts]) -> list[str]:
    """That the settings were chosen by trials of another version than the run: a sentence, or nothing."""
    worst = max(tunings, key=lambda tuning: sum(bool(t.changed) for t in tuning.trials), default=None)
    old = [trial for trial in worst.trials if trial.changed] if worst is not None else []
    if worst is None or not old:
        return []
    files = list(dict.fromkeys(file for trial in old for file in trial.changed))
    more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    return [
        f"{len(old)} of {len(worst.trials)} trials were made by another version of its code or data than the run "
        f"({', '.join(files[:SHOWN])}{more}); rerun=always makes them again"
    ]


def trials(rows: Mapping[str, tuple[str, Sequence[Record]]]) -> tuple[Trials, ...]:
    """The curves of a column's tuned rows, by id with label and finished runs; a row's seeds share their trials."""
    found = []
    for row, (label, records) in rows.items():
        tuning = next((record.tuning for record in records if record.tuning is not None), None)
        points = curve(tuning) if tuning is not None else []
        if tuning is not None and points:
            failed = sum(trial.value is None for trial in tuning.trials)
            found.append(
                Trials(
                    row=row,
                    label=label,
                    sampler=tuning.sampler,
                    metric=tuning.metric,
                    failed=failed,
                    points=tuple(points),
                )
            )
    return tuple(found)
