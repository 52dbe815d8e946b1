"""Sentences of pinned column files: a word and its tag a line, an empty line between sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tasks.data.base import DataError, Example


def sentences(lines: Iterable[str], *, separator: str | None, columns: int, name: str) -> list[Example]:
    """Source: words, the first column; target: tags, the last. A line of white space ends a sentence.

    Raises DataError for a line of other columns, with its number.
    """
    examples: list[Example] = []
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*lines, ""], 1):
        if not line.strip():
            if words:
                examples.append(Example(source=words, target=tags))
                words, tags = [], []
            continue
        fields = line.split(separator)
        if len(fields) != columns:
            raise DataError(f"{name} line {number}: {len(fields)} columns, {columns} were expected")
        words.append(fields[0])
        tags.append(fields[-1].strip())
    return examples


def last_tenth(examples: Sequence[Example], split: str) -> Sequence[Example]:
    """`train`: the first nine tenths of a file without a validation part of its own; `valid`: the rest."""
    cut = len(examples) * 9 // 10
    return examples[:cut] if split == "train" else examples[cut:]
