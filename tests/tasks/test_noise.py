"""BART's noises: the official code's statistics, what each of them keeps, spans against a slow loop.

fairseq's DenoisingDataset (commit 3d262bb2) was run beside `hidden` and `permuted` on the same rows (of 3 to 60 tokens,
with sub-words), the same chosen words, span lengths and orders: 3,000 of 3,000 rows were equal for each.
"""
# L tokens, V vocabulary

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from tasks.noise import KINDS, Noise, Vocabulary, hidden, permuted, poisson, span_lengths
from tasks.tokenizers import MASK, SPECIAL, Bytes, Ids, Subword, Words

STOP = 9
FIRST = len(SPECIAL)


def vocabulary(size: int = 1000, subwords: int = 0) -> Vocabulary:
    """Ids from FIRST on, the last `subwords` of which go on with a word; STOP ends sentences."""
    begins = np.ones(size, dtype=bool)
    begins[size - subwords :] = False
    stops = np.zeros(size, dtype=bool)
    stops[STOP] = True
    return Vocabulary(mask=MASK, ordinary=np.arange(FIRST, size), begins=begins, stops=stops)


def noise(kind: str, **changes: Any) -> Noise:
    settings: dict[str, Any] = {"share": 0.3, "mean": 3.0, "random": 0.0, "sentences": 1.0, "whole_words": True}
    return Noise(kind=kind, **(settings | changes))


def row(length: int, seed: int = 0, size: int = 1000) -> np.ndarray:
    """Tokens without full stops."""
    return np.random.default_rng(seed).integers(STOP + 1, size, size=length)


def is_subsequence(part: np.ndarray, whole: np.ndarray) -> bool:
    rest = iter(whole.tolist())
    return all(token in rest for token in part.tolist())


# lengths and masks of 2000 draws of the official class, rows of 126 tokens within <s> and </s>
@pytest.mark.parametrize(
    "share, random, length, masks",
    [(0.3, 0.0, 105.0, 10.97), (0.3, 0.1, 105.0, 9.6), (0.15, 0.0, 116.4, 6.4), (0.5, 0.0, 91.7, 15.6)],
)
def test_infilling_has_the_official_statistics(share: float, random: float, length: float, masks: float) -> None:
    generator = np.random.default_rng(0)
    infill = noise("infill", share=share, random=random)
    rows = [infill(row(126), vocabulary(), generator) for _ in range(2000)]
    assert np.mean([len(x) + 2 for x in rows]) == pytest.approx(length, abs=0.3)
    assert np.mean([(x == MASK).sum() for x in rows]) == pytest.approx(masks, abs=0.3)


def test_masking_and_deletion_are_of_so_many_tokens() -> None:
    generator = np.random.default_rng(1)
    for seed in range(20):
        tokens = row(126, seed)
        masked = noise("mask")(tokens, vocabulary(), generator)
        assert (masked == MASK).sum() == 38  # ceil(0.3 * 126)
        assert np.array_equal(masked[masked != MASK], tokens[masked != MASK])
        deleted = noise("delete")(tokens, vocabulary(), generator)
        assert len(deleted) + 2 == 90
        assert is_subsequence(deleted, tokens)
    inserted = noise("insert")(tokens, vocabulary(), generator)
    assert len(inserted) == 126 + 38
    assert np.array_equal(inserted[inserted != MASK], tokens)


def test_the_table_of_span_lengths_is_the_official_one() -> None:
    table = poisson(3.0)
    assert len(table) == 18
    assert table.sum() == pytest.approx(1)
    assert table @ np.arange(18) == pytest.approx(3.0, abs=1e-3)
    assert table[:4] == pytest.approx([0.0498, 0.1494, 0.2240, 0.2240], abs=1e-4)


def test_spans_hold_the_budget_and_end_as_they_reach_it() -> None:
    generator = np.random.default_rng(2)
    for budget in (1, 2, 5, 38):
        for _ in range(50):
            words_S = span_lengths(poisson(3.0), budget, generator)
            assert words_S.sum() == budget
            assert words_S[-1] > 0
            assert words_S.min() >= 0
    drawn = np.concatenate([span_lengths(poisson(3.0), 1000, generator)[:-1] for _ in range(20)])
    assert drawn.mean() == pytest.approx(3.0, abs=0.1)
    assert (drawn == 0).mean() == pytest.approx(0.05, abs=0.01)


def by_steps(tokens: list[int], begins: list[bool], at: list[int], words: list[int], fill: list[int] | None) -> list:
    """The same, one token after the other."""
    gone: set[int] = set() if fill is not None else set(at)
    for start, number in zip(at, words, strict=True):
        place, left = start + 1, number - 1
        while place < len(tokens):
            left -= begins[place]
            if left < 0:
                break
            gone.add(place)
            place += 1
    filled = dict(zip(at, fill, strict=True)) if fill is not None else {}
    return [filled.get(i, token) for i, token in enumerate(tokens) if i not in gone]


