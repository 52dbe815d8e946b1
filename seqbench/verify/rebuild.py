"""From a record to what runs it again: its config checked anew, and what can be told before training is paid for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import open_dict

from seqbench import randomness
from seqbench.build import build_task, check_pair
from seqbench.composition.compose import compose, own_loader
from seqbench.config import Names, RunConfig, check_config, resolve
from seqbench.errors import ConfigError
from seqbench.record import Record
from seqbench.records import provenance
from seqbench.records.identity import IDS, own_sources, run_id
from seqbench.tuning import without_floors
from seqbench.verify import moved
from tasks.base import Task

SECTIONS = ("protocol", "budget", "schedule", "trainer")  # mappings whose keys may have grown since a record was made


class Impossible(Exception):
    """A record that can't be run again here; the text says why, `details` what differs."""

    def __init__(self, reason: str, details: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.details = list(details)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rebuilt:
    """What a record says, ready to run."""

    config: RunConfig
    task: Task
    notes: list[str]  # what had to be taken otherwise than recorded


def rebuild(record: Record, *, results: Path, allowed: Sequence[str], data: Sequence[Path] = ()) -> Rebuilt:
    """Config and task, checked as if typed by a user who allows these packages; what the record allows doesn't count.

    `data`: files and folders in which those of own data are looked for by their checksums. Instantiates the task,
    which reads nothing. Raises Impossible.
    """
    tree, notes = _tree(record, results, list(allowed))
    names = Names(
        encoder=record.encoder.name,
        task=record.task.name,
        protocol=record.protocol,
        budget="recorded",
        optimizer="recorded",
        schedule="recorded",
        trainer="recorded",
        logger="none",
    )
    try:
        config = check_config(tree, names, [], allowed=list(allowed), found=True)
        config = moved.found(config, record.data, data)
        task = build_task(config)
        check_pair(config, task)
        chosen = _chosen(config)
    except ConfigError as error:
        raise Impossible(f"its config can't be built here: {_first(error)}") from None
    except LookupError as error:
        raise Impossible(str(error)) from None
    if config.seed != record.seed or str(config.encoder["_target_"]) != record.encoder.target:
        raise Impossible("its seed or encoder is not the one in its config: the record was edited")
    trials = record.tuning.trials if record.tuning is not None else []
    best = record.tuning.chosen if record.tuning is not None else None
    if chosen is not None and chosen not in [trial.settings for trial in trials if trial.number == best]:
        raise Impossible("its config is to be tuned, and no trial in it found what was run: the record was edited")
    return Rebuilt(config=config, task=task, notes=notes)


def _chosen(config: RunConfig) -> dict[str, Any] | None:
    """What its tuning has chosen, {} where that is nothing; None for a run that is not tuned."""
    tune = without_floors(config).tune
    return None if tune is None else tune.chosen or {}


def check_data(record: Record, rebuilt: Rebuilt) -> list[str]:
    """Hold files and splits against the record's checksums, before anything is trained.

    Returns what differs but may still give the same scores. Reads the files that the config names and no others;
    pinned ones that are missing are downloaded from the address in our card. Raises Impossible.
    """
    task = rebuilt.task
    try:
        task.data.check()
        now = provenance.data_files(task.data)
        if [file.sha256 for file in now] == [file.sha256 for file in record.data]:
            now = record.data  # own files may have other names by now
        here = {file.name: file.sha256 for file in now}
        recorded = {file.name: file.sha256 for file in record.data}
        differ = [
            f"data file {name}: {_sha(recorded.get(name))} recorded, {_sha(here.get(name))} here"
            for name in dict.fromkeys([*recorded, *here])
            if recorded.get(name) != here.get(name)
        ]
        if differ:
            raise Impossible(differ[0] + _more(differ), differ)
        randomness.seed_all(randomness.derive(rebuilt.config.seed, "data"))
        task.setup()
    except ConfigError as error:
        raise Impossible(f"its data can't be had: {_first(error)}") from None
    except ValueError as error:  # DataError among them
        raise Impossible(f"its data can't be had: {_first(error)}") from None
    return _check_splits(record, task)


def _check_splits(record: Record, task: Task) -> list[str]:
    now = provenance.split_facts(task)
    others, counts = [], []
    for split in dict.fromkeys([*record.splits, *now]):
        then, here = record.splits.get(split), now.get(split)
        if then is None or here is None:
            others.append(f"split {split}: {'not recorded' if then is None else 'not there any more'}")
        elif then.sha256 != here.sha256:
            others.append(
                f"split {split}: examples {_sha(then.sha256)} recorded, {_sha(here.sha256)} here"
                f" ({then.examples:,} and {here.examples:,} examples)"
            )
        elif then != here:
            fields = [
                name for name in type(then).model_fields if getattr(then, name) not in (None, getattr(here, name))
            ]
            counts += [f"split {split}: {name} {getattr(then, name)} -> {getattr(here, name)}" for name in fields]
    if others:
        raise Impossible(others[0] + _more(others), others)
    return counts


def check_id(record: Record, rebuilt: Rebuilt) -> list[str]:
    """Whether config and data still make the record's id. Returns what may explain that they don't; raises Impossible
    where nothing does but an edited record."""
    try:
        now = run_id(rebuilt.config, rebuilt.task)
    except ValueError as error:
        raise Impossible(f"its id can't be computed: {_first(error)}") from None
    if now == record.id:
        return []
    told = []
    task = rebuilt.task
    for what, then, here in (
        ("task version", record.task.version, task.version),
        ("data version", record.task.data_version, task.data.version),
        ("recipe of ids", record.ids, IDS),
    ):
        if then != here:
            told.append(f"{what}: {then or 'not recorded'} -> {here}")
    own = own_sources(rebuilt.config)
    told += [f"package {name}: its source has changed" for name in own if own[name] != record.code.own.get(name)]
    if not told and not rebuilt.notes:
        raise Impossible(f"its config makes the id {now}, not {record.id}: the record was edited")
    return [*told, f"id: {record.id} -> {now}"]


def _tree(record: Record, results: Path, allowed: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The record's config as plain values, with what is ours to say, and keys that have come since at their default."""
    tree: dict[str, Any] = dict(record.config)
    notes = []
    composed = compose(own_loader(), [])
    with open_dict(composed):
        composed.pop("hydra")
    defaults = resolve(composed)
    for key, value in defaults.items():
        if key not in tree:
            tree[key] = value
            notes.append(f"{key}: not in the record, {value} taken")
        elif key in SECTIONS and isinstance(tree[key], dict):
            lacking = {name: item for name, item in value.items() if name not in tree[key]}
            tree[key] = {**tree[key], **lacking}
            notes += [f"{key}.{name}: not in the record, {item} taken" for name, item in lacking.items()]
    notes = [
        note for note in notes if not note.startswith(("results:", "allowed:", "rerun:", "jobs:", "logger:", "mirror:"))
    ]
    cores = os.cpu_count() or 1
    trainer = tree.get("trainer")
    if isinstance(trainer, dict):
        workers, accelerator = trainer.get("workers"), trainer.get("accelerator")
        trainer = {**trainer, "threads": max(1, min(record.environment.threads, cores)), "progress": True}
        trainer["time_limit"] = None  # that of the machine which made it; a slower one is no liar
        if isinstance(workers, int):
            trainer["workers"] = min(workers, cores)
        if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
            trainer["accelerator"] = "auto"
            notes.append(f"trainer.accelerator: {accelerator} is not here, auto taken")
        wanted, here = record.environment.devices, devices_here(record.environment.device)
        trainer |= {"devices": wanted if wanted <= here else 1, "nodes": 1}
        if wanted > here:
            notes.append(f"devices: {wanted} shared the training, {here} here; one taken")
    tree |= {"trainer": trainer, "results": str(results), "allowed": allowed, "logger": {}, "rerun": "never", "jobs": 1}
    tree["mirror"] = None
    return tree, notes


def devices_here(kind: str) -> int:
    """How many ranks of a run this machine has devices for; of a CPU, cores. One at least."""
    return max(1, torch.cuda.device_count() if kind == "cuda" else 1 if kind == "mps" else os.cpu_count() or 1)


def _first(error: Exception) -> str:
    """All of a message in one line."""
    return " ".join(str(error).split())


def _sha(value: str | None) -> str:
    return f"sha256 {value[:12]}" if value else "missing"


def _more(lines: Sequence[str]) -> str:
    return f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
