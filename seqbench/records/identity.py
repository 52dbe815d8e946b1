"""The id of a run: a hash of what determines its result, and of nothing else."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from seqbench.build import locate, paths_of, task_of
from seqbench.composition.schema import Node
from seqbench.config import RunConfig
from seqbench.pretraining import before
from seqbench.records.decisive import BUDGET_IF_SET, BUDGET_WITHOUT, TRAINER, TRAINER_IF_SET
from seqbench.records.lineage import targets
from tasks.base import Task
from tasks.data.base import DataSet, Identified

IDS = 3  # version of this recipe; in the hash
DIGITS = 16  # of the hash, in an id

OURS = ("encoders", "tasks", "torch")  # packages whose versions stand in the record; others are hashed by their source

# Not hashed: accelerator, devices, nodes, strategy, workers, threads (where it runs, not what: the record names the
# machine), progress, logger, label, task_label, results, rerun, allowed, names, study, overrides.


def run_id(config: RunConfig, task: Task) -> str:
    """16 hex digits. Needs the task's classes and facts, not its data; a user's own files are hashed.

    Raises DataError for a file that is missing.
    """
    return digest(facts(config, task))


def facts(
    config: RunConfig,
    task: Task,
    *,
    of_node: Callable[[Any, tuple[str, ...]], Any] | None = None,
    of_data: Callable[[Task], list[str]] | None = None,
) -> dict[str, Any]:
    """What is hashed, as plain values. `of_node` and `of_data`: without_paths and data_identity, remembered by a plan.

    What is tuned counts as its search space, not as the value that the config has or the one that was found.
    """
    of_node, of_data = of_node or without_paths, of_data or data_identity
    found = {
        "ids": IDS,
        "encoder": of_node(config.encoder, tuple(config.allowed)),
        "task": of_node(config.task, tuple(config.allowed)),
        "task_version": task.version,
        "data_version": task.data.version,
        "data": of_data(task),
        "protocol": config.protocol.model_dump(),
        "budget": {
            key: value
            for key, value in config.budget.model_dump(exclude=set(BUDGET_WITHOUT)).items()
            if value is not None or key not in BUDGET_IF_SET
        },
        "optimizer": config.optimizer,
        "schedule": config.schedule.model_dump(),
        "trainer": config.trainer.model_dump(include=set(TRAINER))
        | {key: value for key in TRAINER_IF_SET if (value := getattr(config.trainer, key))}
        | _accumulation(config),
        "seed": config.seed,
        "deterministic": config.deterministic,
    }
    if config.pretrain is not None:
        found["pretrain"] = digest(_pretraining(config))
    if config.tune is not None:
        found["tune"] = config.tune.model_dump(exclude={"chosen"})
        for key in config.tune.space:
            _put(found, key.split("."), "tuned")
    return found


def _pretraining(config: RunConfig) -> dict[str, Any]:
    """The facts of the run before this one; of its seed and its encoder what is not this run's."""
    first = before(config)
    assert config.pretrain is not None
    assert first is not None
    found = facts(first, task_of(first.task, first.allowed))
    if config.pretrain.seed is None:
        del found["seed"]
    if config.pretrain.teacher is not None:
        found["teaches"] = True
    for key in config.tune.space if config.tune is not None else ():
        section, _, rest = key.partition(".")
        if section == "encoder" and rest.split(".")[0] not in config.pretrain.encoder:
            _put(found, key.split("."), "tuned")
    return found


