"""WNUT-17: tweets and comments, a tag of a novel or rare entity for each token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tasks.data.base import Example
from tasks.data.pinned_set import PinnedSet
from tasks.data.tagged import sentences

FILES = {"train": "wnut17train.conll", "valid": "emerging.dev.conll", "test": "emerging.test.annotated"}


class WNUT17(PinnedSet):
    """Derczynski et al. 2017. Source: tokens. Target: tags of IOB2 (six types), one a token."""

    pinned: ClassVar[str] = "wnut17"
    modality = "text"

    def __init__(self) -> None: ...

    def read(self, split: str) -> Sequence[Example]:
        """Posts in the order of the files."""
        lines = self.located()[FILES[split]].read_text(encoding="utf-8").split("\n")
        return sentences(lines, separator="\t", columns=2, name=FILES[split])
