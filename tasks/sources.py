"""Sources of examples -> rows that are ready to be padded: text by a tokeniser, channels as they are."""
# B batch, L positions, C channels

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.base import Graph, InputSpec, Sequences
from tasks.data.base import DataError, Example
from tasks.padding import Ragged, Repeated
from tasks.streams import Streams
from tasks.tokenizers import Tokenizer

NO_WORDS = np.array([-1])  # words of a row that has none

STAND_IN = 64  # vocabulary or channels of an outline, before data is read


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The sources of one split."""

    rows: Ragged  # ids (L,) int64 or channels (L, C) float32
    truncated: int  # rows that were cut to max_length, or of which a stream was cut to its length
    streams: dict[str, Ragged | Repeated] = field(default_factory=dict)  # the data set's own
    types: Ragged | None = None  # of joined pairs, for a tokeniser with segments: (L,) 0 for the first text, then 1

    def sequences(self, rows: NDArray[np.int64]) -> Sequences:
        """Rows by number as what an encoder reads, (B, L)."""
        found = self.rows.sequences(rows)
        every = self.streams | ({} if self.types is None else {"type": self.types})
        return replace(found, streams={name: stream.sequences(rows) for name, stream in every.items()})


def outline(
    tokenizer: Tokenizer | None, max_length: int, streams: Streams | None = None, graph: Graph | None = None
) -> InputSpec:
    """A spec with stand-ins, for Task.outline."""
    further = streams.outline() if streams else {}
    if tokenizer is None:
        channels = STAND_IN if graph is None else graph.nodes * graph.width
        return InputSpec(max_length=max_length, channels=channels, graph=graph, streams=further)
    return InputSpec(max_length=max_length, vocab_size=STAND_IN, streams=further)


def spec(
    tokenizer: Tokenizer | None,
    max_length: int,
    sources: Sources,
    streams: Streams | None = None,
    graph: Graph | None = None,
) -> InputSpec:
    """The spec of what is fed, once the training split is read."""
    further = streams.specs() if streams else {}
    if tokenizer is None:
        channels = sources.rows.values.shape[1]
        return InputSpec(max_length=max_length, channels=channels, graph=graph, streams=further)
    further |= {} if sources.types is None else {"type": InputSpec(max_length=max_length, vocab_size=2)}
    return InputSpec(
        max_length=max_length, vocab_size=tokenizer.vocab_size, vocabulary=tokenizer.vocabulary, streams=further
    )


def encode(
    examples: Sequence[Example],
    tokenizer: Tokenizer | None,
    max_length: int,
    split: str,
    streams: Streams | None = None,
    *,
    end: int | None = None,
) -> Sources:
    """Sources cut to `max_length` positions (the first ones stay), with a count of those cut.

    `end`: an id that every text is to end with. A pair of texts is joined into one row, see `join`. An empty text is
    one unknown piece, so that every row has a real position. Raises DataError for channels that are empty, not (L, C),
    not finite or of unequal C, for text without a tokeniser, and for examples whose streams aren't those of `streams`.
    """
    streams = streams or Streams({}, max_length)
    if tokenizer is not None:
        if any(isinstance(example.source, tuple) for example in examples):
            beside = streams.encode(examples, [NO_WORDS] * len(examples), split)  # of words a pair has none
            pairs = join([example.source for example in examples], tokenizer, max_length, split, end=end)
            return replace(pairs, streams=beside)
        frame = tokenizer.frame(1) if end is None else tokenizer.frame(1).ended(end)
        room = frame.room(max_length)
        once = {id(example.source): example.source for example in examples}  # a molecule may stand in a thousand rows
        of = dict(zip(once, tokenizer.encode(list(once.values())), strict=True))
        encoded = [of[id(example.source)] for example in examples]
        rows = Ragged((_or_unknown(frame.around(one.ids[:room]), tokenizer) for one in encoded), np.int64)
        words = [_or_none(frame.filled(-1).around(one.words[:room])) for one in encoded]
        further = streams.encode(examples, words, split)
        cut = np.array([len(one.ids) > room for one in encoded], dtype=np.bool_)
        return Sources(rows=rows, truncated=int((cut | streams.cut[split]).sum()), streams=further)
    arrays = [_channels(example.source, split, row) for row, example in enumerate(examples)]
    widths = {array.shape[1] for array in arrays}
    if len(widths) > 1:
        raise DataError(f"{split}: rows have unequal numbers of channels: {sorted(widths)}")
    further = streams.encode(examples, [np.arange(min(len(array), max_length)) for array in arrays], split)
    longer = np.array([len(array) > max_length for array in arrays], dtype=np.bool_)
    return Sources(
        rows=Ragged((array[:max_length] for array in arrays), np.float32),
        truncated=int((longer | streams.cut[split]).sum()),
        streams=further,
    )


def texts(source: Any) -> tuple[Any, ...]:
    """The texts of a source: the parts of a tuple, else the source itself."""
    return source if isinstance(source, tuple) else (source,)


def join(
    pairs: Sequence[tuple[Any, ...]], tokenizer: Tokenizer, max_length: int, split: str, *, end: int | None = None
) -> Sources:
    """Pairs of texts, each as one row of at most `max_length` ids: of two that don't fit the longer is cut first.

    Raises DataError for a row that is no pair.
    """
    for row, pair in enumerate(pairs):
        if not isinstance(pair, tuple) or len(pair) != 2:
            found = len(pair) if isinstance(pair, tuple) else 1
            raise DataError(f"{split} row {row}: {found} sources, where others are pairs")
    frame = tokenizer.frame(2) if end is None else tokenizer.frame(2).ended(end)
    room = frame.room(max_length) - len(frame.between)
    if room < 2:
        raise DataError(f"task.max_length: {max_length} leaves no room for two texts; raise it")
    left, right = (tokenizer.encode([pair[side] for pair in pairs]) for side in (0, 1))
    rows, types, cut = [], [], 0
    for a, b in zip(left, right, strict=True):
        u, v = _or_unknown(a.ids, tokenizer), _or_unknown(b.ids, tokenizer)
        keep_u, keep_v = shares(len(u), len(v), room)
        cut += (keep_u, keep_v) != (len(u), len(v))
        rows.append(frame.around(frame.join([u[:keep_u], v[:keep_v]])))
        first = len(frame.before) + keep_u + len(frame.between)
        types.append(np.arange(len(rows[-1])) >= first)
    return Sources(
        rows=Ragged(rows, np.int64), truncated=cut, types=Ragged(types, np.int64) if tokenizer.segments else None
    )


def shares(left: int, right: int, room: int) -> tuple[int, int]:
    """How many positions each side keeps of `room` >= 2: the longer side is cut first."""
    if left + right <= room:
        return left, right
    keep_left = min(left, max(room - right, (room + 1) // 2))
    return keep_left, min(right, room - keep_left)


def _or_unknown(ids: NDArray[np.int64], tokenizer: Tokenizer) -> NDArray[np.int64]:
    return ids if len(ids) else np.array([tokenizer.specials.unk])


def _or_none(words: NDArray[np.int64]) -> NDArray[np.int64]:
    return words if len(words) else NO_WORDS


def _channels(source: object, split: str, row: int) -> np.ndarray:
    if isinstance(source, str | list):
        raise DataError(f"{split} row {row}: the source is text ({str(source)[:20]!r}...); set task.tokenizer")
    array = np.asarray(source)
    if array.ndim != 2 or not array.size:
        raise DataError(f"{split} row {row}: channels must be (positions, channels), both >= 1; got {array.shape}")
    if not np.isfinite(array).all():
        raise DataError(f"{split} row {row}: channels hold a value that is not finite")
    return array
