"""Equal budgets: an encoder's size solved so that parameters, operations or latency come to a target."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from encoders.base import Encoder
from seqbench import randomness
from seqbench.build import PairError, build_task, is_trivial, locate
from seqbench.composition.schema import Node
from seqbench.composition.sections import Budget
from seqbench.config import RunConfig
from seqbench.errors import ConfigError
from seqbench.matching import cache as match_cache
from seqbench.matching.measure import counted, latency, measure_of, operations
from seqbench.matching.search import LARGEST, Found, search
from seqbench.record import MatchFacts
from seqbench.records import identity, provenance
from seqbench.training.facts import device_of
from tasks.base import Task

FOLDER = "matches"  # in the results: what was solved, by a hash of what it depends on
TOLERANCE = {"params": 0.02, "flops": 0.02, "latency": 0.2}  # latency is measured, and moves by itself
WORDS = {"params": "parameters", "flops": "operations", "latency": "milliseconds"}
Key = tuple[str, ...]
REFUSALS = (ConfigError, ValueError, AssertionError, RuntimeError)  # how constructors say that a size can't be


def matched(config: RunConfig, tasks: dict[str, Task] | None = None, *, withhold: bool = False) -> RunConfig:
    """The config with what `budget.match` solves, in the encoder's node and in `budget.matched`; else as it is.

    Trivial rows, which have no size, and configs that are solved already stay as they are. What was solved once is
    read from `results/matches/` and counted again (a latency, which moves by itself, is not measured again: its file
    has a checksum), and solved anew where it misses. Data is read for that: the vocabulary and the lengths decide
    what a size comes to (`tasks` keeps those that were set up; `withhold`, and a config that is to be tuned, leave
    the test split unread). Raises PairError where it can't be: for an encoder that declares no width, and for a
    target that its sizes miss by more than the tolerance; DataError, and ConfigError for impossible nodes.
    """
    budget = config.budget
    if budget.match is None or is_trivial(config):
        return config
    if budget.matched is not None:
        _hold(config)
        return config
    sizes = _Sizes(config)
    tasks = {} if tasks is None else tasks
    path = Path(config.results) / FOLDER / f"{_digest(config)}.json"

    def holds(changes: dict[str, int], sealed: bool) -> bool:
        if not sizes.can_be(changes):
            return False
        return sealed if budget.match == "latency" else _reaches(config, changes, _task(config, tasks, withhold))

    found = match_cache.read(path)
    if found is not None and holds(*found):
        return with_sizes(config, found[0])
    changes = _solve(config, sizes, _task(config, tasks, withhold))
    return with_sizes(config, match_cache.keep(path, changes, holds))


def with_sizes(config: RunConfig, changes: dict[str, int]) -> RunConfig:
    """The config with these arguments of its encoder, noted as solved."""
    node = dict(config.encoder)
    node.update({key.removeprefix("encoder."): value for key, value in changes.items()})
    return config.model_copy(
        update={"encoder": node, "budget": config.budget.model_copy(update={"matched": dict(changes)})}
    )


def facts(config: RunConfig, encoder: Encoder, task: Task) -> MatchFacts | None:
    """What a matched run came to, counted on the encoder that was trained; None for one that was not matched."""
    budget = config.budget
    if budget.match is None or budget.target is None or budget.matched is None:
        return None
    spread = None
    if budget.match == "params":
        reached = counted(budget, encoder, task)
    elif budget.match == "flops":
        reached = operations(encoder, task)
    else:
        timed = latency(encoder, task, torch.device(device_of(config)))
        reached, spread = timed.ms, timed.spread
    return MatchFacts(
        of=budget.match,
        count=budget.count if budget.match == "params" else None,
        target=budget.target,
        reached=reached,
        leftover=(reached - budget.target) / budget.target,
        tolerance=tolerance_of(budget),
        spread=spread,
        solved=budget.matched,
    )


def tolerance_of(budget: Budget) -> float:
    """Share of the target that may be left over."""
    return budget.tolerance or TOLERANCE[budget.match or "params"]


def moved(config: RunConfig, encoders: Mapping[str, Node], tasks: dict[str, Task] | None = None) -> dict[str, float]:
    """Which of these nodes, by name, do not keep what was solved for the config's own, and what each comes to.

    That is the target, within the tolerance. For a latency, which is never measured twice the same, its operations
    are taken, against the own node's. A node that can't be built has no size. Sets data up, without the test split.
    """
    budget = config.budget
    assert budget.target is not None
    by = "flops" if budget.match == "latency" else budget.match
    counting = config.model_copy(update={"budget": budget.model_copy(update={"match": by})})
    measure = measure_of(counting, _task(config, tasks, withhold=True))
    goal = measure(config.encoder) if budget.match == "latency" else budget.target
    found = {}
    for name, node in encoders.items():
        try:
            amount = measure(node)
        except REFUSALS:
            continue
        if abs(amount - goal) > tolerance_of(budget) * goal:
            found[name] = amount
    return found


# -- solving -----------------------------------------------------------------------------------------------------------
class _Sizes:
    """The arguments of an encoder's node that may change: declared by its class, given a number by the config."""

    def __init__(self, config: RunConfig) -> None:
        self.node, name = config.encoder, config.names.encoder
        target = locate(str(self.node["_target_"]), "encoder", config.allowed)
        self.width = str(getattr(target, "width", Encoder.width))
        self.vary = config.budget.vary
        self.along = self._given(getattr(target, "along", Encoder.along))
        self.depths = self._given(getattr(target, "depths", Encoder.depths))
        vary = self.vary
        if vary != "depth" and not self._given((self.width,)):
            raise PairError(
                f"budget.match: encoder {name} gives its constructor no {self.width}, so there is no width to solve; "
                "leave it out, or set budget.match=null for it",
                f"can't be matched: no {self.width} to solve",
            )
        if vary != "width" and not self.depths:
            raise PairError(
                f"budget.vary: {vary}, but encoder {name} has no {' or '.join(Encoder.depths)}; use width",
                "can't be matched: no depth to solve",
            )

    def _given(self, names: Sequence[str]) -> Key:
        values = {name: self.node.get(name) for name in names}
        return tuple(n for n, v in values.items() if isinstance(v, int) and not isinstance(v, bool) and v > 0)

    def at(self, width: int, factor: float = 1.0, depth: int | None = None) -> dict[str, int]:
        """The arguments at a width, with what goes along in proportion times a factor, and at a depth."""
        found = {}
        if self.width in self.node:
            found[self.width] = width
            share = factor * width / self.node[self.width]
            found |= {name: max(1, round(self.node[name] * share)) for name in self.along}
        if depth is not None:
            share = depth / self.node[self.depths[0]]
            found |= {name: max(1, round(self.node[name] * share)) for name in self.depths}
        return found

    def can_be(self, changes: dict[str, int]) -> bool:
        """Whether these are the arguments, by dotted key, that solving changes: all of them and no others."""
        given = {key.removeprefix("encoder."): value for key, value in changes.items() if key.startswith("encoder.")}
        like = self.at(self.node.get(self.width, 1), depth=None if self.vary == "width" else self.node[self.depths[0]])
        if len(given) != len(changes) or set(given) != set(like) or not given:
            return False
        if not all(1 <= value <= 16 * LARGEST for value in given.values()):  # what goes along is larger than a width
            return False
        return self.vary != "depth" or all(given[key] == like[key] for key in like if key not in self.depths)


