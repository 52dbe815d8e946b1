"""Rows of a table -> examples: columns by name, values by type, errors that say where."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tasks.data.base import DataError, Example

SourceType = Literal["text", "words"]
TargetType = Literal["text", "words", "number"]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns are the source (several: a tuple of texts, such as a pair of sentences) and the target.

    `text` is str; `words` a list of str, from a list in the data or else split at white space; `number` a float.
    """

    source: tuple[str, ...]
    target: str
    source_type: SourceType
    target_type: TargetType

    @classmethod
    def of(cls, columns: Mapping[str, str | list[str]], source_type: SourceType, target_type: TargetType) -> Columns:
        """From the config's `columns: {source: ..., target: ...}`. Raises ValueError that names the key."""
        if set(columns) != {"source", "target"}:
            raise ValueError(f"columns: needs the keys source and target, got {', '.join(sorted(columns)) or 'none'}")
        source, target = columns["source"], columns["target"]
        sources = (source,) if isinstance(source, str) else tuple(source)
        if not sources or not isinstance(target, str):
            raise ValueError(f"columns: source is one name or a list of names, target one name; got {dict(columns)}")
        return cls(sources, target, source_type, target_type)

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that are read."""
        return (*self.source, self.target)

    def check(self, present: Sequence[str], where: str) -> None:
        """Raise DataError for a column that isn't there, or is there twice."""
        for role, name in [*(("source", name) for name in self.source), ("target", self.target)]:
            if present.count(name) == 1:
                continue
            if name in present:
                raise DataError(f"{where}: there are {present.count(name)} columns {name!r}; their names must differ")
            near = difflib.get_close_matches(name, present, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise DataError(
                f"{where}: no column {name!r}{hint}; there are: {', '.join(map(repr, present)) or 'none'}.\n"
                f"Name the right one by task.data.columns.{role}=..."
            )

    def example(self, row: Mapping[str, Any], where: str) -> Example:
        """One row's example. Raises DataError for an empty or unfit value."""
        parts = tuple(_value(row[name], self.source_type, f"{where}, column {name!r}") for name in self.source)
        target = _value(row[self.target], self.target_type, f"{where}, column {self.target!r}")
        return Example(source=parts[0] if len(parts) == 1 else parts, target=target, where=where)


def _value(value: Any, kind: TargetType, where: str) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise DataError(f"{where}: the value is missing; fill it in or take the row out")
    if isinstance(value, str) and not value.strip():
        raise DataError(f"{where}: the value is empty; fill it in or take the row out")
    if kind == "number":
        return _number(value, where)
    if kind == "words":
        return _words(value, where)
    if isinstance(value, (list, dict)):
        raise DataError(f"{where}: {value!r:.60} is not text; lists of words need task.data.source_type=words")
    return _text(str(value), where)


def _text(value: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair
        raise DataError(f"{where}: {value!r:.60} holds half a character (a lone surrogate)") from None
    return value


def _number(value: Any, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        remedy = "; true and false are classes: task.data.target_type=text" if isinstance(value, bool) else ""
        raise DataError(f"{where}: {value!r:.60} is not a finite number{remedy}")
    return number


def _words(value: Any, where: str) -> list[str]:
    if isinstance(value, str):
        return _text(value, where).split()
    if isinstance(value, (list, tuple)) and value and all(isinstance(word, (str, int)) for word in value):
        words = [_text(str(word), where) for word in value]
        if all(words):
            return words
    raise DataError(f"{where}: {value!r:.60} is not a list of words, none of them empty")
