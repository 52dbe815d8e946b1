"""Texts as ids, tokenised once: of a large split the ids are kept in the cache, memory-mapped."""
# M ids of all texts

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.mapped import mapped
from tasks.vocabulary import content_hash

LARGE = 1_000_000  # characters, from which on looking up takes less time than tokenising
SOURCES = ("encodings.py", "tokenizers.py", "pretrained_tokenizer.py")  # beside this file: what decides the ids


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text as ids."""

    ids: NDArray[np.int64]  # (L,)
    words: NDArray[np.int64]  # (L,) for each id, the number of the word it comes from; -1 outside words
    characters: NDArray[np.int64]  # (L,) characters that each id stands for, up to the next id; their sum is the text


def remembered(
    recipe: Sequence[Any], texts: Sequence[str | list[str]], encode: Callable[[], list[Encoded]]
) -> list[Encoded]:
    """What `encode` makes of the texts; of LARGE ones from the cache, where they were encoded before.

    `recipe` is what the ids depend on besides the texts: class, arguments, vocabulary. The code counts, too, so that
    after a change of it everything is tokenised anew.
    """
    if sum(len(text) if isinstance(text, str) else sum(map(len, text)) for text in texts) < LARGE:
        return encode()
    key = content_hash([*recipe, _code()], texts)
    arrays = mapped(key, lambda: _flat(encode()))
    ends = np.cumsum(arrays["lengths"]).tolist()
    ids, words, characters = arrays["three"]
    return [
        Encoded(ids[start:end], words[start:end], characters[start:end])
        for start, end in zip([0, *ends], ends, strict=False)
    ]


def _flat(encoded: list[Encoded]) -> dict[str, NDArray[np.int64]]:
    """All texts end to end: lengths (N,), and ids, words and characters (3, M)."""
    lengths = np.array([len(one.ids) for one in encoded], dtype=np.int64)
    columns = ([one.ids for one in encoded], [one.words for one in encoded], [one.characters for one in encoded])
    return {"lengths": lengths, "three": np.stack([np.concatenate(column) for column in columns])}


@functools.cache
def _code() -> str:
    place = Path(__file__).parent
    return hashlib.sha256(b"".join((place / name).read_bytes() for name in SOURCES)).hexdigest()
