"""CoNLL-2000: sentences of the Wall Street Journal, a chunk tag for each word."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from typing import ClassVar

from tasks.data.base import Example
from tasks.data.pinned_set import PinnedSet
from tasks.data.tagged import last_tenth, sentences


class CoNLL2000(PinnedSet):
    """Tjong Kim Sang and Buchholz 2000. Source: words. Target: chunk tags of IOB2, one a word; parts of speech unused.

    The set has no validation part: it is the last tenth of the sentences of train.
    """

    pinned: ClassVar[str] = "conll2000"
    modality = "text"
    overlap: ClassVar[str] = "12 different sentences of test and 29 of valid are also in train"

    def __init__(self) -> None: ...

    def read(self, split: str) -> Sequence[Example]:
        """Sentences in the order of the file."""
        name = "test" if split == "test" else "train"
        with zipfile.ZipFile(self.located()["conll2000.zip"]) as archive:
            lines = archive.read(f"conll2000/{name}.txt").decode("utf-8").splitlines()
        found = sentences(lines, separator=None, columns=3, name=f"conll2000/{name}.txt")
        return found if split == "test" else last_tenth(found, split)
