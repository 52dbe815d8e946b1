"""Which runs share a row and which a column."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from seqbench.board import identity
from seqbench.board.entries import Entry, Expected
from seqbench.board.identity import Flat
from seqbench.board.model import Column, Row, Run
from seqbench.board.text import Scale
from seqbench.record import DataFile, SplitFacts, TaskFacts
from seqbench.records.labels import is_own, of_a_file
from seqbench.records.memo import Memo


@dataclass(slots=True)
class Item:
    """A record, or a cell of the plan that has none."""

    label: str  # of the row
    encoder: str
    task: str
    task_label: str  # of the column
    seed: int
    config: dict[str, Any]
    entry: Entry | None = None
    expected: Expected | None = None
    row: str = ""
    column: str = ""
    run: Run | None = None  # of the entry, once row and column are known


Groups = dict[tuple[str, str], tuple[Flat, list[Item]]]  # columns of one name: by task and by data
Bases = dict[str, Counter[str]]  # how many finished runs each data has, by task


def items_of(entries: Sequence[Entry], expected: Sequence[Expected]) -> list[Item]:
    """Every record, then every cell of the plan that has none.

    A record that the plan names has the plan's names: those that it was made under may be another study's.
    """
    there = {entry.record.id for entry in entries}
    planned = {cell.id: cell for cell in expected}
    items = []
    for entry in entries:
        record, cell = entry.record, planned.get(entry.record.id)
        items.append(
            Item(
                label=cell.label if cell else record.encoder.label,
                encoder=cell.encoder if cell else record.encoder.name,
                task=cell.task if cell else record.task.name,
                task_label=cell.column if cell else record.task.label or record.task.name,
                seed=record.seed,
                config=record.config,
                entry=entry,
            )
        )
    items += [
        Item(
            label=cell.label,
            encoder=cell.encoder,
            task=cell.task,
            task_label=cell.column,
            seed=cell.seed,
            config=cell.config,
            expected=cell,
        )
        for cell in expected
        if cell.id not in there
    ]
    return items


def columns_of(items: Sequence[Item], split: str) -> list[Column]:
    """One per task, version and set of examples; names with what differs where one task has several.

    A run without a finished one's data (failed, not run) goes where its task's finished ones are; one that failed on a
    user's own files, which its record has, where those are that read the same bytes, under whatever name.
    """
    by_label: dict[str, list[Item]] = {}
    for item in items:
        by_label.setdefault(item.task_label, []).append(item)
    found: dict[str, Groups] = {}
    flatten, frozen, facts_of = Memo(identity.flatten), Memo(identity.frozen), Memo(_data_facts)
    known: dict[str, Flat] = {}  # the facts of finished runs
    read: dict[tuple[str, str, str], Counter[str]] = {}  # how many of them, by task and own bytes
    sorted_out: list[tuple[str, list[tuple[Item, Flat, str, Flat | None]], Bases]] = []
    nothing: dict[str, Any] = {}
    for label, members in sorted(by_label.items()):
        places = _places(members)
        without = Memo(functools.partial(_without, places=places))
        flats = [without(flatten(item.config.get("task", nothing))) for item in members]
        flats = _without_seeds(flats, members)
        bases = [frozen(flat) for flat in flats]
        facts = [_facts_of(item, split, facts_of) for item in members]
        common: Bases = {}
        for item, base, fact in zip(members, bases, facts, strict=True):
            if fact is not None:
                known[key := frozen(fact)] = fact
                common.setdefault(base, Counter())[key] += 1
                if "files" in fact:
                    read.setdefault((item.task, base, fact["files"]), Counter())[key] += 1
        sorted_out.append((label, list(zip(members, flats, bases, facts, strict=True)), common))
    for label, rows, common in sorted_out:
        keyed = found.setdefault(label, {})
        for item, flat, base, fact in rows:
            if fact is None and item.entry and (own := _files(item.entry.record.data)):
                same = read.get((item.task, base, own), Counter())
                fact = {"files": own}
                key = same.most_common(1)[0][0] if same else frozen(fact)
            else:
                key = frozen(fact) if fact else common[base].most_common(1)[0][0] if base in common else ""
            keyed.setdefault((base, key), ({**flat, **known.get(key, fact or {})}, []))[1].append(item)
    notices = _join_renamed(found)
    columns = []
    for label, keyed in found.items():
        groups = sorted(keyed.values(), key=lambda group: identity.frozen(group[0]))
        for (_, group), words in zip(groups, identity.distinctions([flat for flat, _ in groups]), strict=True):
            column = _named_column(label, words, group, notices.get(id(group), ()))
            for item in group:
                item.column = column.id
            columns.append(column)
    return columns


def _join_renamed(found: Mapping[str, Groups]) -> dict[int, tuple[str, ...]]:
    """Put runs on the same bytes of own data under one name, the newest run's, where their files' names alone differ.

    A sentence of it for each group (by its list's identity) that has some of another name.
    """
    same: dict[tuple[str, tuple[str, str]], list[str]] = {}
    for label, keyed in found.items():
        for key, (_, group) in keyed.items():
            if _has_the_files_name(label, group):
                same.setdefault((group[0].task, key), []).append(label)
    told: dict[int, tuple[str, ...]] = {}
    for (_, key), labels in same.items():
        if len(labels) < 2:
            continue
        groups = {label: found[label][key][1] for label in labels}
        name = max(labels, key=lambda label: max(i.entry.record.started for i in groups[label] if i.entry))
        others = [label for label in labels if label != name]
        for label in others:
            groups[name].extend(found[label].pop(key)[1])
        told[id(groups[name])] = (f"{name}: the same data, by its checksums, was also run as {', '.join(others)}",)
    return told


def _has_the_files_name(label: str, group: Sequence[Item]) -> bool:
    """Whether a column was named by SeqBench, of the file that it reads, and not by `task_label`."""
    if not label.startswith(f"{group[0].task}: "):
        return False
    records = [item.entry.record for item in group if item.entry and any(map(is_own, item.entry.record.data))]
    return bool(records) and all(of_a_file(label, group[0].task, record.config, record.data) for record in records)


def _facts_of(item: Item, split: str, of: Memo[Flat]) -> Flat | None:
    if item.entry is None or split not in item.entry.record.splits:
        return None
    record = item.entry.record
    return of(record.task, record.splits[split], record.data)


def _data_facts(task: TaskFacts, facts: SplitFacts, data: Sequence[DataFile]) -> Flat:
    """What the scores are of; of a user's own files all bytes: test examples don't tell what was trained on."""
    found: Flat = {"version": task.version, "data_version": task.data_version, "examples": facts.sha256}
    own = _files(data)
    return {**found, "files": own} if own else found


def _files(data: Sequence[DataFile]) -> str:
    """One checksum of all of a user's own files, in their order; empty where there are none."""
    own = [fact.sha256 for fact in data if is_own(fact)]
    return hashlib.sha256(" ".join(own).encode()).hexdigest() if own else ""


def _places(members: Sequence[Item]) -> set[str]:
    """Names of the files that the records were made of, as far as they are files of the user's own."""
    lists = {id(item.entry.record.data): item.entry.record.data for item in members if item.entry}
    data = [fact for facts in lists.values() for fact in facts]
    return {fact.name for fact in data if is_own(fact)}


def _without(flat: Flat, places: set[str]) -> Flat:
    """Without what says where such a file lies: what it holds is known by its checksum."""
    if not places:
        return flat
    return {key: v for key, v in flat.items() if not (isinstance(v, str) and PurePath(v).name in places)}


def _named_column(label: str, words: str, group: Sequence[Item], notices: tuple[str, ...]) -> Column:
    facts = next((item.entry.record.task for item in group if item.entry), None)
    return Column(
        id=f"{label} {words}".strip(),
        label=f"{label} ({words})" if words else label,
        task=group[0].task,
        kind=facts.kind if facts else "",
        modality=facts.modality if facts else "",
        metric="",
        best="max",
        scale=Scale(unit="", factor=1.0, digits=3),
        examples=None,
        machines=(),
        notices=notices,
    )


def rows_of(items: Sequence[Item]) -> list[Row]:
    """One per label; several where one task has runs of it that differ in more than the seed.

    Runs of a user's own encoder from before it was edited are a row of their own: another source, another encoder.
    """
    by_label: dict[str, list[Item]] = {}
    for item in items:
        by_label.setdefault(item.label, []).append(item)
    known = {item.encoder: item.entry.record.encoder.family for item in items if item.entry}
    rows = []
    setup, frozen = identity.setups(), Memo(identity.frozen)
    for label, members in sorted(by_label.items()):
        named: dict[tuple[int, str, tuple[str, ...]], Flat] = {}
        flats = []
        newest = max((item.entry.record for item in members if item.entry), key=lambda r: r.started, default=None)
        for item in members:
            flat = setup(item.config)
            record = item.entry.record if item.entry else newest  # a cell that has not run is of the code of today
            own = {f"source of {package}": sha256 for package, sha256 in record.code.own.items()} if record else {}
            key = id(flat), item.encoder, tuple(own.values())
            flats.append(named.setdefault(key, {**flat, "encoder": item.encoder, **own}))
        flats = _without_seeds(flats, members)
        # What differs between tasks alone (a budget per task) makes no second row; what differs within one does.
        keys: dict[str, None] = {}
        by_column: dict[str, list[Flat]] = {}
        for flat, item in zip(flats, members, strict=True):
            by_column.setdefault(item.column, []).append(flat)
        for mine in by_column.values():
            keys |= dict.fromkeys(identity.varying(mine))
        pick = Memo(functools.partial(_picked, keys=list(keys)))
        grouped: dict[str, tuple[Flat, list[Item]]] = {}
        for item, flat in zip(members, flats, strict=True):
            chosen = pick(flat)
            grouped.setdefault(frozen(chosen), (chosen, []))[1].append(item)
        groups = sorted(grouped.values(), key=lambda group: identity.frozen(group[0]))
        for (_, group), words in zip(groups, identity.distinctions([flat for flat, _ in groups]), strict=True):
            before = group[0].config.get("pretrain")
            if before and label == group[0].encoder and "pretrain=" not in words:  # weights of a run before are told
                words = ", ".join(filter(None, (f"pretrain={before['name']}", words)))
            name = f"{label} ({words})" if words else label
            # a row that has not run yet has the family of its encoder's other rows
            families = [item.entry.record.encoder.family for item in group if item.entry]
            families = families or [known[item.encoder] for item in group if item.encoder in known]
            for item in group:
                item.row = name
            rows.append(
                Row(
                    id=name,
                    label=name,
                    encoder=group[0].encoder,
                    family=families[0] if families else "",
                    trivial="trivial" in families,
                    mean_rank=None,
                    win_rate=None,
                    tasks=0,
                )
            )
    return rows


def twins(items: Sequence[Item]) -> list[str]:
    """A sentence for each two rows of one set-up: seeds that belong together, which their names keep apart."""
    setup, frozen = identity.setups(), Memo(identity.frozen)
    rows: dict[tuple[str, str, tuple[str, ...]], dict[str, None]] = {}
    for item in items:
        if item.entry is not None:
            sources = tuple(item.entry.record.code.own.values())
            key = item.column, frozen(setup(item.config)), sources
            rows.setdefault(key, {}).setdefault(item.row)
    found = dict.fromkeys(tuple(sorted(names)) for names in rows.values() if len(names) > 1)
    return [
        f"{' and '.join(names)} are runs of one set-up under several names, and stand in a row each. "
        "The command that planned them all, typed for the board, puts them together."
        for names in found
    ]


def _without_seeds(flats: list[Flat], members: Sequence[Item]) -> list[Flat]:
    """Leaves named `seed` that follow the run's seed in all members say nothing of the set-up."""
    if len({item.seed for item in members}) < 2:
        return flats
    distinct = {id(flat): flat for flat in flats}.values()
    keys = {key for flat in distinct for key in flat if key.rsplit(".", 1)[-1] == "seed"}
    follow = {k for k in keys if all(f.get(k) == item.seed for f, item in zip(flats, members, strict=True))}
    if not follow:
        return flats
    return [{key: value for key, value in flat.items() if key not in follow} for flat in flats]


def _picked(flat: Flat, keys: Sequence[str]) -> Flat:
    return identity.pick([flat], keys)[0]
