"""Equal tuning: every row the same trials of the same search space, chosen among by validation alone, then run."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqbench.build import PairError, build_task, is_trivial
from seqbench.composition.schema import Node
from seqbench.composition.sections import ENDS, Dimension
from seqbench.config import RunConfig, check_config
from seqbench.errors import ConfigError
from seqbench.record import Record, TrialFacts, TuningFacts
from seqbench.records import identity
from seqbench.records.claim import Claimed
from seqbench.records.lineage import changes
from seqbench.training.progress import Event, Watch
from tasks.base import Task

FOLDER = "tuning"  # in the results: <hash of the row>/<id of the trial>/record.json
SECTIONS = ("encoder", "optimizer", "schedule", "trainer", "budget")
HELD = tuple(f"budget.{key}" for key in (*ENDS, "match", "target", "vary", "count", "tolerance", "matched"))
ABSENT = object()
POLL = 0.5  # seconds between two looks at a trial that another process works on
RunTrial = Callable[[RunConfig, str], Record]  # with what its progress is called: `trial 1 of 20`
Settings = dict[str, Any]


def is_tuned(config: RunConfig) -> bool:
    """Whether trials are to be made before the run: not where they are behind it, nor for a trivial row."""
    return config.tune is not None and config.tune.chosen is None and not is_trivial(config)


def without_floors(config: RunConfig) -> RunConfig:
    """The config; that of a trivial row, in which nothing can be tuned, without `tune`."""
    return config.model_copy(update={"tune": None}) if config.tune is not None and is_trivial(config) else config


def check(config: RunConfig, tasks: dict[str, Task] | None = None) -> None:
    """Hold the search space against the config. Raises ConfigError, PairError where the row lacks a key of it.

    The ends of each range and all choices are tried out, so that no trial fails for its type, and none has a size
    other than what `budget.match` holds equal (`tasks` keeps what is set up for that, without the test split).
    """
    if config.tune is None:
        return
    tree = config.resolved()
    _hold(config, tree)
    sizes: dict[str, Node] = {}
    for key, dimension in config.tune.space.items():
        if key.split(".")[0] not in SECTIONS or key in HELD:
            raise ConfigError(
                f"tune.space: {key} can't be tuned, for rows would differ in what is held equal; keys of "
                f"{', '.join(SECTIONS)} can, but for the end of the budget and what it matches"
            )
        if _at(tree, key) is ABSENT:
            raise PairError(
                f"tune.space: encoder {config.names.encoder} has no {key}, and every row has the same search space",
                f"has no {key} to tune",
            )
        if key in (config.budget.matched or {}):
            raise ConfigError(f"tune.space: {key} is what budget.match solves; leave one of the two out")
        for value in dimension.choices or (dimension.low, dimension.high):
            value = int(value) if dimension.whole and value is not None else value
            tried = with_settings(config, {key: value})
            if key.startswith("encoder."):
                sizes[f"{key}={value}"] = tried.encoder
    if config.budget.matched is not None and sizes and is_tuned(config):
        _hold_equal(config, sizes, tasks)


def _hold(config: RunConfig, tree: dict[str, Any]) -> None:
    """What was chosen is a value for each key of the search space, and the one that the config has."""
    assert config.tune is not None
    chosen, space = config.tune.chosen, config.tune.space
    if chosen is None:
        return
    if set(chosen) != set(space):
        raise ConfigError(
            f"tune.chosen: is of {', '.join(chosen) or 'no key'}, tune.space of {', '.join(space)}; "
            "set tune.chosen=null to make the trials"
        )
    for key, value in chosen.items():
        if _at(tree, key) != value:
            raise ConfigError(
                f"tune.chosen: {key} was found as {value}, the config has {_at(tree, key)}; "
                "set tune.chosen=null to make the trials again"
            )


def _hold_equal(config: RunConfig, sizes: dict[str, Node], tasks: dict[str, Task] | None) -> None:
    from seqbench.matching.match import moved

    unequal = moved(config, sizes, tasks)
    if unequal:
        name, amount = next(iter(unequal.items()))
        raise ConfigError(
            f"tune.space: changes the size of the encoder, which budget.match={config.budget.match} holds equal "
            f"({name} comes to {amount:g}); leave one of the two out"
        )


def with_settings(config: RunConfig, settings: Settings) -> RunConfig:
    """The config with settings by dotted key, checked."""
    tree = config.resolved()
    for key, value in settings.items():
        *sections, last = key.split(".")
        node = tree
        for section in sections:
            node[section] = dict(node[section])
            node = node[section]
        node[last] = value
    found = check_config(tree, config.names, config.overrides, allowed=config.allowed, found=True)
    return config.model_copy(update={name: getattr(found, name) for name in type(found).model_fields})


def trial_config(config: RunConfig, settings: Settings) -> RunConfig:
    """The run of a trial: an ordinary one, seeded by `tune.seed`, in a folder that the row's seeds share."""
    assert config.tune is not None
    found = with_settings(config, settings)
    names = found.names.model_copy(update={"study": None})
    return found.model_copy(
        update={
            "tune": None,
            "seed": config.tune.seed,
            "results": str(Path(config.results) / FOLDER / row_digest(config)),
            "mirror": None,  # what a board says of trials stands in the run's own record
            "logger": type(found.logger)(),
            "names": names,
        }
    )


def row_digest(config: RunConfig) -> str:
    """Of all that the trials of a row depend on besides their settings: not the seed of the runs, nor their number."""
    facts = identity.facts(config, build_task(config))
    return identity.digest({key: value for key, value in facts.items() if key not in ("seed", "tune")})


