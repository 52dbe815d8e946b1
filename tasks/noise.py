"""Noises of denoising pretraining: sentences permuted; words masked, deleted, infilled, inserted; rows rotated."""
# L tokens of a row, S spans, V vocabulary

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.tokenizers import Tokenizer

HIDING = ("mask", "delete", "infill")  # three fates of the same words
KINDS = ("permute", *HIDING, "insert", "rotate", "blank")
RAREST = 1e-7  # probability at which the table of span lengths ends

Tokens = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """What noise has to know of ids."""

    mask: int
    ordinary: Tokens  # what a random token is drawn from: no special ids
    begins: NDArray[np.bool_]  # (V,) whether a word begins with the id
    stops: NDArray[np.bool_]  # (V,) whether it is a full stop

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """Of a fitted tokeniser.

        An id begins a word where it brings white space before its text; special ids do, too (UNK is a word). Where no
        id does (characters without spaces), each token is a word.
        """
        ordinary = [i for i in range(tokenizer.vocab_size) if i not in tokenizer.special_ids]
        before = next((i for i in ordinary if (text := tokenizer.decode([i])) and not text[-1].isspace()), 0)
        length = len(tokenizer.decode([before]))
        tails = [tokenizer.decode([before, i])[length:] for i in ordinary]
        spaced = np.array([tail[:1].isspace() for tail in tails], dtype=bool)
        begins, stops = np.ones(tokenizer.vocab_size, dtype=bool), np.zeros(tokenizer.vocab_size, dtype=bool)
        begins[ordinary] = spaced if spaced.any() else True
        stops[ordinary] = [tail.strip() == "." for tail in tails]
        return cls(mask=tokenizer.specials.mask, ordinary=np.array(ordinary), begins=begins, stops=stops)


class Noise:
    """What becomes of a row of tokens (Lewis et al. 2020, BART, arXiv 1910.13461, section 2.2 and figure 2).

    `kind`: `none`, or one or several of these joined by `+`, applied in this order, as fairseq's DenoisingDataset does:
    - `permute`: of n sentences ceil(`sentences` n) are permuted among themselves; one ends at a full stop that follows
      none, the last one with the row. What follows the first of several full stops at the row's end stays there.
    - `mask`, `delete`: ceil(`share` n) of n words become one MASK each, or vanish.
    - `infill`: spans of Poisson(`mean`) words until they hold ceil(`share` n), the last one cut; each begins at a word
      of its own and becomes one MASK. Spans may run into each other, and end with the row, so fewer words are hidden
      than the budget says. Spans of 0 words are MASKs put in anywhere.
    - `insert`: ceil(`share` n) MASKs are put anywhere among n tokens.
    - `rotate`: the row begins at any of its tokens and goes round.
    - `blank`: all of the row is one MASK, so that its decoder is a left-to-right language model.
    A MASK that `mask` and `infill` put is a random token with probability `random`; of n inserted ones ceil(`random` n)
    are. With `whole_words` sub-words share the fate of their word, which begins as Vocabulary.begins says (so that what
    a row has before its first beginning stays); else each token is a word. Special ids around a row are not given.
    fairseq draws random tokens from all ids but the first, here no special id is drawn; its `insert` counts a row's two
    ends among the n tokens.
    """

    def __init__(
        self,
        *,
        kind: str,
        share: Annotated[float, Field(ge=0, le=1)],
        mean: Annotated[float, Field(gt=0)],
        random: Annotated[float, Field(ge=0, le=1)],
        sentences: Annotated[float, Field(ge=0, le=1)],
        whole_words: bool,
    ) -> None:
        self.kinds = () if kind == "none" else tuple(kind.split("+"))
        unknown = [name for name in self.kinds if name not in KINDS]
        if unknown or len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"kind: {kind!r}; one of none, {', '.join(KINDS)}, or several joined by +")
        if sum(name in HIDING for name in self.kinds) > 1:
            raise ValueError(f"kind: {kind!r}; of {', '.join(HIDING)} one at most, which hide the same words")
        self.share, self.random, self.sentences, self.whole_words = share, random, sentences, whole_words
        self.table = poisson(mean)

    def longest(self, length: int) -> int:
        """Tokens that `length` become at most; spans of 0 words, of which there may be any number, left out."""
        return length + ("insert" in self.kinds) * math.ceil(self.share * length)

    def __call__(self, tokens_L: Tokens, vocabulary: Vocabulary, generator: np.random.Generator) -> Tokens:
        """The row with noise, a new array of any length."""
        kinds = self.kinds
        if "blank" in kinds:
            return np.array([vocabulary.mask])
        if "permute" in kinds:
            tokens_L = permuted(tokens_L, vocabulary.stops[tokens_L], self.sentences, generator)
        for name in HIDING:
            if name in kinds:
                tokens_L = self._hidden(name, tokens_L, vocabulary, generator)
        if "insert" in kinds:
            tokens_L = self._inserted(tokens_L, math.ceil(self.share * len(tokens_L)), vocabulary, generator)
        if "rotate" in kinds:
            tokens_L = np.roll(tokens_L, -int(generator.integers(len(tokens_L) + 1)))
        return tokens_L.copy()

    def _hidden(self, name: str, tokens_L: Tokens, vocabulary: Vocabulary, generator: np.random.Generator) -> Tokens:
        begins_L = vocabulary.begins[tokens_L] if self.whole_words else np.ones(len(tokens_L), dtype=bool)
        budget = math.ceil(self.share * int(begins_L.sum()))
        words_S = np.ones(budget, dtype=np.int64)
        if name == "infill" and budget:
            words_S = span_lengths(self.table, budget, generator)
        empty, words_S = int((words_S == 0).sum()), words_S[words_S > 0]
        at_S = generator.permutation(np.flatnonzero(begins_L))[: len(words_S)]
        fill_S = None
        if name != "delete":
            fill_S = np.where(
                generator.random(len(at_S)) < self.random,
                generator.choice(vocabulary.ordinary, len(at_S)),
                vocabulary.mask,
            )
        return self._inserted(hidden(tokens_L, begins_L, at_S, words_S, fill_S), empty, vocabulary, generator)

    def _inserted(
        self, tokens_L: Tokens, number: int, vocabulary: Vocabulary, generator: np.random.Generator
    ) -> Tokens:
        """With so many more tokens, anywhere."""
        if not number:
            return tokens_L
        places = generator.permutation(len(tokens_L) + number)[:number]
        random = math.ceil(number * self.random)
        found = np.full(len(tokens_L) + number, vocabulary.mask)
        found[places[:random]] = generator.choice(vocabulary.ordinary, random)
        found[np.delete(np.arange(len(found)), places)] = tokens_L
        return found


