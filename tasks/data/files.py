"""A user's own files: CSV, TSV, JSON lines and Parquet with named columns."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tasks.data import delimited
from tasks.data.base import DataError, Example, FileFact
from tasks.data.columns import Columns
from tasks.data.pinned import sha256_of
from tasks.data.shares import OwnData

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
KNOWN = (*DELIMITERS, *JSON_LINES, ".parquet")

MARKS = {  # byte order marks, the longer ones first: one begins as another does
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
Rows = Iterator[tuple[str, int, Mapping[str, Any]]]  # where it stands, its line or row, values by column


class Files(OwnData):
    """One file a split; the suffix tells the format: .csv, .tsv (with a header line), .jsonl, .ndjson, .parquet.

    `columns` names the source (one column, or a list of several), the target and any streams (see Columns). `delimiter:
    null` takes the format's own; else it is one character or `tab`. `quoted: false` reads quotation marks as plain
    characters, as many TSV files have them. Text is UTF-8 and stays as it is: no word stands for a missing value.
    `valid` and `test` may be null: see OwnData for the shares.
    """

    paths: ClassVar[frozenset[str]] = frozenset({"train", "valid", "test"})

    def __init__(
        self,
        *,
        train: str,
        valid: str | None,
        test: str | None,
        columns: dict[str, str | list[str] | dict[str, str]],
        source_type: Literal["text", "words"],
        target_type: Literal["text", "words", "number"],
        delimiter: str | None,
        quoted: bool,
        valid_share: Annotated[float, Field(ge=0, lt=1)],
        test_share: Annotated[float, Field(ge=0, lt=1)],
        split_seed: int,
    ) -> None:
        places = {"train": train, "valid": valid, "test": test}
        super().__init__(places=places, valid_share=valid_share, test_share=test_share, split_seed=split_seed)
        delimiter = delimited.NAMES.get(delimiter or "", delimiter)
        if delimiter is not None and len(delimiter) != 1:
            raise ValueError(f"delimiter: one character, tab or null, got {delimiter!r}")
        self.columns = Columns.of(columns, source_type, target_type)
        self.streams = self.columns.declared
        self.delimiter, self.quoted = delimiter, quoted

    def identity(self) -> list[FileFact]:
        """The files' checksums; their addresses are their names."""
        self._check_formats()
        return facts(self.places)

    def _check_formats(self) -> None:
        for split, path in existing(self.places).items():
            if path.suffix.lower() not in KNOWN:
                raise DataError(f"task.data.{split}: {path.name} is none of {', '.join(KNOWN)}; convert it to one")

    def check(self) -> None:
        """The files are there, not empty, of a known format, and have the columns."""
        self._check_formats()
        for split, path in existing(self.places).items():
            for where, _, row in self.rows(path):
                self.columns.check(list(row), where)
                break
            else:
                raise DataError(f"task.data.{split}: {path.name} has no rows")

    def load(self, split: str, place: str) -> list[Example]:
        """All rows of a file. Raises DataError with the line of the first that is broken."""
        examples = []
        for where, line, row in self.rows(Path(place)):
            if any(name not in row for name in self.columns.names):
                self.columns.check(list(row), where)
            examples.append(self.columns.example(row, where, line))
        return examples

    def rows(self, path: Path) -> Rows:
        """Rows in order; lines that are empty are passed over."""
        suffix = path.suffix.lower()
        if suffix in JSON_LINES:
            return _json_lines(path)
        return self._table(path, DELIMITERS[suffix]) if suffix in DELIMITERS else _parquet(path, self.columns)

    def _table(self, path: Path, own: str) -> Rows:
        found = delimited.read(
            text_of(path),
            path.name,
            delimiter=self.delimiter or own,
            quoted=self.quoted,
            columns=self.columns,
        )
        return ((f"{path.name} line {line}", line, row) for line, row in found)


def _json_lines(path: Path) -> Rows:
    text = text_of(path)
    if _is_list_of_objects(text):
        raise DataError(f"{path.name}: a JSON list, not an object {{...}} a line\nconvert it: jq -c '.[]' OLD > NEW")
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path.name} line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not JSON ({error.msg} at character {error.colno})") from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists a thousand deep
            raise DataError(f"{where}: JSON that can't be read ({error!s:.70})") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: each line must be an object {{...}}, this one is a {type(row).__name__}")
        yield where, number, row


def _is_list_of_objects(text: str) -> bool:
    if not text.lstrip().startswith("["):
        return False
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return bool(found) and all(isinstance(item, dict) for item in found)


def _parquet(path: Path, columns: Columns) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        columns.check(file.schema_arrow.names, path.name)
        rows = file.read(columns=list(columns.names)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{path.name}: not a Parquet file that can be read ({str(error).splitlines()[0]:.120})"
        ) from None
    for number, row in enumerate(rows, 1):
        yield f"{path.name} row {number}", number, row


def text_of(path: Path) -> str:
    """A file's text, a byte order mark left out. Raises DataError with the line that isn't UTF-8, and what to do."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from None
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            raise DataError(
                f"{path.name}: its byte order mark says {encoding.upper()}, not UTF-8\n{_convert(encoding)}"
            )
    if 0 in content[:1000]:  # no text in UTF-8 has it, every one in Latin letters has it in UTF-16
        encoding = "utf-16le" if content[1:2] == b"\0" else "utf-16be"
        raise DataError(f"{path.name}: has zero bytes, as UTF-16 has, or a file that is no text\n{_convert(encoding)}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path.name} line {line}: byte 0x{content[error.start]:02x} is not UTF-8\n"
            f"{_convert('windows-1252')}, if it is Western European"
        ) from None


def _convert(encoding: str) -> str:
    return f"convert it: iconv -f {encoding} -t utf-8 OLD > NEW"


def existing(places: Mapping[str, str | None]) -> dict[str, Path]:
    """Paths by split, of those that are given. Raises DataError for one that is missing, a folder or empty."""
    paths = {split: Path(place) for split, place in places.items() if place is not None}
    for split, path in paths.items():
        if not path.is_file():
            kind = "a folder, not a file" if path.is_dir() else "not there"
            raise DataError(f"task.data.{split}: {path} is {kind}{_beside(path)}")
        if not path.stat().st_size:
            raise DataError(f"task.data.{split}: {path} is empty")
    return paths


def facts(places: Mapping[str, str | None]) -> list[FileFact]:
    """Name, checksum and size of each file given. A path says where a file lies, not what it is: it isn't kept."""
    return [
        FileFact(name=path.name, url=f"file:{path.name}", sha256=sha256_of(path), size=path.stat().st_size)
        for path in existing(places).values()
    ]


def _beside(path: Path) -> str:
    """The name that was probably meant, among the files of the same folder."""
    import difflib

    names = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    return f" (did you mean {path.parent / near[0]}?)" if near and near[0] != path.name else ""
