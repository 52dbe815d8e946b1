"""Rows of a table -> examples: columns by name, values by type, errors that say where."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.data.base import DataError, Example, Stream

SourceType = Literal["text", "words"]
TargetType = Literal["text", "words", "number"]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns are the source (several: a tuple of texts, such as a pair of sentences), the target and streams.

    A stream is a list as long as the source has words: of names (`streams`) or of numbers (`number_streams`), by name.
    `text` is str; `words` a list of str, from a list in the data or else split at white space; `number` a float.
    """

    source: tuple[str, ...]
    target: str
    source_type: SourceType
    target_type: TargetType
    streams: Mapping[str, str] = field(default_factory=dict)  # name -> column of names
    number_streams: Mapping[str, str] = field(default_factory=dict)  # name -> column of numbers

    @classmethod
    def of(cls, columns: Mapping[str, Any], source_type: SourceType, target_type: TargetType) -> Columns:
        """From the config's `columns: {source: ..., target: ...}`, which may have `streams: {name: column}` and
        `number_streams: {name: column}`, too. Raises ValueError that names the key.
        """
        if set(columns) - {"streams", "number_streams"} != {"source", "target"}:
            raise ValueError(
                f"columns: needs the keys source and target (and may have streams and number_streams), got"
                f" {', '.join(sorted(columns)) or 'none'}"
            )
        streams, numbers = columns.get("streams", {}), columns.get("number_streams", {})
        if not isinstance(streams, Mapping) or not isinstance(numbers, Mapping) or set(streams) & set(numbers):
            raise ValueError("columns: streams and number_streams are each {name: column}, without a name in both")
        if (streams or numbers) and source_type != "words":
            raise ValueError("source_type: streams go with words; set it to words")
        source, target = columns["source"], columns["target"]
        sources = (source,) if isinstance(source, str) else tuple(source)
        if not sources or not isinstance(target, str):
            raise ValueError(f"columns: source is one name or a list of names, target one name; got {dict(columns)}")
        return cls(sources, target, source_type, target_type, dict(streams), dict(numbers))

    @property
    def declared(self) -> dict[str, Stream]:
        """The streams, as a data set declares them."""
        return dict.fromkeys(self.streams, Stream()) | dict.fromkeys(self.number_streams, Stream(channels=1))

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that are read."""
        return (*self.source, self.target, *self.streams.values(), *self.number_streams.values())

    def check(self, present: Sequence[str], where: str) -> None:
        """Raise DataError for a column that isn't there, or is there twice."""
        roles = [*(("source", name) for name in self.source), ("target", self.target)]
        roles += [(f"streams.{role}", name) for role, name in self.streams.items()]
        roles += [(f"number_streams.{role}", name) for role, name in self.number_streams.items()]
        for role, name in roles:
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

    def example(self, row: Mapping[str, Any], where: str, line: int) -> Example:
        """The example of a row at `where`, its `line`. Raises DataError for an empty or unfit value."""
        parts = tuple(
            _value(row[name], self.source_type, f"{where}, column {name!r}", "source") for name in self.source
        )
        target = _value(row[self.target], self.target_type, f"{where}, column {self.target!r}", "target")
        streams: dict[str, Any] = {
            role: _value(row[name], "words", f"{where}, column {name!r}", role) for role, name in self.streams.items()
        }
        streams |= {
            role: _numbers(row[name], f"{where}, column {name!r}") for role, name in self.number_streams.items()
        }
        source = parts[0] if len(parts) == 1 else parts
        return Example(source=source, target=target, streams=streams, where=where, line=line)


def _value(value: Any, kind: TargetType, where: str, role: str) -> Any:
    value = _decoded(value, where)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise DataError(f"{where}: the value is missing; fill it in or take the row out")
    if isinstance(value, str) and not value.strip():
        raise DataError(f"{where}: the value is empty; fill it in or take the row out")
    if kind == "number":
        return _number(value, where)
    if kind == "words":
        return _words(value, where)
    if isinstance(value, (list, dict)):
        raise DataError(f"{where}: {value!r:.60} is not text; lists of words need task.data.{role}_type=words")
    return _text(str(value), where)


def _decoded(value: Any, where: str) -> Any:
    """Text of a Parquet file whose writer did not say so; anything else as it is."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: byte 0x{value[error.start]:02x} is not UTF-8; save the column as text") from None


def _text(value: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair
        raise DataError(f"{where}: {value!r:.60} holds half a character (a lone surrogate)") from None
    return value


def _number(value: Any, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        remedy = "; true and false are classes: task.data.target_type=text" if isinstance(value, bool) else ""
        remedy = "; decimals are written with a point" if isinstance(value, str) and "," in value else remedy
        raise DataError(f"{where}: {value!r:.60} is not a finite number{remedy}")
    return number


def _numbers(value: Any, where: str) -> list[float]:
    """A list in the data, or text that is split at white space."""
    items = value.split() if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not items:
        raise DataError(f"{where}: {value!r:.60} is not a list of numbers")
    return [_number(item, where) for item in items]


def _words(value: Any, where: str) -> list[str]:
    if isinstance(value, str):
        return _text(value, where).split()
    if isinstance(value, (list, tuple)) and value and all(isinstance(word, (str, int, bytes)) for word in value):
        words = [_text(str(_decoded(word, where)), where) for word in value]
        if all(words):
            return words
    raise DataError(f"{where}: {value!r:.60} is not a list of words, none of them empty")