def _reaches(config: RunConfig, changes: dict[str, int], task: Task) -> bool:
    """Whether an encoder of these sizes, which a file says were solved, can be built and comes to the target."""
    budget, node = config.budget, dict(config.encoder)
    assert budget.target is not None
    node.update({key.removeprefix("encoder."): value for key, value in changes.items()})
    try:
        amount = measure_of(config, task)(node)
    except REFUSALS:
        return False
    return abs(amount - budget.target) <= tolerance_of(budget) * budget.target


def _solve(config: RunConfig, sizes: _Sizes, task: Task) -> dict[str, int]:
    """The arguments that come nearest to the target. Raises PairError where that is not near enough."""
    budget, node, measure = config.budget, config.encoder, measure_of(config, task)
    assert budget.match is not None
    assert budget.target is not None
    now = measure(node)  # raises what is wrong with the config itself
    tolerance = tolerance_of(budget)
    known: dict[tuple[int, ...], float | None] = {}

    def amount(changes: dict[str, int]) -> float | None:
        key = tuple(changes.values())
        if key not in known:
            try:
                known[key] = measure({**node, **changes})
            except REFUSALS:
                known[key] = None
        return known[key]

    def width_at(depth: int | None) -> tuple[Found | None, dict[str, int]]:
        fills = bool(sizes.along) and budget.match != "latency"  # noise can't be filled up
        found = search(
            lambda width, factor: amount(sizes.at(width, factor, depth)),
            start=node[sizes.width],
            target=budget.target or 0.0,
            tolerance=tolerance,
            step=1 / node[sizes.along[0]] if fills else None,
        )
        return found, sizes.at(found.width, found.factor, depth) if found else {}

    tried: list[tuple[float, dict[str, int], float]] = []  # (how far from the proportion, arguments, reached)
    if budget.vary == "width":
        found, changes = width_at(None)
        tried += [(0.0, changes, found.reached)] if found else []
    elif budget.vary == "depth":
        own = node.get(sizes.width, 1)
        found = search(
            lambda depth, _: amount(sizes.at(own, 1.0, depth)),
            start=node[sizes.depths[0]],
            target=budget.target,
            tolerance=tolerance,
            step=None,
        )
        tried += [(0.0, sizes.at(own, 1.0, found.width), found.reached)] if found else []
    else:
        base = node[sizes.depths[0]]
        guess = base * (budget.target / max(now, 1e-9)) ** (1 / 3)  # parameters go with depth x width squared
        for depth in sorted({max(1, int(guess) + i) for i in (-1, 0, 1, 2)}):
            found, changes = width_at(depth)
            if found:
                ratio = (found.width / depth) / (node[sizes.width] / base)
                tried.append((abs(float(np.log(ratio))), changes, found.reached))
    near = [one for one in tried if abs(one[2] - budget.target) <= tolerance * budget.target]
    if near:
        return {f"encoder.{name}": value for name, value in min(near, key=lambda one: one[0])[1].items()}
    raise _missed(config, tried, now, tolerance)


