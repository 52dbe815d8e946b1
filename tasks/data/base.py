"""The contract of data sets: examples per split, and the facts that let a run be told from another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from encoders.base import Graph

SPLITS = ("train", "valid", "test")


class DataError(ValueError):
    """Data that is missing, damaged or unfit; its one or two lines are for the user. The process ends with code 2."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One row of a data set, in the data set's own terms. What `source` and `target` are is the kind's business.

    source: str; list of words; array of ids (L,) int64 or of channels (L, C) float32; for a pair or a choice among
    candidates a tuple of such. target: class name, list of tags (one a word), float, str, list of words, array.
    """

    source: Any
    target: Any
    streams: Mapping[str, Any] = field(default_factory=dict)
    where: str = field(default="", compare=False)  # file and line that it comes from, for messages; "" of no file
    line: int | None = field(default=None, compare=False)  # of a user's own data: its line, or row, by the same count

    def place(self, split: str, row: int) -> str:
        """How a message names it: `reviews.csv line 7 (test)`, or `test row 5` where it is of no file."""
        return f"{self.where} ({split})" if self.where else f"{split} row {row}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """What a named stream holds beside the source, a value for each word or position of it (part of speech, time gap).

    `vocab_size`: ids, 0 to one less; `channels`: that many numbers; neither: names, numbered as training has them.
    `length`: it has positions of its own, from 1 to so many that are fed, whatever the source is (a protein beside a
    molecule); a vector is one position of many channels.
    """

    vocab_size: int | None = None
    channels: int | None = None
    length: int | None = None

    def __post_init__(self) -> None:
        if self.vocab_size is not None and self.channels is not None:
            raise ValueError("Stream: set vocab_size or channels, not both")
        if self.length is not None and self.length < 1:
            raise ValueError(f"Stream: length {self.length}; it has one position at least")

    @property
    def holds_names(self) -> bool:
        """Whether it holds names."""
        return self.vocab_size is None and self.channels is None


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFact:
    """Where bytes come from: one file, or one generator with its parameters (url then says `generated:<name>`)."""

    name: str
    url: str
    sha256: str  # of the file's bytes; of the generated examples' canonical JSON for a generator
    size: int | None = None  # bytes


@runtime_checkable
class Identified(Protocol):
    """What is made of files: a data set, or a part of a task that reads one."""

    def identity(self) -> list[FileFact]:
        """The files, by their checksums; [] for none."""


class DataSet(ABC):
    """Examples per split. Constructing one reads nothing; keyword arguments only, no defaults (they are in YAML)."""

    version: ClassVar[int] = 1  # goes up whenever the examples change
    overlap: ClassVar[str] = ""  # why splits may share examples, where they do; "" promises that they share none
    independent_valid: ClassVar[bool] = True  # False: nothing may be chosen by `valid`, which training has seen
    test_only: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {}
    )  # arguments that `read("test")` alone depends on, each
    # with the value of the run that trains: a run that differs from it in these alone takes its weights
    streams: Mapping[str, Stream] = MappingProxyType({})  # what every example has in `streams`, known without reading
    graph: Graph | None = (
        None  # whose the channels of a source are, where they are of a graph's nodes; known without reading
    )
    modality: str  # text, code, items, time series, speech, image, synthetic, ... : a filter of the board

    @abstractmethod
    def identity(self) -> list[FileFact]:
        """What determines the examples besides this object's arguments, known before anything is read.

        Pinned sets give their cards' files; a user's own files are hashed; a generator gives [] (its arguments and
        `version` say all). Raises DataError for a file that is missing.
        """

    @abstractmethod
    def check(self) -> None:
        """Raise DataError if files are missing or not the right ones (existence, sha256); fetch what is pinned."""

    @abstractmethod
    def read(self, split: str) -> Sequence[Example]:
        """The examples of one of SPLITS, always in the same order. Raises DataError for malformed content."""
