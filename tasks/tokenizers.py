"""Text to ids and back, by the `tokenizers` library; trained on the training split only, cached by content hash."""
# L positions

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from tasks.data.base import DataError, DataSet, FileFact
from tasks.encodings import Encoded, remembered
from tasks.specials import Frame, Specials
from tasks.vocabulary import cached, content_hash

PAD, UNK, BOS, EOS, SEP, MASK = range(6)  # the first ids of every vocabulary that is made here
SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>", "<sep>", "<mask>")

Text = str | list[str] | NDArray[np.int64]  # running text, words that are split already, or ids (for Ids alone)


class Tokenizer(ABC):
    """Fitted once, on training texts; then a pure function. encode() adds no special ids: tasks set frame() around.

    Words that are split already give the ids that the same words joined by spaces give.
    """

    specials: Specials = Specials(pad=PAD, unk=UNK, bos=BOS, eos=EOS, sep=SEP, mask=MASK)
    vocabulary: str | None = None  # sha256 of the tokenizer.json, once it is read, of a checkpoint's tokeniser
    segments: bool = False  # whether the two texts of a pair are told apart by a stream of types, 0 and 1

    @property
    def special_ids(self) -> frozenset[int]:
        """All ids that stand for no text."""
        return self.specials.ids

    def frame(self, parts: int) -> Frame:
        """What stands around a number of texts that are read as one: `sep` between them, unless it says otherwise."""
        return Frame(between=(self.specials.sep,))

    def identity(self) -> list[FileFact]:
        """What its vocabulary comes from besides its arguments and the task's own training texts: nothing."""
        return []

    @abstractmethod
    def fit(self, texts: Sequence[Text]) -> None:
        """Learn the vocabulary. Same texts, same vocabulary."""

    @abstractmethod
    def encode(self, texts: Sequence[Text]) -> list[Encoded]:
        """Ids of each text; an unknown piece is UNK."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special ids left out."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of ids, SPECIAL included."""


class Ids(Tokenizer):
    """Sources that are ids already, 0 <= id < `vocab_size`: they move up by len(SPECIAL); others are UNK."""

    def __init__(self, *, vocab_size: Annotated[int, Field(gt=0)]) -> None:
        self.size = vocab_size

    def fit(self, texts: Sequence[Text]) -> None:
        """Nothing to learn."""

    def encode(self, texts: Sequence[Text]) -> list[Encoded]:
        """Ids of each array of ids; one id is one word."""
        encoded = []
        for text in texts:
            if isinstance(text, str):
                raise DataError(f"tokenizer: Ids reads arrays of ids, the data has text ({text[:20]!r}...)")
            raw = np.asarray(text, dtype=np.int64)
            ids = np.where((raw >= 0) & (raw < self.size), raw + len(SPECIAL), UNK)
            encoded.append(Encoded(ids=ids, words=np.arange(len(ids)), characters=np.ones(len(ids), dtype=np.int64)))
        return encoded

    def decode(self, ids: Sequence[int]) -> str:
        """The source's own ids, joined by spaces."""
        return " ".join(str(i - len(SPECIAL)) for i in ids if i >= len(SPECIAL))

    @property
    def vocab_size(self) -> int:
        """Number of ids, SPECIAL included."""
        return self.size + len(SPECIAL)


