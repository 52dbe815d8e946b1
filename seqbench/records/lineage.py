"""Which source files a run stands on, and what of them, of data and of packages has changed since."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqbench.record import DataFile, Record
from seqbench.records.memo import Memo

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("encoders", "tasks", "seqbench")
DIGITS = 16  # of a file's sha256 that a record keeps: to tell files apart, not to withstand forgery


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """What is no longer as a record says. Names of files are relative to the project."""

    task: list[str] = field(default_factory=list)  # files under tasks/ that the run's task and data stand on
    encoder: list[str] = field(default_factory=list)  # the same under encoders/, of its encoder
    harness: list[str] = field(default_factory=list)  # under seqbench/, what a run goes through: no boards, no commands
    other: list[str] = field(default_factory=list)  # files that the run does not stand on
    known: bool = True  # False: the record has no checksums of files; then only source_sha256 could tell
    data: list[str] = field(default_factory=list)  # sentences: pinned files whose card has another sha256 by now
    packages: dict[str, tuple[str, str]] = field(default_factory=dict)  # name -> (recorded, now)

    @property
    def stale(self) -> bool:
        """Whether the record's task or data is another by now: its scores are not comparable with new ones."""
        return bool(self.task or self.data)


def files(root: Path = ROOT) -> dict[str, str]:
    """The first digits of the sha256 of every .py file of the project's packages, by relative path."""
    found = {}
    for package in SOURCES:
        for path in sorted((root / package).rglob("*.py")):
            found[path.relative_to(root).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()[:DIGITS]
    return found


def changes(record: Record, *, now: Mapping[str, str] | None = None) -> Changes:
    """What has changed since the record was made; imports and reads nothing that the record names.

    Data of the user's own can't be told without reading it, which verify does.
    """
    found = _changes if now is None else _changed_to(now)
    config = record.config
    return found(record.code.files, config.get("task"), config.get("encoder"), record.data, record.environment.packages)


def _changed_to(now: Mapping[str, str]) -> Callable[..., Changes]:
    def found(then: Mapping[str, str], task: Any, encoder: Any, data: list[DataFile], then_packages: Any) -> Changes:
        moved = _moved(then, now)
        kinds = _kinds(moved, _stood_on("tasks.base", task), _stood_on("encoders.base", encoder)) if moved else {}
        return Changes(**kinds, known=bool(then), data=_cards(data), packages=_versions(then_packages))

    return found


def _sorted_out(moved: list[str], used_task: frozenset[str], used_encoder: frozenset[str]) -> dict[str, list[str]]:
    """Files that have changed, by what they are to a run whose task and encoder stand on some of them."""
    used_harness = _uses(frozenset({"seqbench.run"}), ROOT)
    kinds: dict[str, list[str]] = {"task": [], "encoder": [], "harness": [], "other": []}
    for name in moved:
        if name.startswith("seqbench/") and name in used_harness:
            kinds["harness"].append(name)
        elif name.startswith("tasks/") and name in used_task:
            kinds["task"].append(name)
        elif name.startswith("encoders/") and (name in used_encoder or name in used_task):
            kinds["encoder"].append(name)
        else:
            kinds["other"].append(name)
    return kinds


def _other_versions(then: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    from seqbench.records.provenance import packages

    now = packages()
    return {
        name: (version, now.get(name, "not installed"))
        for name, version in sorted(then.items())
        if now.get(name, "not installed") != version
    }


def _differing(then: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    return sorted(name for name in {*then, *here} if then.get(name) != here.get(name)) if then else []


def targets(node: Any) -> set[str]:
    """Every `_target_` in a node of a config."""
    if isinstance(node, list):
        return {name for item in node for name in targets(item)}
    if not isinstance(node, dict):
        return set()
    own = {node["_target_"]} if isinstance(node.get("_target_"), str) else set()
    return own | {name for item in node.values() for name in targets(item)}


def uses(names: set[str], root: Path = ROOT) -> set[str]:
    """The project's files that these dotted names stand on: their modules and what those import, at any depth.

    A file that is gone is not among them, so a renamed module counts as changed where it is imported.
    """
    return set(_uses(frozenset(names), root))


@functools.lru_cache(maxsize=4096)
def _uses(names: frozenset[str], root: Path) -> frozenset[str]:
    waiting = {file for name in names if (file := _file_of(name, root)) is not None}
    found: set[str] = set()
    while waiting:
        file = waiting.pop()
        found.add(file)
        waiting |= _imported(file, root) - found
    return frozenset(found)


@functools.cache
def _files_now() -> dict[str, str]:
    return files()


# A foreign class stands on the contract, too.
_stood_on: Memo[frozenset[str]] = Memo(lambda contract, node: _uses(frozenset({contract, *targets(node)}), ROOT))
_moved: Memo[list[str]] = Memo(_differing)
_kinds: Memo[dict[str, list[str]]] = Memo(_sorted_out)
_versions: Memo[dict[str, tuple[str, str]]] = Memo(_other_versions)
_cards: Memo[list[str]] = Memo(lambda data: _cards_changed(data))
_changes: Memo[Changes] = Memo(lambda *parts: _changed_to(_files_now())(*parts))


@functools.cache
def _imported(file: str, root: Path) -> frozenset[str]:
    """Files of ours that a file imports."""
    names = set(_names(ast.parse((root / file).read_text(encoding="utf-8"))))
    return frozenset(found for name in names if (found := _file_of(name, root)) is not None)


def _names(tree: ast.AST) -> Iterator[str]:
    waiting: list[Any] = [tree]
    while waiting:  # statements alone, which is all that an import can stand in
        node = waiting.pop()
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            inside = getattr(node, name, ())
            waiting += inside if isinstance(inside, list) else ()  # a lambda's body is an expression
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file_of(name: str, root: Path) -> str | None:
    """The file of the module that a dotted name is, or is in; None outside the project's packages."""
    parts = name.split(".")
    if parts[0] not in SOURCES or not all(part.isidentifier() for part in parts):
        return None
    for size in range(len(parts), 1, -1):
        path = Path(*parts[:size])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if (root / file).is_file():
                return file.as_posix()
    return None


def _cards_changed(data: list[DataFile]) -> list[str]:
    cards = _pinned()
    told = []
    for file in data:
        known = cards.get(file.url)
        if known is not None and file.sha256 not in known:
            told.append(f"data file {file.name}: sha256 {file.sha256[:12]} then, {min(known)[:12]} now")
    return told


@functools.cache
def _pinned() -> dict[str, set[str]]:
    """sha256 of every pinned file or listing, by address."""
    from tasks.data import pinned

    found: dict[str, set[str]] = {}
    for name in pinned.card_names():
        for fact in pinned.identity(name):
            found.setdefault(fact.url, set()).add(fact.sha256)
    return found
