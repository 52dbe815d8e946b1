"""SIGMORPHON 2020, task 1: the sounds of a word from its spelling, in 15 languages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tasks.data.base import DataError, DataSet, Example, FileFact
from tasks.data.pinned import check_files, identity

CARD = "sigmorphon2020_g2p"
PARTS = {"train": "train", "valid": "dev", "test": "test"}


class GraphemeToPhoneme(DataSet):
    """Gorman et al. 2020. Source: the letters (code points) of a word, as words; target: its phones, as words."""

    modality = "text"

    def __init__(
        self,
        *,
        language: Literal[
            "ady", "arm", "bul", "dut", "fre", "geo", "gre", "hin", "hun", "ice", "jpn", "kor", "lit", "rum", "vie"
        ],
    ) -> None:
        self.files = {split: f"{language}_{part}.tsv" for split, part in PARTS.items()}

    def identity(self) -> list[FileFact]:
        """The three files of the language."""
        return identity(CARD, only=list(self.files.values()))

    def check(self) -> None:
        """They are there, or are fetched, with the right checksum."""
        check_files(CARD, only=list(self.files.values()))

    def read(self, split: str) -> Sequence[Example]:
        """Words in the order of the file. Raises DataError for a line that is not `word<TAB>phones`."""
        name = self.files[split]
        examples = []
        text = check_files(CARD, only=[name])[name].read_text(encoding="utf-8")
        for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
            word, tab, phones = line.partition("\t")
            if not word or not tab or not phones.split():
                raise DataError(f"{CARD}: {name} line {number} is not `word<TAB>phones`: {line[:40]!r}")
            examples.append(Example(source=list(word), target=phones.split()))
        return examples