class _Backed(Tokenizer):
    """What is common to the tokenisers that a `tokenizers.Tokenizer` stands behind."""

    backend: Backend | None = None

    @abstractmethod
    def build(self, texts: Sequence[str | list[str]]) -> Backend:
        """A fitted backend."""

    def recipe(self) -> tuple[object, ...]:
        """Arguments that the vocabulary depends on."""
        return ()

    def pieces(self, text: str | list[str]) -> tuple[list[str], list[int]]:
        """What the backend reads, as strings, and where in the text each starts; words carry the space before them."""
        if isinstance(text, str):
            return [text], [0]
        items = [word if i == 0 else " " + word for i, word in enumerate(text)]
        lengths = [len(item) for item in items]
        return items, [0, *np.cumsum(lengths[:-1], dtype=np.int64).tolist()] if items else []

    def fit(self, texts: Sequence[Text]) -> None:
        """Learn the vocabulary, or take it from the cache."""
        checked = [_text(text) for text in texts]
        self.backend = cached(content_hash([type(self).__name__, *self.recipe()], checked), lambda: self.build(checked))
        self.backend.encode_special_tokens = True  # "<pad>" in a text is text

    def encode(self, texts: Sequence[Text]) -> list[Encoded]:
        """Ids of each text; of many from the cache, where they are."""
        assert self.backend is not None, "fit first"
        checked = [_text(text) for text in texts]
        recipe = (type(self).__name__, *self.recipe(), hashlib.sha256(self.backend.to_str().encode()).hexdigest())
        return remembered(recipe, checked, lambda: self._encode(checked))

    def _encode(self, texts: Sequence[str | list[str]]) -> list[Encoded]:
        assert self.backend is not None
        encoded: list[Encoded] = []
        for start in range(0, len(texts), 4096):  # bounds the memory of the library's own objects
            chunk = texts[start : start + 4096]
            items = [self.pieces(text) for text in chunk]
            found = self.backend.encode_batch([strings for strings, _ in items], is_pretokenized=True)
            for text, (_, starts), one in zip(chunk, items, found, strict=True):
                encoded.append(self._encoded(text, starts, one.ids, one.word_ids, one.offsets))
        return encoded

    def _encoded(
        self,
        text: str | list[str],
        starts: list[int],
        ids: list[int],
        items: list[int | None],
        offsets: list[tuple[int, int]],
    ) -> Encoded:
        ids_L, items_L = np.asarray(ids, dtype=np.int64), np.asarray(items, dtype=np.int64)
        offsets_L2 = np.fromiter((end for pair in offsets for end in pair), dtype=np.int64).reshape(-1, 2)
        total = len(text) if isinstance(text, str) else sum(map(len, text)) + max(0, len(text) - 1)
        begins_L = np.asarray(starts, dtype=np.int64)[items_L] + offsets_L2[:, 0] if len(ids_L) else ids_L
        if len(begins_L):
            begins_L[0] = 0
        if isinstance(text, str):
            words_L = self.words(items_L)
        else:  # the space before a word, where it is a piece of its own, is outside words
            space_L = (items_L > 0) & (offsets_L2[:, 0] == 0) & (offsets_L2[:, 1] == 1) & self.spaced
            words_L = np.where(space_L, -1, items_L)
        return Encoded(
            ids=np.where(ids_L < len(SPECIAL), UNK, ids_L),  # a text can't name a special id
            words=words_L,
            characters=np.diff(begins_L, append=total),
        )

    spaced = True  # words of a list carry the space before them

    def words(self, items_L: NDArray[np.int64]) -> NDArray[np.int64]:
        """Word numbers in running text: unknown here."""
        return np.full_like(items_L, -1)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids."""
        assert self.backend is not None, "fit first"
        return str(self.backend.decode([int(i) for i in ids if i >= len(SPECIAL)]))

    @property
    def vocab_size(self) -> int:
        """Number of ids, SPECIAL included."""
        assert self.backend is not None, "fit first"
        return int(self.backend.get_vocab_size())


class Words(_Backed):
    """One id a word: whitespace separates, or the data's own list. The most frequent first, ties by the alphabet.

    A word of fewer than `min_count` in training is UNK. With 1 no training text has an UNK, so that its vector stays as
    it was drawn and an unknown word in testing is noise: right for closed vocabularies (generated data); with 2 the
    words seen once teach what to make of one never seen.
    """

    spaced = False

    def __init__(self, *, min_count: Annotated[int, Field(ge=1)], max_size: Annotated[int, Field(ge=7)] | None) -> None:
        self.min_count, self.max_size = min_count, max_size

    def recipe(self) -> tuple[object, ...]:
        """Both arguments."""
        return self.min_count, self.max_size

    def pieces(self, text: str | list[str]) -> tuple[list[str], list[int]]:
        """Words; an empty one stands as <unk>, so that none is lost."""
        if isinstance(text, str):
            found = list(re.finditer(r"\S+", text))
            return [m.group() for m in found], [m.start() for m in found]
        starts = [0, *np.cumsum([len(word) + 1 for word in text[:-1]], dtype=np.int64).tolist()] if text else []
        return [word or SPECIAL[UNK] for word in text], starts

    def words(self, items_L: NDArray[np.int64]) -> NDArray[np.int64]:
        """A word an item."""
        return items_L

    def build(self, texts: Sequence[str | list[str]]) -> Backend:
        """Count, cut, number."""
        counts = Counter(word for text in texts for word in self.pieces(text)[0] if word not in SPECIAL)
        kept = sorted((w for w, n in counts.items() if n >= self.min_count), key=lambda w: (-counts[w], w))
        return _word_level(kept if self.max_size is None else kept[: self.max_size - len(SPECIAL)])


class Characters(_Backed):
    """One id a character (code point) of the training texts, in the order of code points."""

    def __init__(self) -> None: ...

    def build(self, texts: Sequence[str | list[str]]) -> Backend:
        """The set of characters."""
        backend = _word_level(sorted(set().union(*(item for text in texts for item in self.pieces(text)[0]))))
        backend.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
        backend.decoder = decoders.Fuse()
        return backend


class Bytes(_Backed):
    """One id a byte of UTF-8: id = byte + len(SPECIAL). Nothing is unknown."""

    def __init__(self) -> None:
        self.backend = self.build([])

    def fit(self, texts: Sequence[Text]) -> None:
        """Nothing to learn."""

    def build(self, texts: Sequence[str | list[str]]) -> Backend:
        """The 256 bytes, in their printable names (those of GPT-2's vocabulary)."""
        names = [*SPECIAL, *_byte_names()]
        backend = Backend(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
        return _byte_level(backend)


class Subword(_Backed):
    """Byte-level BPE (Radford et al. 2019; Sennrich et al. 2016, arXiv 1508.07909) of `vocab_size` ids at most."""

    def __init__(self, *, vocab_size: Annotated[int, Field(ge=262)]) -> None:
        self.size = vocab_size

    def recipe(self) -> tuple[object, ...]:
        """The size asked for."""
        return (self.size,)

    def build(self, texts: Sequence[str | list[str]]) -> Backend:
        """Learn merges; all 256 bytes are in the vocabulary, so that nothing is unknown."""
        backend = _byte_level(Backend(models.BPE()))
        trainer = trainers.BpeTrainer(
            vocab_size=self.size, special_tokens=list(SPECIAL), initial_alphabet=_byte_names(), show_progress=False
        )
        items: Iterator[str] = (item for text in texts for item in self.pieces(text)[0])
        backend.train_from_iterator(items, trainer)
        return backend


def _text(text: Text) -> str | list[str]:
    if isinstance(text, np.ndarray):
        raise DataError("tokenizer: the data's sources are ids; use tasks.tokenizers.Ids")
    return text


def _word_level(words: Sequence[str]) -> Backend:
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words])}
    return Backend(models.WordLevel(vocabulary, unk_token=SPECIAL[UNK]))