def test_whole_words_go_together_and_spans_may_run_into_each_other() -> None:
    generator = np.random.default_rng(3)
    merged = 0
    for _ in range(300):
        length = int(generator.integers(3, 40))
        begins = generator.random(length) < 0.6
        begins[0] = True
        tokens = generator.integers(STOP + 1, 50, size=length)
        at = generator.permutation(np.flatnonzero(begins))[: generator.integers(1, 5)]
        words = generator.integers(1, 6, size=len(at))
        fill = np.full(len(at), MASK) if generator.random() < 0.5 else None
        expected = by_steps(*(x.tolist() for x in (tokens, begins, at, words)), None if fill is None else fill.tolist())
        assert hidden(tokens, begins, at, words, fill).tolist() == expected
        merged += fill is not None and expected.count(MASK) < len(at)
    assert merged > 20
    tokens = np.array([20, 990, 21, 991, 992, 22, 990])
    one = noise("mask", share=0.1)(tokens, vocabulary(subwords=20), np.random.default_rng(5)).tolist()
    assert one in ([MASK, 21, 991, 992, 22, 990], [20, 990, MASK, 22, 990], [20, 990, 21, 991, 992, MASK])
    apart = noise("mask", share=0.1, whole_words=False)(tokens, vocabulary(subwords=20), np.random.default_rng(5))
    assert len(apart) == len(tokens)


def test_infilling_leaves_a_subsequence_and_spans_of_none_are_put_in() -> None:
    generator = np.random.default_rng(4)
    longer = 0
    for seed in range(200):
        tokens = row(30, seed)
        found = noise("infill", mean=0.7)(tokens, vocabulary(), generator)
        assert is_subsequence(found[found != MASK], tokens)
        longer += len(found) > len(tokens)
    assert longer > 50  # of short spans half are of no words


def test_rotation_and_permutation_keep_all_tokens() -> None:
    generator = np.random.default_rng(6)
    tokens = row(60)
    tokens[[7, 15, 16, 40]] = STOP
    sentences = [tokens[:8].tolist(), tokens[8:16].tolist(), tokens[16:41].tolist(), tokens[41:].tolist()]
    # place 16 is a full stop after a full stop: it ends nothing
    seen = set()
    for _ in range(200):
        turned = noise("rotate")(tokens, vocabulary(), generator)
        start = next(k for k in range(61) if np.array_equal(np.roll(tokens, -k), turned))
        seen.add(start)
        mixed = noise("permute")(tokens, vocabulary(), generator)
        assert Counter(mixed.tolist()) == Counter(tokens.tolist())
        text = mixed.tolist()
        assert all(any(text[i : i + len(s)] == s for i in range(60)) for s in sentences)
    assert len(seen) > 40
    orders = {tuple(noise("permute")(tokens, vocabulary(), generator).tolist()) for _ in range(300)}
    assert len(orders) == 24
    pairs = {tuple(noise("permute", sentences=0.5)(tokens, vocabulary(), generator).tolist()) for _ in range(300)}
    assert len(pairs) == 1 + 6  # as it was, and each pair of four


def test_a_row_that_ends_in_full_stops_keeps_those_after_the_first() -> None:
    tokens = np.array([11, STOP, 12, STOP, STOP, STOP])
    found = {tuple(permuted(tokens, tokens == STOP, 1.0, np.random.default_rng(seed)).tolist()) for seed in range(20)}
    assert found == {(11, STOP, 12, STOP, STOP, STOP), (12, STOP, 11, STOP, STOP, STOP)}


@pytest.mark.parametrize("kind", ["none", "mask", "delete", "infill", "insert"])
def test_no_share_is_the_identity(kind: str) -> None:
    tokens = row(50)
    found = noise(kind, share=0.0)(tokens, vocabulary(), np.random.default_rng(0))
    assert np.array_equal(found, tokens)
    assert found is not tokens
    tokens[[7, 15, 40]] = STOP
    still = noise("permute", sentences=0.0)(tokens, vocabulary(), np.random.default_rng(0))
    assert np.array_equal(still, tokens)


def test_combined_noise_permutes_then_hides() -> None:
    generator = np.random.default_rng(7)
    tokens = np.array([11, 12, 13, STOP, 21, 22, 23, STOP])
    both = [noise("permute+infill")(tokens, vocabulary(), generator) for _ in range(200)]
    assert all(MASK in x for x in both)
    turned = [x for x in both if not is_subsequence(x[x != MASK], tokens)]
    assert 60 < len(turned) < 140
    swapped = np.array([21, 22, 23, STOP, 11, 12, 13, STOP])
    assert all(is_subsequence(x[x != MASK], swapped) for x in turned)
    assert noise("blank")(tokens, vocabulary(), generator).tolist() == [MASK]


