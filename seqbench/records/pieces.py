"""A record's file in pieces: what thousands of records have in common is parsed, checked and held in memory once.

A file of ours has a field a line at its top level. Cut there, most pieces (code, environment, sections of the config)
are the same bytes in many records; their values and their canonical JSON, of which the seal is made, are looked up. The
outcome is that of `seqbench.records.store.read`, which reads whatever is not of this form.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, overload

import pydantic

from seqbench.record import SCHEMA_VERSION, Point, Record

CONFIG = "config"
OWN = frozenset(  # different in every record: nothing is gained by keeping them
    (
        *("id", "overrides", "scores", "curves", "cost", "invariance"),
        *("predictions", "checkpoint", "saved", "started", "ended", "sha256"),
    )
)
PLAIN = re.compile(rb"[A-Za-z0-9_]+")  # names that are their own JSON
Layout = tuple[str, ...]  # names of the pieces in order: `status`, `config.encoder`, ...
_ADAPTERS = {name: pydantic.TypeAdapter[Any](field.annotation or Any) for name, field in Record.model_fields.items()}
_ANY: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(Any)
_POINT = pydantic.TypeAdapter(Point)
POINT, END = b"\n    {", b"\n  ]"  # of a list of points, as it is written: strings hold no line break
# What is checked of a record is checked of its fields one by one; if a validator of the whole comes, nothing is cut.
_BY_FIELDS = not any(
    (
        *(getattr(Record.__pydantic_decorators__, kind) for kind in ("validators", "field_validators")),
        *(getattr(Record.__pydantic_decorators__, kind) for kind in ("root_validators", "model_validators")),
        *(field.metadata for field in Record.model_fields.values()),
    )
)


class NotOurs(Exception):
    """A file that can't be cut, or that has something wrong: to be read whole."""


def cut(content: bytes) -> tuple[Layout, list[bytes]]:
    """Names and JSON of a file's pieces, not looked into. Raises NotOurs."""
    if not _BY_FIELDS or not content.startswith(b'{\n  "') or not content.endswith(b"\n}\n"):
        raise NotOurs
    names, values = [], []
    for name, value in _lines(content[5:-3], b',\n  "'):
        if name not in _FIELDS:
            raise NotOurs
        if name == b"config" and value.startswith(b'{\n    "') and value.endswith(b"\n  }"):
            for key, section in _lines(value[7:-4], b',\n    "'):
                if PLAIN.fullmatch(key) is None:
                    raise NotOurs
                names.append(f"{CONFIG}.{key.decode()}")
                values.append(section)
        else:
            names.append(name.decode())
            values.append(value)
    if len(set(names)) < len(names) or "schema_version" not in names:
        raise NotOurs
    return tuple(names), values


_FIELDS = frozenset(name.encode() for name in Record.model_fields)