def _byte_level(backend: Backend) -> Backend:
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    return backend


def _byte_names() -> list[str]:
    """A printable character for each byte, in the order of bytes: itself where it prints, else one above 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names, above = [], 256
    for byte in range(256):
        names.append(chr(byte) if byte in printable else chr(above))
        above += byte not in printable
    return names


class FittedOn(Tokenizer):
    """A tokeniser whose vocabulary is learnt on the training texts of another data set, so that tasks share it.

    What begins with the weights of a run on other data has its ids by this.
    """

    def __init__(self, *, tokenizer: Tokenizer, data: DataSet) -> None:
        self.inner, self.data = tokenizer, data

    def identity(self) -> list[FileFact]:
        """The files of the other data set."""
        return self.data.identity()

    def fit(self, texts: Sequence[Text]) -> None:
        """Learn the vocabulary of the other data set; `texts` play no part. Raises DataError for one without text."""
        self.data.check()
        found: list[Text] = []
        for example in self.data.read("train"):
            parts = example.source if isinstance(example.source, tuple) else (example.source,)
            found += parts
        self.inner.fit(found)
        self.specials, self.vocabulary, self.segments = self.inner.specials, self.inner.vocabulary, self.inner.segments

    def frame(self, parts: int) -> Frame:
        """As the tokeniser within."""
        return self.inner.frame(parts)

    def encode(self, texts: Sequence[Text]) -> list[Encoded]:
        """Ids of each text."""
        return self.inner.encode(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids."""
        return self.inner.decode(ids)

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self.inner.vocab_size
