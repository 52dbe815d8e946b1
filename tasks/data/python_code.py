"""Python code to label and to model: the kinds of its tokens, and its text."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

from pydantic import Field

from tasks.data.base import SPLITS, DataError, DataSet, Example, FileFact
from tasks.data.python_kinds import Line, lines_of
from tasks.data.python_source import files, fingerprint, modules, text_of

T = TypeVar("T")

ACTIVE = 20  # modules that take turns; of more, every file would have to be parsed for a few windows


class PythonKinds(DataSet):
    """Windows of the standard library's tokens, each with its kind (tasks/data/python_kinds.py), for labelling.

    A window is whole logical lines, at most `length` tokens (a longer line is cut). Kinds such as `call`, `argument`
    and `target` show in what follows a name only, `attribute`, `parameter` and `import` in what precedes it: a causal
    encoder can't know the former. Split by module; no window is in two splits or twice in one. A split's modules take
    turns, 20 at a time, the next coming in where one has no more: none is more of it than the others allow.
    """

    version: ClassVar[int] = 2
    modality = "code"

    def __init__(
        self,
        *,
        length: Annotated[int, Field(ge=8)],
        train: Annotated[int, Field(gt=0)],
        valid: Annotated[int, Field(gt=0)],
        test: Annotated[int, Field(gt=0)],
    ) -> None:
        self.length, self.sizes = length, dict(zip(SPLITS, (train, valid, test), strict=True))
        self.made: dict[str, list[Example]] = {}

    def identity(self) -> list[FileFact]:
        """One fingerprint of the standard library."""
        return [fingerprint()]

    def check(self) -> None:
        """Raise DataError where this Python has no source of its library."""
        files()

    def read(self, split: str) -> list[Example]:
        """Windows: `source` the tokens, `target` their kinds, None at the end of a line."""
        if not self.made:
            seen: set[tuple[str, ...]] = set()
            self.made = {s: self._make(s, seen) for s in SPLITS}
        return self.made[split]

    def _make(self, split: str, seen: set[tuple[str, ...]]) -> list[Example]:
        examples: list[Example] = []
        for window in in_turn([_windows_of(paths, self.length) for paths in modules(split)]):
            tokens = tuple(token for token, _ in window)
            if tokens in seen:
                continue
            seen.add(tokens)
            examples.append(Example(source=list(tokens), target=[kind for _, kind in window]))
            if len(examples) == self.sizes[split]:
                return examples
        raise DataError(
            f"python_code: the {split} split has {len(examples)} windows of {self.length} tokens on this Python,"
            f" {self.sizes[split]} are asked for; lower task.data.{split}"
        )


def windows(lines: list[Line], length: int) -> Iterator[Line]:
    """Lines joined while they fit into `length` tokens; a longer line is cut."""
    window: Line = []
    for line in lines:
        for piece in (line[i : i + length] for i in range(0, len(line), length)):
            if len(window) + len(piece) > length:
                yield window
                window = []
            window = window + piece
    if window:
        yield window


def in_turn(streams: Sequence[Iterator[T]], active: int = ACTIVE) -> Iterator[T]:
    """One of each stream, then the next of each; `active` streams at a time, a new one where one has ended."""
    waiting = iter(streams)
    running = deque(itertools.islice(waiting, active))
    while running:
        stream = running.popleft()
        found = next(stream, None)
        if found is None:
            running.extendleft(itertools.islice(waiting, 1))
        else:
            yield found
            running.append(stream)


def _windows_of(paths: Sequence[Path], length: int) -> Iterator[Line]:
    for path in paths:
        yield from windows(lines_of(text_of(path), str(path)), length)


class PythonText(DataSet):
    """Files of the standard library as documents, for language modelling; sizes in characters.

    A split's modules take turns, a file each; of a file at most the first tenth of the split's size is read, and of the
    last what is left to read.
    """

    version: ClassVar[int] = 2
    modality = "code"

    def __init__(
        self,
        *,
        train: Annotated[int, Field(gt=0)],
        valid: Annotated[int, Field(gt=0)],
        test: Annotated[int, Field(gt=0)],
    ) -> None:
        self.sizes = dict(zip(SPLITS, (train, valid, test), strict=True))

    def identity(self) -> list[FileFact]:
        """One fingerprint of the standard library."""
        return [fingerprint()]

    def check(self) -> None:
        """Raise DataError where this Python has no source of its library."""
        files()

    def read(self, split: str) -> list[Example]:
        """Texts; no target."""
        examples, left = [], self.sizes[split]
        most = -(-left // 10)
        rounds = itertools.zip_longest(*modules(split))
        for path in (path for turn in rounds for path in turn if path is not None):
            text = text_of(path)[: min(most, left)]
            if text:
                examples.append(Example(source=text, target=None))
            left -= len(text)
            if not left:
                return examples
        raise DataError(
            f"python_code: the {split} split has {self.sizes[split] - left} characters on this Python, of a file at"
            f" most {most}; {self.sizes[split]} are asked for; lower task.data.{split}"
        )
