"""MR, SUBJ and TREC: sentences with a class in front, as research on sentence classification uses them."""
# N sentences

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tasks.data.base import DataError, DataSet, Example, FileFact
from tasks.data.pinned import check_files, identity

FOLDS = 10
CLASSES = {
    "mr": {"0": "negative", "1": "positive"},
    "subj": {"0": "subjective", "1": "objective"},
    "trec": {
        "0": "description",
        "1": "entity",
        "2": "abbreviation",
        "3": "human",
        "4": "location",
        "5": "number",
    },
}


class FoldedSentences(DataSet):
    """MR (Pang and Lee 2005) or SUBJ (Pang and Lee 2004). Source: str. Target: class name.

    No split is published; the field reports the mean over ten folds. The N different sentences, ordered by a hash of
    their text, are cut into ten folds of equal size, so that equal sentences are in one: `fold` tests, the next one
    (after the last the first) validates, eight train. Published folds were random and are not known.
    """

    modality = "text"

    def __init__(self, *, name: Literal["mr", "subj"], fold: Annotated[int, Field(ge=0, lt=FOLDS)]) -> None:
        self.name, self.fold = name, fold
        self.file = {"mr": "rt-polarity.all", "subj": "subj.all"}[name]

    def identity(self) -> list[FileFact]:
        """The one file."""
        return identity(self.name)

    def check(self) -> None:
        """It is there, or is fetched, with the right checksum."""
        check_files(self.name)

    def read(self, split: str) -> Sequence[Example]:
        """The sentences of the split's folds, in the order of the file."""
        examples = read_sentences(self.name, self.file)
        fold_of = folds([example.source for example in examples])
        test, valid = self.fold, (self.fold + 1) % FOLDS
        others = set(range(FOLDS)) - {test, valid}
        wanted = {"train": others, "valid": {valid}, "test": {test}}[split]
        return [example for example in examples if fold_of[example.source] in wanted]


class TREC(DataSet):
    """Questions by what they ask for, six types (Li and Roth 2002). Source: str. Target: class name.

    The published test part; of the different training questions, ordered by a hash of their text, the first tenth
    validates.
    """

    modality = "text"
    overlap: ClassVar[str] = "ten questions of test are also in train or valid"

    def __init__(self) -> None: ...

    def identity(self) -> list[FileFact]:
        """The files of both parts."""
        return identity("trec")

    def check(self) -> None:
        """They are there, or are fetched, with the right checksum."""
        check_files("trec")

    def read(self, split: str) -> Sequence[Example]:
        """Questions in the order of their file."""
        if split == "test":
            return read_sentences("trec", "TREC.test.all")
        examples = read_sentences("trec", "TREC.train.all")
        fold_of = folds([example.source for example in examples])
        return [example for example in examples if (fold_of[example.source] == 0) == (split == "valid")]


def folds(sentences: Sequence[str]) -> dict[str, int]:
    """The fold, 0 to 9, of each different sentence: by its place in the order of the sentences' hashes."""
    order = sorted(set(sentences), key=lambda text: hashlib.sha256(text.encode()).digest())
    return {text: place * FOLDS // len(order) for place, text in enumerate(order)}


def read_sentences(name: str, file: str) -> list[Example]:
    """All rows of a file of `label sentence` lines. Raises DataError with the line of the first that is none."""
    names = CLASSES[name]
    examples = []
    text = check_files(name)[file].read_bytes().decode("iso-8859-1")
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):  # \x85 is no line end here
        label, space, sentence = line.partition(" ")
        if label not in names or not space or not sentence.strip():
            raise DataError(f"{name}: {file} line {number} is not `label sentence`: {line[:40]!r}")
        examples.append(Example(source=sentence.strip(), target=names[label]))
    return examples
