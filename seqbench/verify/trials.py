"""How a run was tuned, held against what its search gives again: settings, choice, scores of trials made once more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from seqbench import run as runs
from seqbench.config import RunConfig
from seqbench.record import Record, TrialFacts, TuningFacts
from seqbench.training.progress import Watch, ignore
from seqbench.tuning import best_of, make_trial, suggestions

Which = Literal["chosen", "all", "none"]
REPEATABLE = ("finished", "diverged", "failed")  # the other ends come from outside


def differences(
    record: Record, config: RunConfig, *, which: Which, tolerance: float | None, watch: Watch | None
) -> tuple[list[str], list[str]]:
    """A line for each thing that is another, and for each that was not looked at or may be another elsewhere.

    What a search would suggest, given the recorded scores, and what it would choose, costs no training. The trials of
    `which` are made again, in the results folder of `config`, and their validation scores compared: to the last bit
    for `tolerance` None, else relative to max(1, |recorded|). Nothing for a run that was not tuned.
    """
    tuning, tune = record.tuning, config.tune
    if tuning is None or tune is None:
        return [], []
    wrong = _search(tuning, config)
    try:
        suggested = suggestions(config, tuning)
    except Exception as error:  # another version of the library may refuse what was recorded, in its own ways
        told = [f"tuning: what the search suggests can't be told here ({type(error).__name__}: {error})"]
    else:
        told = []
        other = [t.number for t, s in zip(tuning.trials, suggested, strict=False) if _plain(t.settings) != _plain(s)]
        if other:
            line = f"tuning: trial {other[0]} has other settings than the search suggests{_more(other)}"
            (wrong if tolerance is None else told).append(line)  # elsewhere the library may be another
    best = best_of(tuning.trials, tuning.best)
    if best is None or best.number != tuning.chosen:
        better = "none" if best is None else str(best.number)
        wrong.append(f"tuning: trial {tuning.chosen} is chosen, but by the recorded scores it is {better}")
    picked = [t for t in tuning.trials if which == "all" or (which == "chosen" and t.number == tuning.chosen)]
    fit = [trial for trial in picked if trial.status in REPEATABLE]
    for trial in fit:
        wrong += _repeated(trial, config, tolerance, watch)
    left = len(tuning.trials) - len(fit)
    if left:
        how = "; trials=all makes them, too" if len(picked) < len(tuning.trials) else ": they ended from outside"
        told.append(f"tuning: {left} of {len(tuning.trials)} trials were not made again{how}")
    return wrong, told


def _search(tuning: TuningFacts, config: RunConfig) -> list[str]:
    """What the record says of its search, against the one that its config asks for."""
    assert config.tune is not None
    tune = config.tune
    asked: dict[str, Any] = {
        "sampler": tune.sampler,
        "seed": tune.seed,
        "space": {key: dimension.model_dump(exclude_none=True) for key, dimension in tune.space.items()},
    }
    lines = [
        f"tuning: {name} {getattr(tuning, name)} -> {now}"
        for name, now in asked.items()
        if getattr(tuning, name) != now
    ]
    if len(tuning.trials) != tune.trials or [t.number for t in tuning.trials] != list(range(len(tuning.trials))):
        lines.append(f"tuning: {len(tuning.trials)} trials in the record, {tune.trials} asked for by its config")
    return lines


def _repeated(trial: TrialFacts, config: RunConfig, tolerance: float | None, watch: Watch | None) -> list[str]:
    """A trial made again: its end and its score."""

    def run_trial(one: RunConfig, note: str) -> Record:
        return runs.run(one, watch=watch, trial=True, note=note).record

    again = make_trial(config, trial.number, trial.settings, run_trial, watch or ignore)
    then, now = trial.value, again.value
    if again.status != trial.status:
        return [f"tuning: trial {trial.number} {trial.status} -> {again.status}"]
    if then is None or now is None or tolerance is None:
        same = then == now
    else:
        same = abs(then - now) <= tolerance * max(1.0, abs(then))
    return [] if same else [f"tuning: trial {trial.number} has the validation score {then}, again {now}"]


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(settings.items()))


def _more(lines: Sequence[Any]) -> str:
    return f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