def poisson(mean: float) -> NDArray[np.float64]:
    """Probabilities of 0, 1, ... words a span, up to the first that is below RAREST (128 at most), summing to 1."""
    table = [math.exp(-mean)]
    while table[-1] >= RAREST and len(table) < 128:
        table.append(table[-1] * mean / len(table))
    return np.array(table) / sum(table)


def span_lengths(table: NDArray[np.float64], budget: int, generator: np.random.Generator) -> Tokens:
    """Words of each span, (S,) int64, whose sum is `budget` >= 1: those drawn until they reach it, the last one cut."""
    words_S = generator.choice(len(table), size=budget, p=table)
    while words_S.sum() < budget:
        words_S = np.concatenate([words_S, generator.choice(len(table), size=budget, p=table)])
    sums_S = words_S.cumsum()
    last = int(np.searchsorted(sums_S, budget))
    words_S[last] -= sums_S[last] - budget
    return words_S[: last + 1]


def hidden(
    tokens_L: Tokens, begins_L: NDArray[np.bool_], at_S: Tokens, words_S: Tokens, fill_S: Tokens | None
) -> Tokens:
    """Without the `words_S` words from `at_S` on, which begin words; with `fill_S` in place of each span's first token.

    A span that another one covers leaves nothing in its place; what would go beyond the row ends with it.
    """
    starts = np.append(np.flatnonzero(begins_L), len(tokens_L))
    ends_S = starts[np.minimum(begins_L.cumsum()[at_S] - 1 + words_S, len(starts) - 1)]
    change = np.zeros(len(tokens_L) + 1, dtype=np.int64)
    np.add.at(change, at_S + 1, 1)
    np.add.at(change, ends_S, -1)
    gone_L = change.cumsum()[:-1] > 0
    tokens_L = tokens_L.copy()
    if fill_S is None:
        gone_L[at_S] = True
    else:
        tokens_L[at_S] = fill_S
    return tokens_L[~gone_L]


def permuted(tokens_L: Tokens, stops_L: NDArray[np.bool_], share: float, generator: np.random.Generator) -> Tokens:
    """The tokens with a share of their sentences, rounded up, in another order among themselves."""
    ends_L = stops_L.copy()
    ends_L[-1:] = True
    ends_L[1:] &= ~stops_L[:-1]
    *sentences, rest = np.split(tokens_L, np.flatnonzero(ends_L) + 1)
    chosen = generator.permutation(len(sentences))[: math.ceil(len(sentences) * share)]
    order = np.arange(len(sentences))
    order[chosen] = generator.permutation(chosen)
    return np.concatenate([*(sentences[i] for i in order), rest])
