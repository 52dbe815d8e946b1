"""Which records a board shows: all of a folder, or those of a plan (a study's, a sweep's), with what is missing."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seqbench.board import collect, identity
from seqbench.board.entries import Entry, Expected
from seqbench.board.unfit import unfit
from seqbench.errors import ConfigError
from seqbench.records.store import write_atomic

ROOT = Path(__file__).resolve().parents[2]
OWN = ("configs", "encoders", "tasks", "seqbench")  # what a plan follows from
CACHE = "plan.json"
SHOWN = 3  # settings that a notice writes out


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Which plan a board is of: a study's or a sweep's, with what was typed for `train.py -m` beside it."""

    study: str | None = None
    overrides: tuple[str, ...] = ()
    config_dir: str | None = None

    @property
    def anything(self) -> bool:
        """Whether there is a plan at all: without one, a board is of all records."""
        return self.study is not None or bool(self.overrides)

    @property
    def typed(self) -> list[str]:
        """As a command line has it."""
        return [*([f"study={self.study}"] if self.study else []), *self.overrides]

    @property
    def run(self) -> str:
        """The command that runs what is missing."""
        return shlex.join(["python", "scripts/train.py", *self._folder, "-m", *self.typed])

    def board(self, *more: str) -> str:
        """The command that makes the board with a few words more."""
        return shlex.join(["python", "scripts/leaderboard.py", *self._folder, *self.typed, *more])

    @property
    def _folder(self) -> list[str]:
        return ["--config-dir", self.config_dir] if self.config_dir else []


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A plan, as far as a board needs it."""

    title: str
    cells: list[Expected]
    left_out: dict[tuple[str, str], str]  # (encoder, task) -> why the pair can't be


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered:
    """What a board is made of."""

    entries: list[Entry]
    notices: list[str]
    plan: Planned | None
    left_out: dict[tuple[str, str], str]  # (encoder, task) -> why there is none
    others: str = ""  # records of the same study that its plan does not name: how many, and how to see them


def gather(results: Path, asked: Asked, *, out: Path, split: str = "test", index: bool = False) -> Gathered:
    """Records of a plan (of a study that has none any more, those that name it), or all.

    `split` and `index` are those of collect.read. Raises ConfigError for a study without plan and without records, and
    for a sweep that can't be planned.
    """
    read = functools.partial(collect.read, results, split=split, index=index)
    if not asked.anything:
        entries, problems = read()
        return Gathered(entries=entries, notices=problems, plan=None, left_out=unfit(entries))
    try:
        plan = planned(asked, out=out)
    except ConfigError as error:
        if asked.study is None or asked.overrides:
            raise
        entries, problems = read()
        mine = [entry for entry in entries if asked.study in entry.record.studies]
        if not mine:
            raise
        why = (
            f"There is no plan of the study ({str(error).splitlines()[0]}): shown are the records that name it. "
            "A study in a folder of your own is found with --config-dir FOLDER."
        )
        return Gathered(entries=mine, notices=[why, *problems], plan=None, left_out=unfit(mine))
    if asked.study is None:
        entries, problems = read([cell.id for cell in plan.cells])
        return Gathered(entries=entries, notices=problems, plan=plan, left_out=plan.left_out)
    every, problems = read()
    ids = {cell.id for cell in plan.cells}
    entries = [entry for entry in every if entry.record.id in ids]
    strangers = [entry for entry in every if entry.record.id not in ids and asked.study in entry.record.studies]
    others = _told(strangers, plan, asked)
    notices = [*([others] if others else []), *problems]
    return Gathered(entries=entries, notices=notices, plan=plan, left_out=plan.left_out, others=others)


def _told(strangers: Sequence[Entry], plan: Planned, asked: Asked) -> str:
    """`6 records of this study were made with other settings: budget.steps=5 (6). ...`, or nothing."""
    if not strangers:
        return ""
    by_pair: dict[tuple[str, str], list[Expected]] = {}
    for cell in plan.cells:
        by_pair.setdefault((cell.encoder, cell.task), []).append(cell)
    kinds = Counter(_difference(entry, by_pair) for entry in strangers)
    found = ", ".join(f"{' '.join(words)} ({count})" for words, count in kinds.most_common(SHOWN))
    more = f" and {len(kinds) - SHOWN} more" if len(kinds) > SHOWN else ""
    words = kinds.most_common(1)[0][0]
    hint = ""
    if all("=" in word for word in words):
        hint = f"; shown by {asked.board(*words)}"
    some = "1 record" if len(strangers) == 1 else f"{len(strangers)} records"
    return f"{some} of this study, not shown here, made with other settings: {found}{more}{hint}"


def _difference(entry: Entry, by_pair: dict[tuple[str, str], list[Expected]]) -> tuple[str, ...]:
    """The settings in which a record differs from the cell of the plan that is most like it, as overrides."""
    record = entry.record
    pair = (record.encoder.name, record.task.name)
    if pair not in by_pair:
        return (f"encoder={pair[0]}", f"task={pair[1]}")
    mine = identity.whole(record.config)
    seeds = {cell.seed for cell in by_pair[pair]}
    best: list[str] | None = None
    for cell in by_pair[pair]:
        theirs = identity.whole(cell.config)
        keys = [key for key in identity.varying([mine, theirs]) if key in mine]
        if best is None or len(keys) < len(best):
            best = keys
    words = [f"{key}={identity.typed(mine[key])}" for key in best or []]
    if record.seed not in seeds:
        words.append(f"seed={record.seed}")
    if not words:
        return ("other code or data",)
    return tuple(words) if len(words) <= SHOWN else (*words[:SHOWN], "...")


def planned(asked: Asked, *, out: Path) -> Planned:
    """The plan: from `out`/plan.json if it was made there by the same code and configs, else made anew.

    Planning tries every pair of encoder and task, with torch, which takes seconds. Plans that lean on files or
    packages of the user's own, which can change without ours, are not kept. Raises ConfigError.
    """
    key = _key(asked)
    kept = _load(out / CACHE, key)
    if kept is not None:
        return kept
    made = _make(asked)
    if not any(_is_own(cell.config) for cell in made.cells):
        content = {
            "key": key,
            "title": made.title,
            "cells": [asdict(cell) for cell in made.cells],
            "left_out": [[*pair, reason] for pair, reason in made.left_out.items()],
        }
        with contextlib.suppress(OSError):  # a folder that can't be written to is told when the board is
            out.mkdir(parents=True, exist_ok=True)
            write_atomic(out / CACHE, json.dumps(content, default=str).encode())
    return made


def _make(asked: Asked) -> Planned:
    from seqbench.composition.complaints import complaint
    from seqbench.composition.compose import config_loader
    from seqbench.records.labels import column_label, row_label
    from seqbench.studies.study import plan_sweep

    loader = config_loader(asked.config_dir)
    try:
        made = plan_sweep(asked.typed, loader=loader)
        cells = [
            Expected(
                id=cell.id,
                task=cell.names.task,
                column=column_label(cell.config),
                encoder=cell.names.encoder,
                label=row_label(cell.config),
                seed=cell.config.seed,
                config=cell.config.resolved(),
            )
            for cell in made.cells
        ]
    except Exception as error:
        text = complaint(error, asked.typed, loader)
        if text is None:
            raise
        raise ConfigError(text) from None
    left_out = {(out.encoder, out.task): out.reason for out in made.left_out}
    return Planned(title=made.title or " ".join(asked.overrides), cells=cells, left_out=left_out)


def _load(path: Path, key: str) -> Planned | None:
    try:
        content = json.loads(path.read_bytes())
        if content["key"] != key:
            return None
        return Planned(
            title=content["title"],
            cells=[Expected(**cell) for cell in content["cells"]],
            left_out={(encoder, task): reason for encoder, task, reason in content["left_out"]},
        )
    except (OSError, ValueError, KeyError, TypeError):  # absent or not ours: it is only a cache
        return None


def _key(asked: Asked) -> str:
    """Checksum of what is asked for, our code and configs, and the configs of the user's folder."""
    total = hashlib.sha256(json.dumps([asked.typed, asked.config_dir]).encode())
    places = [ROOT / folder for folder in OWN] + ([Path(asked.config_dir)] if asked.config_dir else [])
    for place in places:
        for path in sorted(p for p in place.rglob("*") if p.suffix in (".py", ".yaml", ".csv")):
            name = path.relative_to(place.parent).as_posix()
            total.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _is_own(config: dict[str, Any]) -> bool:
    """Whether a config names a package that isn't ours, or a file or folder that is there."""
    if not set(config.get("allowed", [])) <= {"encoders", "tasks", "torch.optim"}:
        return True
    return any(text and Path(text).exists() for text in _texts([config.get("encoder"), config.get("task")]))


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _texts(child)
