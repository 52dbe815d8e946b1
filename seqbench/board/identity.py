"""What makes two runs the same row or the same column, and the shortest words that tell them apart."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from seqbench.records.decisive import BATCHES_OF_EVALUATION, TRAINER, TRAINER_IF_SET

Flat = dict[str, Any]
NOT_A_ROW = frozenset(  # decides no score, or is the column's, or the replicate's
    (
        "seed",
        "label",
        "task_label",
        "results",
        "mirror",
        "rerun",
        "deterministic",
        "allowed",
        "logger",
        "study",
        "experiment",
        "task",
        "hydra",
    )
)
HASH = re.compile(r"[0-9a-f]{64}")
IF_SET = frozenset(  # keys that came later: none is as if the config did not have them
    ("tune", *(f"budget.{key}" for key in ("tokens", "flops", "seconds", "match", "target", "tolerance")))
)
SPACE = "tune.space."
SOLVED = "budget.matched"  # what was solved stands in the encoder
ABSENT = "absent"


def flatten(node: Any, path: str = "") -> Flat:
    """Leaves of a nested config by dotted key; a list without nested mappings is a leaf."""
    if isinstance(node, Mapping) and node:
        return {
            k: v for key, child in node.items() for k, v in flatten(child, f"{path}.{key}" if path else key).items()
        }
    if isinstance(node, list) and any(isinstance(item, (Mapping, list)) for item in node):
        return {k: v for i, child in enumerate(node) for k, v in flatten(child, f"{path}.{i}").items()}
    return {path: node}


def setup(config: Mapping[str, Any]) -> Flat:
    """What a row is made of: encoder, protocol, budget, optimizer, schedule and whatever else changes a score."""
    sections = {key: value for key, value in config.items() if key not in NOT_A_ROW}
    return in_force(flatten({"pretrain": None, **sections}))


class Sections:
    """A function of some of a config's sections, worked out once for all configs that have the same ones."""

    def __init__(self, make: Callable[[dict[str, Any]], Flat], *, wanted: Callable[[str], bool]) -> None:
        self._make, self._wanted = make, wanted
        self._keys: dict[tuple[str, ...], tuple[str, ...]] = {}  # of a config -> those that are wanted
        self._results: dict[tuple[Any, ...], tuple[Any, Flat]] = {}

    def __call__(self, config: Mapping[str, Any]) -> Flat:
        """The result for a config; the same object for the same sections."""
        every = tuple(config)
        if every not in self._keys:
            self._keys[every] = tuple(filter(self._wanted, every))
        wanted = self._keys[every]
        mine = [config[key] for key in wanted]
        found = self._results.get(key := (wanted, *map(id, mine)))
        if found is None:  # kept with the sections, so that no identity comes twice
            found = self._results[key] = mine, self._make(dict(zip(wanted, mine, strict=True)))
        return found[1]


def setups() -> Sections:
    """`setup` of many configs."""
    return Sections(setup, wanted=lambda key: key not in NOT_A_ROW)


def in_force(flat: Flat) -> Flat:
    """Without keys that say nothing: where it runs, newer ones that are not used, what was solved, what was tuned.

    A tuning is one key, for all of it together; the values that it found are not the row's set-up, the search is.
    A run before this one has its name as `pretrain`, beside what else it is made of.
    """
    matching = flat.get("budget.match") is not None
    tuning = {key: value for key, value in flat.items() if key.startswith("tune.")}
    space = {key: value for key, value in tuning.items() if key.startswith(SPACE)}
    tuned = {key.removeprefix(SPACE).rpartition(".")[0] for key in space}
    kept = {
        key: value
        for key, value in flat.items()
        if _decides(key)
        and not (value is None and key in IF_SET)
        and not key.startswith(SOLVED)
        and (matching or key not in ("budget.vary", "budget.count"))
        and key not in tuning
        and key not in tuned
    }
    if tuning:
        asked = frozen([sorted(space.items()), tuning.get("tune.seed")])
        kept["tune"] = (
            f"{tuning.get('tune.trials')} trials, {tuning.get('tune.sampler')} "
            f"{hashlib.sha256(asked.encode()).hexdigest()[:4]}"
        )
    kept |= {key: kept.get(key) or False for key in map("trainer.{}".format, TRAINER_IF_SET)}
    name = kept.pop("pretrain.name", None)
    return kept if name is None else {"pretrain": name, **kept}


