"""What became of the examples of a column, split by split, and whether it is the same for all of its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from seqbench.record import Record

COUNTS = ("examples", "positions", "truncated", "dropped")
WORDS = {"examples": "examples", "positions": "tokens", "truncated": "truncated", "dropped": "dropped"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """One split of a column: every count that its rows have, the most frequent first."""

    split: str
    examples: tuple[int, ...]
    positions: tuple[int, ...]  # real positions fed: tokens, frames, pixels
    truncated: tuple[int, ...]  # examples that were cut to max_length
    dropped: tuple[int, ...]  # examples left out

    def line(self) -> str:
        """`test: 500 examples, 12345 tokens, 3 truncated, 0 dropped`; `10 or 12` where rows differ."""
        return f"{self.split}: " + ", ".join(f"{self.count(key)} {WORDS[key]}" for key in COUNTS)

    def count(self, key: str) -> str:
        """`12345`, or `12345 or 13000`."""
        return " or ".join(str(value) for value in getattr(self, key))


def accounts(records: Sequence[Record]) -> tuple[Account, ...]:
    """By split, over the finished runs of a column."""
    numbers = Counter(id(record.splits) for record in records)  # many records share theirs
    each = {id(record.splits): record.splits for record in records}
    counts: dict[str, dict[str, Counter[int]]] = {}
    for place, splits in each.items():
        for split, facts in splits.items():
            mine = counts.setdefault(split, {key: Counter() for key in COUNTS})
            for key in COUNTS:
                mine[key][getattr(facts, key)] += numbers[place]
    return tuple(Account(split=split, **{key: _frequent(c[key]) for key in COUNTS}) for split, c in counts.items())


def notices(found: Sequence[Account], label: str) -> list[str]:
    """What a reader has to know: counts that differ between rows, and splits that were cut."""
    told = []
    for account in found:
        unequal = [key for key in COUNTS if len(getattr(account, key)) > 1]
        if unequal:
            counts = "; ".join(f"{account.count(key)} {WORDS[key]}" for key in unequal)
            told.append(f"{label}: not all rows were given the same {account.split} split: {counts}")
        for key, what in (("truncated", "cut to the greatest length"), ("dropped", "left out")):
            most = max(getattr(account, key))
            if most:
                share = 100 * most / max(1, max(account.examples))
                told.append(f"{label}: {most} examples of the {account.split} split ({share:.2g} %) were {what}")
    return told


def _frequent(values: Counter[int]) -> tuple[int, ...]:
    return tuple(sorted(values, key=lambda value: (-values[value], value)))