def tuned(config: RunConfig, run_trial: RunTrial, watch: Watch) -> tuple[RunConfig, TuningFacts]:
    """Make the trials that are missing, and give the config with the best one's settings, and all that was tried.

    The suggestions are a function of `tune` and, for `tpe`, of the scores before: they are made anew each time, with
    the scores of trials that have a record, so a killed tuning goes on where it was. The best validation score of the
    headline metric is chosen, the earlier one of equals; a trial that fails has none. Raises ConfigError where none
    has finished.
    """
    tune = config.tune
    assert tune is not None
    metric = build_task(config).headline
    if tune.sampler == "random":
        search = _Search(config, metric.best)
        trials = _together(config, [search.ask() for _ in range(tune.trials)], run_trial, watch)
    else:
        search, trials = _Search(config, metric.best), []
        for number in range(tune.trials):
            trials.append(make_trial(config, number, search.ask(), run_trial, watch))
            search.tell(trials[-1].value)
    best = best_of(trials, metric.best)
    if best is None:
        raise ConfigError(f"tune: none of {len(trials)} trials has a score; the first: {trials[0].reason}")
    chosen = with_settings(config, best.settings)
    facts = TuningFacts(
        sampler=tune.sampler,
        seed=tune.seed,
        space={key: dimension.model_dump(exclude_none=True) for key, dimension in tune.space.items()},
        metric=metric.name,
        best=metric.best,
        trials=trials,
        chosen=best.number,
    )
    return chosen.model_copy(update={"tune": tune.model_copy(update={"chosen": best.settings})}), facts


class _Search:
    """Settings to try, one after the other: a function of `tune` and of the scores that it was told."""

    def __init__(self, config: RunConfig, best: str) -> None:
        import optuna  # a second, only where something is tuned

        tune = config.tune
        assert tune is not None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        kinds = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
        self.study = optuna.create_study(
            direction="maximize" if best == "max" else "minimize", sampler=kinds[tune.sampler](seed=tune.seed)
        )
        self.space = {key: _distribution(dimension) for key, dimension in tune.space.items()}
        self.trial: Any = None

    def ask(self) -> Settings:
        """The next ones."""
        self.trial = self.study.ask(self.space)
        return dict(self.trial.params)

    def tell(self, value: float | None) -> None:
        """The score of the last ones; None: they have none."""
        import optuna

        if value is None:
            self.study.tell(self.trial, state=optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(self.trial, value)


def suggestions(config: RunConfig, tuning: TuningFacts) -> list[Settings]:
    """What the search of a config suggests for each recorded trial, given the scores of those before it."""
    assert config.tune is not None
    search, found = _Search(config, tuning.best), []
    for trial in tuning.trials:
        found.append(search.ask())
        if config.tune.sampler != "random":  # as `tuned` does, so that it draws the same
            search.tell(trial.value)
    return found


def best_of(trials: list[TrialFacts], best: str) -> TrialFacts | None:
    """The trial with the best validation score, the earlier one of equals; None where none has one."""
    sign = 1 if best == "max" else -1
    scored = [trial for trial in trials if trial.value is not None]
    return max(scored, key=lambda trial: (sign * (trial.value or 0.0), -trial.number), default=None)


def _together(config: RunConfig, drawn: list[Settings], run_trial: RunTrial, watch: Watch) -> list[TrialFacts]:
    """All trials. What other processes are at, for other seeds of the row, comes last: meanwhile this one helps."""
    done: dict[int, TrialFacts] = {}
    for number, settings in enumerate(drawn):
        with contextlib.suppress(Claimed):
            done[number] = make_trial(config, number, settings, run_trial, None)
    for number in sorted({*range(len(drawn))} - {*done}):
        done[number] = make_trial(config, number, drawn[number], run_trial, watch)
    return [done[number] for number in range(len(drawn))]


def make_trial(
    config: RunConfig, number: int, settings: Settings, run_trial: RunTrial, watch: Watch | None
) -> TrialFacts:
    """One trial, run or found. Where another process is at it, its end is waited for; without a watch, raises Claimed.

    With `rerun=always` a trial is found if it was made since that was asked for, for another seed of the row.
    """
    reason: str | None
    assert config.tune is not None
    while True:
        try:
            record = run_trial(trial_config(config, settings), f"trial {number + 1} of {config.tune.trials}")
            break
        except Claimed:
            if watch is None:
                raise
            watch(Event(kind="score"))  # where somebody wants this process to end, it does so here
            time.sleep(POLL)
        except ConfigError as error:
            return TrialFacts(number=number, settings=settings, status="failed", reason=str(error).splitlines()[0])
    value = None
    if record.status == "finished" and record.headline is not None:
        value = record.scores["valid"][record.headline].value
    since = changes(record)
    reason = record.reason or (None if value is not None and math.isfinite(value) else "no validation score")
    return TrialFacts(
        number=number,
        settings=settings,
        status=record.status,
        reason=reason,
        value=value if value is not None and math.isfinite(value) else None,
        id=record.id,
        seconds=record.cost.wall_seconds,
        tokens=record.cost.train_tokens,
        flops=record.cost.flops_train,
        changed=[*since.data, *since.task, *since.encoder],
    )


def _distribution(dimension: Dimension) -> Any:
    import optuna

    if dimension.choices is not None:
        return optuna.distributions.CategoricalDistribution(dimension.choices)
    assert dimension.low is not None
    assert dimension.high is not None
    if dimension.whole:
        return optuna.distributions.IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _at(tree: dict[str, Any], key: str) -> Any:
    """What stands at a dotted key; ABSENT where nothing does."""
    node: Any = tree
    for part in key.split("."):
        node = node.get(part, ABSENT) if isinstance(node, dict) else ABSENT
    return node
