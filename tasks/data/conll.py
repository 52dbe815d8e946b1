"""A user's own files in column format: a word a line, an empty line between sentences (CoNLL shared tasks)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tasks.data.base import DataError, Example, FileFact, Stream
from tasks.data.files import JSON_LINES, existing, facts, text_of
from tasks.data.shares import OwnData

NO_WORD = re.compile(r"\d+[-.]\d+$")  # CoNLL-U: 8-9 spans the words 8 and 9, 8.1 is a word that was left out
DOCUMENT = "-DOCSTART-"  # CoNLL-2003: a line of its own before each document


class Conll(OwnData):
    """Source: the words of a sentence; target: its tags, one a word; `stream_columns`: further columns by name.

    Columns are counted from 0, negative ones from the last; every line must have as many as the file's first. Lines
    that begin with `comment` (null: none) are passed over, so are document marks of CoNLL-2003 and, in tab-separated
    files whose word is not the first column, the ranges and empty nodes of CoNLL-U. `valid` and `test` may be null: see
    OwnData for the shares.
    """

    paths: ClassVar[frozenset[str]] = frozenset({"train", "valid", "test"})

    def __init__(
        self,
        *,
        train: str,
        valid: str | None,
        test: str | None,
        word_column: int,
        tag_column: int,
        stream_columns: dict[str, int],
        separator: Literal["space", "tab"],
        comment: str | None,
        valid_share: Annotated[float, Field(ge=0, lt=1)],
        test_share: Annotated[float, Field(ge=0, lt=1)],
        split_seed: int,
    ) -> None:
        places = {"train": train, "valid": valid, "test": test}
        super().__init__(places=places, valid_share=valid_share, test_share=test_share, split_seed=split_seed)
        if word_column == tag_column:
            raise ValueError(f"tag_column: {tag_column} is the word's column too")
        self.word_column, self.tag_column = word_column, tag_column
        self.stream_columns = dict(stream_columns)
        self.streams = dict.fromkeys(stream_columns, Stream())
        self.separator, self.comment = separator, comment

    def identity(self) -> list[FileFact]:
        """The files' checksums; their addresses are their names."""
        self._check_formats()
        return facts(self.places)

    def _check_formats(self) -> None:
        for split, path in existing(self.places).items():
            if path.suffix.lower() in (*JSON_LINES, ".parquet"):
                raise DataError(
                    f"task.data.{split}: {path.name} has no word a line; a table with lists of words is read by"
                    " own_data@task.data=files task.data.source_type=words task.data.target_type=words"
                )

    def check(self) -> None:
        """The files are there, not empty, and their first line has the columns."""
        self._check_formats()
        for split, path in existing(self.places).items():
            if not self._sentences(path, only_first=True):
                raise DataError(f"task.data.{split}: {path.name} has no sentences")

    def load(self, split: str, place: str) -> list[Example]:
        """All sentences of a file. Raises DataError with the line of the first that is broken."""
        return self._sentences(Path(place), only_first=False)

    def _sentences(self, path: Path, *, only_first: bool) -> list[Example]:
        examples: list[Example] = []
        words: list[str] = []
        tags: list[str] = []
        further: dict[str, list[str]] = {name: [] for name in self.stream_columns}
        width: int | None = None
        first = 0
        for number, line in enumerate([*text_of(path).split("\n"), ""], 1):
            line = line.rstrip("\r")
            if not line.strip():
                if words:
                    where = f"{path.name} line {first}"
                    examples.append(Example(source=words, target=tags, streams=further, where=where, line=first))
                    words, tags, further = [], [], {name: [] for name in self.stream_columns}
                    if only_first:
                        break
                continue
            if self.comment and line.startswith(self.comment):
                continue
            fields = line.split("\t") if self.separator == "tab" else line.split()
            if fields[0] == DOCUMENT:
                continue
            width = width or len(fields)
            self._check(fields, width, f"{path.name} line {number}")
            if self.separator == "tab" and self.word_column % width and NO_WORD.match(fields[0]):
                continue
            first = first if words else number
            words.append(fields[self.word_column])
            tags.append(fields[self.tag_column])
            for name, column in self.stream_columns.items():
                further[name].append(fields[column])
        return examples

    def _check(self, fields: list[str], width: int, where: str) -> None:
        if len(fields) != width:
            raise DataError(
                f"{where}: {len(fields)} columns, the first line has {width} (task.data.separator={self.separator})"
            )
        if width == 1:
            raise DataError(
                f"{where}: one column by task.data.separator={self.separator}, where a word and its tag belong;"
                " CSV with a header line is read by own_data@task.data=files"
            )
        for key, column in (
            ("word_column", self.word_column),
            ("tag_column", self.tag_column),
            *((f"stream_columns.{name}", column) for name, column in self.stream_columns.items()),
        ):
            if not -width <= column < width:
                raise DataError(f"{where}: task.data.{key}={column}, but the line has {width} columns, counted from 0")
            if not fields[column].strip():
                raise DataError(f"{where}: column {column} (task.data.{key}) is empty")
        if self.word_column % width == self.tag_column % width:
            raise DataError(f"{where}: task.data.word_column and tag_column are the same of {width} columns")