def _missed(
    config: RunConfig, tried: list[tuple[float, dict[str, int], float]], now: float, tolerance: float
) -> PairError:
    budget, name = config.budget, config.names.encoder
    assert budget.match is not None
    assert budget.target is not None
    what, wanted = WORDS[budget.match], f"{budget.target:g}"
    best = min(tried, key=lambda one: abs(one[2] - (budget.target or 0.0)), default=None)
    sizes = ", ".join(f"{key} {value}" for key, value in best[1].items()) if best else "as it is"
    reached = best[2] if best else now
    return PairError(
        f"budget.target: {wanted} {what} are out of reach of encoder {name} on {config.names.task} within "
        f"{100 * tolerance:g} %; the nearest is {reached:g} ({sizes})",
        f"can't be matched on {wanted} {what}: the nearest is {reached:g}",
    )


def _task(config: RunConfig, tasks: dict[str, Task] | None, withhold: bool) -> Task:
    withhold = withhold or config.tune is not None
    key = json.dumps(config.task, sort_keys=True) + (" without test" if withhold else "")
    if tasks is not None and key in tasks:
        return tasks[key]
    task = build_task(config)
    task.data.check()
    randomness.seed_all(randomness.derive(config.seed, "data"))
    task.setup(withhold=withhold)
    if tasks is not None:
        tasks[key] = task
    return task


def _hold(config: RunConfig) -> None:
    for key, value in (config.budget.matched or {}).items():
        if config.encoder.get(key.removeprefix("encoder.")) != value:
            raise ConfigError(
                f"budget.matched: {key} was solved as {value}, the config has "
                f"{config.encoder.get(key.removeprefix('encoder.'))}; set budget.matched=null to solve it again"
            )


# -- what was solved before --------------------------------------------------------------------------------------------
def _digest(config: RunConfig) -> str:
    """Of all that a solution depends on. A measured one depends on the machine, and stands when the code changes."""
    task = build_task(config)
    given = {key: value for key, value in identity.facts(config, task).items() if key in ("encoder", "task", "data")}
    match = config.budget.model_dump(include={"match", "target", "vary", "count", "tolerance"})
    if config.budget.match == "latency":
        threads = config.trainer.threads or torch.get_num_threads()
        place = provenance.machine_class(device_of(config), 1, threads)
    else:
        place = provenance.code().source_sha256
    return identity.digest({**given, "match": match, "place": place})
