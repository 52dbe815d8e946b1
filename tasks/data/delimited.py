"""Rows of a table in text, CSV or TSV: values by column, and errors that say on which line and what would do."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import Literal

from tasks.data.base import DataError
from tasks.data.columns import Columns

NAMES = {"tab": "\t"}  # of a delimiter that can't be typed
LOOKED_FOR = {";": "';'", "\t": "a tab", ",": "','", "|": "'|'"}  # how messages name them
QUOTED = re.compile(r'"(?:[^"]|"")*+"')
BREAK = re.compile("\r\n|\r|\n")


def read(
    text: str, name: str, *, delimiter: str, quoted: bool, columns: Columns
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows under a header line, in order, each with the line that it begins on; empty lines are passed over.

    Raises DataError for a header without the columns, for a row of another length and for quotation marks at fault.
    """
    # fields are as long as they are; the library's limit is process-wide and meant for hostile input
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=_quoting(quoted), strict=True)
    header: list[str] | None = None
    line = 1  # on which the next row begins: a quoted field may go over several
    try:
        for values in reader:
            begun, line = line, reader.line_num + 1
            if not values:
                continue
            where = f"{name} line {begun}"
            if header is None:
                header = values
                if any(column not in header for column in columns.names):
                    _check_delimiter(text, where, delimiter, quoted, columns, single=len(header) == 1)
                columns.check(header, where)
                continue
            if len(values) != len(header):
                raise DataError(
                    f"{where}: {len(values)} fields, but the header has {len(header)}"
                    f"{_remedy(delimiter, quoted) if len(values) > len(header) else ''}"
                )
            yield begun, dict(zip(header, values, strict=True))
    except csv.Error:
        if header is None:  # "text";"label" is no row of fields in quotation marks with commas between
            _check_delimiter(text, f"{name} line {line}", delimiter, quoted, columns, single=True)
        raise DataError(
            f"{_fault(text, name, line, delimiter)}.\n"
            "If quotation marks are plain characters in this file, set task.data.quoted=false"
        ) from None


def _quoting(quoted: bool) -> Literal[0, 3]:
    return csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE


def _remedy(delimiter: str, quoted: bool) -> str:
    """What makes one field of several."""
    if not quoted:
        return "; task.data.quoted=true reads quoted fields as one"
    return f"; a field with {_named(delimiter)} in it goes in quotation marks"


def _check_delimiter(text: str, where: str, delimiter: str, quoted: bool, columns: Columns, *, single: bool) -> None:
    """Raise DataError if another delimiter finds the columns, or several where this one finds but a `single` one."""
    line = next(line for line in BREAK.split(text) if line)
    if note := re.fullmatch("sep=(.)", line, re.IGNORECASE):
        remedy = "" if note[1] == delimiter else f" and set {_typed(note[1])}"
        raise DataError(f"{where}: {line!r} is a note to Excel, not the header; take it out{remedy}")
    found = {
        other: next(csv.reader([line], delimiter=other, quoting=_quoting(quoted)))
        for other in LOOKED_FOR
        if other != delimiter
    }
    best = max(found, key=lambda other: (set(columns.names) <= set(found[other]), len(found[other])))
    if set(columns.names) <= set(found[best]) or (single and len(found[best]) > 1):
        raise DataError(
            f"{where}: no columns by {_named(delimiter)}; the file looks separated by {_named(best)}: set"
            f" {_typed(best)}\nIts columns are then: {', '.join(map(repr, found[best]))}"
        )


def _typed(delimiter: str) -> str:
    """The override, as a shell takes it."""
    return "task.data.delimiter=tab" if delimiter == "\t" else f"'task.data.delimiter=\"{delimiter}\"'"


def _named(delimiter: str) -> str:
    return LOOKED_FOR.get(delimiter, repr(delimiter))


def _fault(text: str, name: str, line: int, delimiter: str) -> str:
    """Which quotation mark spoils the row that begins on a line: the one that opens the field where reading ended."""
    rest = "".join(io.StringIO(text, newline="").readlines()[line - 1 :])
    at = 0
    while at < len(rest):
        if not rest.startswith('"', at):
            ends = [end for mark in (delimiter, "\r", "\n") if (end := rest.find(mark, at)) >= 0]
            at = min(ends, default=len(rest)) + 1
            continue
        opened = line + len(BREAK.findall(rest[:at]))
        field = QUOTED.match(rest, at)
        if field is None:
            return f"{name} line {opened}: a quotation mark opens a field here and nothing closes it"
        follows = rest[field.end() : field.end() + 1]
        if follows != delimiter:
            closed = opened + len(BREAK.findall(field.group()))
            on = f" on line {closed}" if closed > opened else ""
            return (
                f"{name} line {opened}: the field that a quotation mark opens here is closed{on} before {follows!r},"
                f" where {_named(delimiter)} or the end of the line has to follow"
            )
        at = field.end() + 1
    return f"{name} line {line}: this row can't be read"