def _lines(body: bytes, between: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    for line in body.split(between):
        name, colon, value = line.partition(b'": ')
        if not colon:
            raise NotOurs
        found.append((name, value))
    return found


class Values:
    """What pieces say, those that are shared held once; equal pieces of different records are the same object."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, bytes], Any] = {}
        self._canonical: dict[bytes, str] = {}
        self._whole: dict[Layout, Record] = {}  # some record of each, which has the fields that the layout lacks

    def value(self, name: str, piece: bytes) -> Any:
        """The value of a piece. Raises NotOurs where it is not JSON or not of its field's type."""
        field = name.partition(".")[0]
        if name in OWN:
            return _valid(field, name, piece)
        key = (name, piece)
        if key not in self._values:
            self._values[key] = _valid(field, name, piece)
        return self._values[key]

    def record(self, layout: Layout, values: Sequence[Any]) -> Record:
        """The record of its pieces' values, as `store.read` gives it. Raises NotOurs where a field is missing."""
        plain, sections, keys = _plan(layout)
        given = {name: values[place] for name, place in plain}
        if sections:
            given[CONFIG] = dict(zip(keys, values[sections[0] : sections[-1] + 1], strict=True))
        given["sha256"] = None
        if layout not in self._whole:
            if not given.keys() >= _REQUIRED:
                raise NotOurs
            self._whole[layout] = Record.model_construct(set(given), **given)
        return self._whole[layout].model_copy(update=given)  # a third of the time of model_construct

    def read(self, content: bytes) -> tuple[Layout, list[bytes], Record]:
        """The record in a file's bytes, with its pieces, its seal checked. Raises NotOurs."""
        layout, pieces = cut(content)
        record = self.record(layout, [self.value(*pair) for pair in zip(layout, pieces, strict=True)])
        if record.schema_version != SCHEMA_VERSION or not self._sealed(layout, pieces):
            raise NotOurs
        return layout, pieces, record

    def _sealed(self, layout: Layout, pieces: Sequence[bytes]) -> bool:
        """Whether the checksum in the file is that of the rest; also where there is none."""
        seal: str | None = None
        parts: dict[str, str] = {}
        config: dict[str, str] = {}
        for name, piece in zip(layout, pieces, strict=True):
            if name == "sha256":
                seal = _valid(name, name, piece)
            elif name.startswith("config."):
                config[name[7:]] = self._canon(name, piece)
            else:
                parts[name] = self._canon(name, piece)
        if seal is None:
            return True
        if config:
            parts[CONFIG] = _object(config)
        return hashlib.sha256(_object(parts).encode()).hexdigest() == seal

    def _canon(self, name: str, piece: bytes) -> str:
        if name in OWN:
            return _canonical(piece)
        if piece not in self._canonical:
            self._canonical[piece] = _canonical(piece)
        return self._canonical[piece]


class Curve(Sequence[Point]):
    """The points of a piece that was checked before, made when they are looked at: most of a board's never are.

    What a run came to, its last point, is made alone.
    """

    def __init__(self, piece: bytes) -> None:
        self._piece = piece
        self._points: list[Point] | None = None
        self._last: Point | None = None

    def __bool__(self) -> bool:
        return self._piece != b"[]"

    def __len__(self) -> int:
        return len(self._all())

    @overload
    def __getitem__(self, at: int) -> Point: ...
    @overload
    def __getitem__(self, at: slice) -> list[Point]: ...
    def __getitem__(self, at: int | slice) -> Point | list[Point]:
        if at == -1 and self._points is None:
            _, start, rest = self._piece.rpartition(POINT)
            if self._last is None and start and rest.endswith(END):
                self._last = _POINT.validate_json(b"{" + rest.removesuffix(END))
            if self._last is not None:
                return self._last
        return self._all()[at]

    def __eq__(self, other: object) -> bool:
        return self._all() == (other._all() if isinstance(other, Curve) else other)

    __hash__ = None  # type: ignore[assignment]

    def _all(self) -> list[Point]:
        if self._points is None:
            self._points = _ADAPTERS["curves"].validate_json(self._piece)
        return self._points


@functools.lru_cache(maxsize=256)
def _plan(layout: Layout) -> tuple[list[tuple[str, int]], list[int], list[str]]:
    """Fields with their places, the places of the config's sections, which are one after the other, and their keys."""
    plain = [(name, place) for place, name in enumerate(layout) if not name.startswith("config.")]
    sections = [place for place, name in enumerate(layout) if name.startswith("config.")]
    return plain, sections, [layout[place].removeprefix("config.") for place in sections]


_REQUIRED = frozenset(name for name, field in Record.model_fields.items() if field.is_required())


def _valid(field: str, name: str, piece: bytes) -> Any:
    adapter = _ANY if name.startswith("config.") else _ADAPTERS[field]
    try:
        return adapter.validate_json(piece)
    except pydantic.ValidationError:
        raise NotOurs from None


def _canonical(piece: bytes) -> str:
    try:
        return json.dumps(json.loads(piece), sort_keys=True, separators=(",", ":"))
    except ValueError:
        raise NotOurs from None


def _object(parts: dict[str, str]) -> str:
    return "{" + ",".join(f'"{name}":{parts[name]}' for name in sorted(parts)) + "}"