def test_combined_noises_are_the_single_ones_in_the_official_order() -> None:
    """With the same draws: permuted, then infilled, then inserted into, then turned."""
    tokens = row(60)
    tokens[[7, 15, 40]] = STOP
    for order in (("permute", "infill"), ("infill", "rotate"), ("insert", "rotate"), ("mask", "insert")):
        for seed in range(5):
            at_once, by_one = (np.random.default_rng(seed) for _ in range(2))
            found = noise("+".join(reversed(order)))(tokens, vocabulary(), at_once)
            expected = tokens
            for kind in order:
                expected = noise(kind)(expected, vocabulary(), by_one)
            assert np.array_equal(found, expected), order


def test_shares_are_of_words_and_sentences_and_rounded_up() -> None:
    generator = np.random.default_rng(9)
    begins = [True, False, False, True, False, True, False, False, False, True, False, True, False]  # five words
    tokens = np.array([20 + i if begun else 980 + i for i, begun in enumerate(begins)])
    words = np.split(np.arange(len(tokens)), np.flatnonzero(begins)[1:])
    for kind, left in (("delete", 3), ("mask", 5)):  # of 0.3 * 5 words two are hidden
        found = noise(kind)(tokens, vocabulary(subwords=20), generator)
        assert len([x for x in found if x < 980]) == left
        gone = [not set(tokens[word]) & set(found.tolist()) for word in words]
        assert sum(gone) == 2
        assert len(found) == sum(len(word) for word, out in zip(words, gone, strict=True) if not out) + left - 3
    three = np.array([11, STOP, 12, STOP, 13, STOP])
    orders = {tuple(noise("permute", sentences=0.5)(three, vocabulary(), generator).tolist()) for _ in range(200)}
    assert len(orders) == 1 + 3  # two of three sentences
    inserted = noise("insert", share=0.05, random=0.3)(np.full(100, STOP), vocabulary(), generator)
    assert (inserted == MASK).sum() == 3  # of five two are random tokens
    assert len(inserted) == 105


def test_random_tokens_stand_for_masks() -> None:
    generator = np.random.default_rng(8)
    rows = [noise("mask", random=0.25)(row(100, size=500), vocabulary(), generator) for _ in range(300)]
    masks = [int((x == MASK).sum()) for x in rows]
    assert np.mean(masks) == pytest.approx(30 * 0.75, abs=0.5)
    assert 1.5 < np.std(masks) < 3.5  # each by itself: the root of 30 * 0.75 * 0.25
    assert all(x.min() >= MASK for x in rows)
    inserted = noise("insert", random=1.0)(np.full(100, STOP), vocabulary(), generator)
    assert (inserted == MASK).sum() == 0
    assert len(inserted) == 130
    places = [np.flatnonzero(noise("insert", share=0.1)(row(20), vocabulary(), generator) == MASK) for _ in range(400)]
    assert set(np.concatenate(places).tolist()) == set(range(22))  # anywhere, before the first and behind the last


def test_the_longest_row_is_as_long_as_said() -> None:
    assert noise("insert").longest(100) == 130
    assert noise("infill").longest(100) == noise("none").longest(100) == 100


@pytest.mark.parametrize("kind", ["mask+delete", "infil", "mask+mask", "", "none+mask"])
def test_what_is_no_noise_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="kind: "):
        noise(kind)
    assert noise("+".join(name for name in KINDS if name not in ("mask", "delete", "blank"))).kinds[0] == "permute"


def test_words_begin_where_text_has_white_space() -> None:
    text = "the cat sat . The hat sat.\n a mat"
    subword = Subword(vocab_size=270)
    subword.fit([text] * 3)
    facts = Vocabulary.of(subword)
    ids = subword.encode([text])[0].ids
    words = [subword.decode([i]) for i in range(FIRST, subword.vocab_size)]
    for i, word in enumerate(words):
        assert facts.begins[FIRST + i] == word[:1].isspace(), repr(word)
        assert facts.stops[FIRST + i] == (word.strip() == "."), repr(word)
    assert facts.begins[ids].sum() == len(text.split(" "))  # all but the first one, and the line feed
    assert facts.stops[ids].sum() == 2
    assert facts.ordinary.tolist() == list(range(FIRST, subword.vocab_size))  # no special id is drawn
    words_tokenizer = Words(min_count=1, max_size=None)
    words_tokenizer.fit([text])
    facts = Vocabulary.of(words_tokenizer)
    assert facts.begins.all()
    assert facts.stops.sum() == 1
    assert Vocabulary.of(Ids(vocab_size=5)).begins.all()
    facts = Vocabulary.of(Bytes())
    assert facts.begins[FIRST + ord(" ")]
    assert not facts.begins[FIRST + ord("a")]
    assert np.flatnonzero(facts.stops).tolist() == [FIRST + ord(".")]