def _decides(key: str) -> bool:
    """Whether a key changes scores, of the sections where not all do."""
    section, _, name = key.rpartition(".")
    if section == "trainer":
        return name in (*TRAINER, *TRAINER_IF_SET)
    return not (section.endswith("budget") and name == BATCHES_OF_EVALUATION)


def whole(config: Mapping[str, Any]) -> Flat:
    """All that decides a run's id, but the seed: its set-up and its task."""
    return {**setup(config), **flatten(config.get("task", {}), "task")}


def typed(value: Any) -> str:
    """A value as an override has it."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def varying(items: Sequence[Flat]) -> list[str]:
    """Keys whose value is not the same in all items, in order of first appearance."""
    items = list({id(item): item for item in items}.values())
    if len(items) < 2:
        return []
    keys = list(dict.fromkeys(key for item in items for key in item))
    return [key for key in keys if len({frozen(item.get(key, ABSENT)) for item in items}) > 1]


def frozen(value: Any) -> str:
    """A value as text that is equal only for equal values."""
    return json.dumps(value, sort_keys=True, default=str)


def pick(items: Sequence[Flat], keys: Iterable[str]) -> list[Flat]:
    """Those keys of each item."""
    keys = list(keys)
    return [{key: item.get(key, ABSENT) for key in keys} for item in items]


def distinctions(items: Sequence[Flat]) -> list[str]:
    """For different items, short texts that are different too: `depth=6`, `position=ALiBi, lr=0.001`; "" if alone.

    Greedy: the key that separates most of what is not yet separated, until all are. Items that no key separates
    get a few digits of a hash.
    """
    if len(items) < 2:
        return [""] * len(items)
    remaining = varying(items)
    chosen: list[str] = []
    parts = len({frozen(item) for item in items})
    classes = 1
    while classes < parts and remaining:
        best = max(remaining, key=lambda key: len(_classes(items, [*chosen, key])))
        if len(_classes(items, [*chosen, best])) == classes and len(chosen) >= 1:
            break
        chosen.append(best)
        remaining.remove(best)
        classes = len(_classes(items, chosen))
    short = _short_names(chosen, varying(items))
    texts = [", ".join(f"{short[key]}={show(item.get(key, ABSENT), key)}" for key in chosen) for item in items]
    if len(set(texts)) < parts:
        texts = [f"{text}, {digest(item)}" if text else digest(item) for text, item in zip(texts, items, strict=True)]
    return texts


def digest(item: Any) -> str:
    """Six digits that stand for a value."""
    return hashlib.sha256(frozen(item).encode()).hexdigest()[:6]


def show(value: Any, key: str = "") -> str:
    """A config value, short: a class by its last name, a checksum by its start, a long text by its two ends."""
    if isinstance(value, float):
        text = f"{value:g}"
    elif value is None or isinstance(value, bool):
        text = {None: "none", True: "yes", False: "no"}[value]
    else:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
    if key.endswith("_target_"):
        text = text.rsplit(".", 1)[-1]
    if HASH.fullmatch(text):
        text = text[:6]
    return text if len(text) <= 28 else f"{text[:14]}…{text[-12:]}"


def _classes(items: Sequence[Flat], keys: Sequence[str]) -> set[str]:
    return {frozen([item.get(key, ABSENT) for key in keys]) for item in items}


def _short_names(chosen: Sequence[str], among: Sequence[str]) -> dict[str, str]:
    """The last word of each key, or as many as tell it from the other keys that vary; `_target_` says nothing."""
    names = {}
    for key in chosen:
        words = [word for word in key.split(".") if word != "_target_"] or [key]
        for count in range(1, len(words) + 1):
            tail = ".".join(words[-count:])
            rivals = [k for k in among if k != key and f".{k.removesuffix('._target_')}".endswith(f".{tail}")]
            if not rivals:
                break
        names[key] = tail
    return names