def _put(found: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set what stands at a path, mappings on the way copied."""
    *sections, last = path
    for section in sections:
        found[section] = dict(found[section]) if isinstance(found.get(section), dict) else {}
        found = found[section]
    found[last] = value


def _accumulation(config: RunConfig) -> dict[str, Any]:
    """How a step's parts are made and weighed, if there are several: cut from one batch, a mean over all its items."""
    return {"accumulate_by": "items of a batch"} if config.trainer.accumulate > 1 else {}


def digest(value: Any) -> str:
    """First hex digits of the sha256 of canonical JSON: sorted keys, no spaces."""
    return _digest(_canonical(value))


def digests(facts: Mapping[str, Any], seeds: Sequence[int]) -> list[str]:
    """The digest of the facts with each of these seeds in place of theirs; written as JSON once."""
    before, *after = _canonical({**facts, "seed": SEED}).split(f'"{SEED}"')
    if len(after) != 1:  # somebody's text holds the mark
        return [digest({**facts, "seed": seed}) for seed in seeds]
    start, found = hashlib.sha256(before.encode()), []
    for seed in seeds:  # hashed once up to the seed
        whole = start.copy()
        whole.update(f"{seed}{after[0]}".encode())
        found.append(whole.hexdigest()[:DIGITS])
    return found


SEED = "\ue000seed\ue000"  # stands for a seed; of a plane that no text uses


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def data_identity(task: Task) -> list[str]:
    """sha256 of what the task's data comes from, in the data set's order; then of its tokenisers' own.

    Names and addresses don't count.
    """
    others = [value for value in vars(task).values() if isinstance(value, Identified) and value is not task.data]
    parts: list[Identified] = [task.data, *others]
    return [fact.sha256 for part in parts for fact in part.identity()]


def without_paths(node: Any, allowed: tuple[str, ...]) -> Any:
    """A node in which no place on a disk counts, but what lies there.

    A target names the arguments that are paths in an attribute `paths`. Those of a data set are dropped, since
    `identity()` hashes what they lead to; those of anything else are replaced by the content's hash: of all files, or,
    where `paths` maps an argument to patterns (a checkpoint's), of the files that these name. A value that leads to
    nothing on this disk is a name on the hub and stays; its target demands a commit beside it.
    A target of the user's own counts with its package's source: an edited class is another encoder.
    """
    if isinstance(node, list):
        return [without_paths(item, allowed) for item in node]
    if not isinstance(node, dict):
        return node
    paths: Collection[str] = ()
    is_data = False
    if "_target_" in node:
        target = locate(node["_target_"], "_target_", allowed)
        paths = paths_of(target)
        is_data = isinstance(target, type) and issubclass(target, DataSet)
    kept: Node = {}
    if "_target_" in node and (source := source_of(target)) is not None:
        kept["_source_"] = source
    for key, value in node.items():
        if key not in paths or value is None:
            kept[key] = without_paths(value, allowed)
        elif not is_data:
            patterns = paths[key] if isinstance(paths, Mapping) else ("**/*",)
            there = isinstance(value, str) and Path(value).expanduser().exists()
            kept[key] = content(value, patterns) if there else value
    return kept


def source_of(target: Any) -> str | None:
    """`sha256:...` of the .py files of the target's top-level package; None for ours, whose versions tell."""
    top = str(target.__module__).partition(".")[0]
    if top in OURS:
        return None
    module = sys.modules.get(top)
    file = getattr(module, "__file__", None)
    places = [Path(file)] if file else [Path(place) for place in getattr(module, "__path__", [])]
    if not places:
        return None
    place = places[0].parent if places[0].name == "__init__.py" else places[0]
    return content(str(place), ("**/*.py",))


def own_sources(config: RunConfig) -> dict[str, str]:
    """Hash of the source of each package of the user's own that the config names, as it counts in the id."""
    found = {}
    for name in targets([config.encoder, config.task, config.optimizer]):
        source = source_of(locate(name, "_target_", config.allowed))
        if source is not None:
            found[name.partition(".")[0]] = source.removeprefix("sha256:")
    return dict(sorted(found.items()))


def content(path: str, patterns: Sequence[str] = ("**/*",)) -> str:
    """`sha256:...` of a file, or of a folder's files, with their names, that one of the patterns fits."""
    place = Path(path).expanduser()
    found = {file for pattern in patterns for file in place.glob(pattern)}
    files = [place] if place.is_file() else sorted(f for f in found if f.is_file())
    listing = "\n".join(
        f"{'' if f == place else f.relative_to(place).as_posix()} {_hash(f, f.stat().st_size, f.stat().st_mtime_ns)}"
        for f in files
    )
    return "sha256:" + hashlib.sha256(listing.encode()).hexdigest()


@functools.lru_cache(maxsize=4096)
def _hash(file: Path, size: int, changed: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
