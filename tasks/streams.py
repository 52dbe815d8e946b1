"""Named streams beside a source: for encoders that read more than one sequence."""
# W words of a source, L positions, C channels

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.base import InputSpec
from tasks.data.base import DataError, Example, Stream
from tasks.padding import Ragged, Repeated

NONE, UNKNOWN = 0, 1  # ids: of a position that stands for no word, and of a name that training doesn't have
STAND_IN = 64  # names of an outline, before data is read


class Streams:
    """The streams that a data set declares, with the vocabularies of those that hold names.

    A word's value stands at every position that the word is cut into; positions outside words (special ids) have id 0,
    or zeros. Names are numbered from 2 on, in the order of the alphabet; ids move up by one. A stream with a length of
    its own is fed as it is, its first `length` positions; `cut` says of which rows it has more.
    """

    def __init__(self, declared: Mapping[str, Stream], max_length: int) -> None:
        self.declared, self.max_length = dict(declared), max_length
        self.names: dict[str, dict[str, int]] = {}
        self.cut: dict[str, NDArray[np.bool_]] = {}  # split -> (N,) rows of which a stream is longer than its length

    def outline(self) -> dict[str, InputSpec]:
        """Specs with stand-ins for vocabularies that are not known yet."""
        return {name: self._spec(stream, STAND_IN) for name, stream in self.declared.items()}

    def fit(self, examples: Sequence[Example]) -> None:
        """Vocabularies from the training split."""
        for name, stream in self.declared.items():
            if stream.holds_names:
                once = {id(given): given for given in (example.streams.get(name, ()) for example in examples)}
                found = sorted({value for given in once.values() for value in given})
                self.names[name] = {value: UNKNOWN + 1 + i for i, value in enumerate(found)}

    def specs(self) -> dict[str, InputSpec]:
        """What is fed, once fitted."""
        return {name: self._spec(stream, len(self.names.get(name, ()))) for name, stream in self.declared.items()}

    def _spec(self, stream: Stream, names: int) -> InputSpec:
        length = stream.length or self.max_length
        if stream.channels is not None:
            return InputSpec(max_length=length, channels=stream.channels)
        size = 2 + names if stream.vocab_size is None else 1 + stream.vocab_size
        return InputSpec(max_length=length, vocab_size=size)

    def encode(
        self, examples: Sequence[Example], words: Sequence[NDArray[np.int64]], split: str
    ) -> dict[str, Ragged | Repeated]:
        """Rows (L,) int64 or (L, C) float32 by name; `words` has each position's word, -1 outside words.

        Raises DataError for streams that are not those declared, or not one value a word, and for values out of range.
        """
        beside = [name for name, stream in self.declared.items() if stream.length is None]
        rows: dict[str, list[NDArray[Any]]] = {name: [] for name in beside}
        self.cut[split] = np.zeros(len(examples), dtype=np.bool_)
        for row, (example, word_L) in enumerate(zip(examples, words, strict=True)):
            place = example.place(split, row)
            if set(example.streams) != set(self.declared):
                raise DataError(
                    f"{place}: has streams {sorted(example.streams)}, its data set declares {sorted(self.declared)}"
                )
            if beside and isinstance(example.source, str | tuple):
                raise DataError(
                    f"{place}: streams go with a source of words or an array; set task.data.source_type=words"
                )
            for name in beside:
                values = self._values(name, example.streams[name], len(example.source), place)
                picked = np.zeros((len(word_L), *values.shape[1:]), dtype=values.dtype)
                picked[word_L >= 0] = values[word_L[word_L >= 0]]
                rows[name].append(picked)
        own = {name: self._own(name, examples, split) for name in self.declared if name not in rows}
        return {name: Ragged(found, found[0].dtype) for name, found in rows.items()} | own

    def _own(self, name: str, examples: Sequence[Example], split: str) -> Repeated:
        """The rows of a stream with positions of its own."""
        stream = self.declared[name]

        def values(given: Any, row: int) -> NDArray[Any]:
            place = examples[row].place(split, row)
            if not len(given):
                raise DataError(f"{place}: the stream {name} has no position")
            return self._values(name, given, len(given), place)[: stream.length]

        given = [example.streams[name] for example in examples]
        self.cut[split] |= np.array([len(one) > (stream.length or 0) for one in given], dtype=np.bool_)
        return Repeated(given, values, np.int64 if stream.channels is None else np.float32)

    def _values(self, name: str, given: Any, size: int, place: str) -> NDArray[Any]:
        """(W,) int64 or (W, C) float32, for `size` words."""
        stream = self.declared[name]
        if len(given) != size:
            raise DataError(f"{place}: the stream {name} has {len(given)} values for {size} words")
        if stream.holds_names:
            return np.array([self.names[name].get(value, UNKNOWN) for value in given], dtype=np.int64)
        if not size:
            return np.zeros(0, np.int64) if stream.channels is None else np.zeros((0, stream.channels), np.float32)
        array = _array(given)
        if stream.channels is not None:
            if array.dtype.kind not in "iufb":
                raise DataError(f"{place}: the stream {name} needs {stream.channels} finite numbers a word")
            numbers = array.astype(np.float32).reshape(size, -1)
            if numbers.shape[1] != stream.channels or not np.isfinite(numbers).all():
                raise DataError(f"{place}: the stream {name} needs {stream.channels} finite numbers a word")
            return numbers
        assert stream.vocab_size is not None
        mixed = not isinstance(given, np.ndarray) and any(isinstance(value, bool) for value in given)
        if array.dtype.kind not in "iu" or array.ndim != 1 or mixed:  # [1, true] is an array of whole numbers
            raise DataError(
                f"{place}: the stream {name} needs an id a word, a whole number from 0 to {stream.vocab_size - 1}"
            )
        if array.min() < 0 or array.max() >= stream.vocab_size:
            wrong = array.min() if array.min() < 0 else array.max()
            raise DataError(f"{place}: the stream {name} holds {wrong}; ids are 0 to {stream.vocab_size - 1}")
        return array.astype(np.int64) + 1


def _array(given: Any) -> NDArray[Any]:
    """The values as an array, one of objects where they are of unlike shapes; the caller looks at its kind."""
    try:
        return np.asarray(given)
    except ValueError:
        return np.array([None] * len(given), dtype=object)
