"""Beginnings of test sources: how much is left of each, and that nothing else of the data set changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest

from tasks.data.base import SPLITS, DataError, DataSet, Example, FileFact, Stream
from tasks.data.prefix import Prefix


class Given(DataSet):
    """The same sources in every split."""

    version, overlap, independent_valid = 7, "the same in all", False
    modality = "text"

    def __init__(self, *sources: Any) -> None:
        self.rows = [Example(source=source, target=n) for n, source in enumerate(sources)]

    def identity(self) -> list[FileFact]:
        return [FileFact(name="a", url="generated:a", sha256="0" * 64)]

    def check(self) -> None:
        raise DataError("asked")

    def read(self, split: str) -> Sequence[Example]:
        return self.rows


class Streamed(Given):
    """With a stream beside each word."""

    streams = {"tag": Stream()}


def left(source: Any, share: float, limit: int | None = None, of: Literal["source", "limit"] = "source") -> Any:
    return Prefix(data=Given(source), share=share, of=of, limit=limit).read("test")[0].source


@pytest.mark.parametrize(
    "length, share, limit, kept",
    [
        (10, 0.7, None, 7),
        (100, 0.07, None, 7),
        (50, 0.14, None, 7),
        (10, 0.71, None, 8),
        (3, 0.01, None, 1),
        (10, 1.0, None, 10),
        (10, 0.5, 4, 2),
        (2, 0.5, 4, 1),
    ],
)
def test_positions_that_are_left(length: int, share: float, limit: int | None, kept: int) -> None:
    channels = np.arange(2 * length, dtype=np.float32).reshape(length, 2)
    found = left(channels, share, limit)
    assert np.array_equal(found, channels[:kept])
    words = [f"w{n}" for n in range(length)]
    assert left(words, share, limit) == words[:kept]
    assert left(" ".join(words), share, limit) == " ".join(words[:kept])


def test_share_of_a_window() -> None:
    words = [f"w{n}" for n in range(10)]
    kept = {share: len(left(words, share, 8, "limit")) for share in (0.1, 0.5, 0.68, 1.0)}
    assert kept == {0.1: 1, 0.5: 4, 0.68: 6, 1.0: 8}
    assert left(words[:3], 0.5, 8, "limit") == words[:3]
    with pytest.raises(ValueError, match="of: limit"):
        left(words, 0.5, None, "limit")


def test_a_whole_text_keeps_its_white_space() -> None:
    assert left("a  b\nc ", 1.0) == "a  b\nc "


def test_only_the_test_is_cut_and_all_else_is_the_others() -> None:
    inner = Given("a b c d", "e f")
    data = Prefix(data=inner, share=0.5, of="source", limit=None)
    assert [[example.source for example in data.read(split)] for split in SPLITS] == [
        ["a b c d", "e f"],
        ["a b c d", "e f"],
        ["a b", "e"],
    ]
    assert [example.target for example in data.read("test")] == [0, 1]
    assert data.identity() == inner.identity()
    facts = (data.version, data.overlap, data.independent_valid, data.modality)
    assert facts == (7, "the same in all", False, "text")
    with pytest.raises(DataError, match="asked"):
        data.check()


def test_what_has_no_beginning_is_refused() -> None:
    with pytest.raises(ValueError, match="tag"):
        Prefix(data=Streamed("a b"), share=0.5, of="source", limit=None)
    with pytest.raises(DataError, match="test row 0: a pair"):
        left(("a b", "c"), 0.5)
