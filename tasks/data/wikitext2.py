"""A small part of WikiText-2: articles of Wikipedia as running text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from tasks.data.base import Example
from tasks.data.pinned_set import PinnedSet

TITLE = re.compile(r" = [^=]+ = ")  # a heading of the first order; sections have more signs


class WikiText2Small(PinnedSet):
    """Merity et al. 2017, without its training file, so that no figure of it can be compared with a paper's.

    `train`: the articles of the set's validation file but for the last tenth of them, which is `valid`; `test`: the
    set's own. An article is a document of one line a paragraph, words as the file has them, `<unk>` for rare ones.
    """

    pinned: ClassVar[str] = "wikitext2"
    modality = "text"

    def __init__(self) -> None: ...

    def read(self, split: str) -> Sequence[Example]:
        """Articles in the order of the file; no target."""
        lines = self.located()["test.txt" if split == "test" else "valid.txt"].read_text(encoding="utf-8").split("\n")
        articles: list[list[str]] = []
        for line in lines:
            if TITLE.fullmatch(line) or not articles:
                articles.append([])
            if line.strip():
                articles[-1].append(line.strip())
        documents = [Example(source="\n".join(article), target=None) for article in articles if article]
        cut = len(documents) * 9 // 10
        return {"train": documents[:cut], "valid": documents[cut:], "test": documents}[split]
