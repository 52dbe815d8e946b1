"""Another data set's texts in blocks of equal length, in the test in longer ones: what is beyond the trained length?"""
# L characters or words

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field

from tasks.data.base import DataError, DataSet, Example, FileFact


class Blocks(DataSet):
    """Documents cut into blocks of `length` (characters of a text, words of a list) that don't overlap, each an example
    of its own; in the test of `times` x `length`, with the weights of one training (`test_only`).

    An example's target is how many of its last tokens are scored by themselves, too: `end`, and 0 in what is left over
    at the end of a document, which is shorter and kept. So a language model whose `max_length` is that of the longest
    blocks has each of them in one window. Raises ValueError for data with streams, and for an end beyond the length.
    """

    test_only = MappingProxyType({"times": 1})

    def __init__(
        self,
        *,
        data: DataSet,
        length: Annotated[int, Field(gt=0)],
        times: Annotated[int, Field(gt=0)],
        end: Annotated[int, Field(gt=0)],
    ) -> None:
        if data.streams:
            raise ValueError(f"data: its streams ({', '.join(sorted(data.streams))}) can't be cut with the source")
        if end > length:
            raise ValueError(f"end: {end} of blocks of {length}; take at most as many")
        self.data, self.length, self.times, self.end = data, length, times, end
        self.version = data.version  # type: ignore[misc]  # of the examples, which are its own
        self.overlap, self.independent_valid = data.overlap, data.independent_valid  # type: ignore[misc]
        self.modality = data.modality

    def identity(self) -> list[FileFact]:
        """The files of the other one."""
        return self.data.identity()

    def check(self) -> None:
        """As the other one."""
        self.data.check()

    def read(self, split: str) -> Sequence[Example]:
        """Blocks, in the order of the documents. Raises DataError for what is no text and no list of words."""
        length = self.length * (self.times if split == "test" else 1)
        found = []
        for row, document in enumerate(self.data.read(split)):
            source: Any = document.source
            if not isinstance(source, str | list):
                raise DataError(
                    f"{document.place(split, row)}: {type(source).__name__} has no blocks; texts and words do"
                )
            for begin in range(0, len(source), length):
                block = source[begin : begin + length]
                found.append(Example(source=block, target=self.end if len(block) == length else 0))
        return found
