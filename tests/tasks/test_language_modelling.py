"""Language modelling: windows predict every token once; bits per character by hand; tied weights; rules."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tasks.data.base import DataError
from tasks.language_modelling import IGNORE, LanguageModelling
from tasks.metrics.likelihood import BitsPerCharacter, Perplexity
from tasks.tokenizers import BOS, UNK, Bytes, Characters, Subword, Tokenizer, Words
from tests.tasks.toy_data import Rows, Table

DOCUMENTS = [("abcabcabca", None), ("", None), ("bb", None), ("cabé 東京 " * 7, None)]


def ready(
    tokenizer: Tokenizer, *, max_length: int = 4, tie: bool = False, test: Any = None, bits: bool = True
) -> tuple[LanguageModelling, Table]:
    data = Rows(DOCUMENTS, valid=test, test=test)
    metrics = [BitsPerCharacter(), Perplexity()] if bits else [Perplexity()]
    task = LanguageModelling(data=data, tokenizer=tokenizer, max_length=max_length, tie=tie, metrics=metrics)
    task.setup()
    encoder = Table(task.spec.vocab_size or 0, causal=True, tied=tie)
    task.attach(encoder)
    return task.eval(), encoder


def predictions(task: LanguageModelling, encoder: Table) -> dict[int, Any]:
    rows = np.arange(len(task.lengths("test")))
    return dict(enumerate(task(encoder, task.collate("test", rows)).predictions))


@pytest.mark.parametrize("tokenizer", [Characters(), Bytes(), Subword(vocab_size=270)], ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("max_length", [1, 4, 1000])
def test_every_token_is_predicted_once_from_what_precedes_it(tokenizer: Tokenizer, max_length: int) -> None:
    task, _ = ready(tokenizer, max_length=max_length)
    row = 0
    for text, _ in DOCUMENTS:
        ids = tokenizer.encode([text])[0].ids.tolist()
        inputs: list[int] = []
        targets: list[int] = []
        while len(targets) < len(ids):
            batch = task.collate("train", np.array([row]))
            inputs += batch.source.values[0].tolist()
            targets += batch.target[0].tolist()
            row += 1
        assert targets == ids
        assert inputs == [BOS, *ids[:-1]][: len(ids)]
    assert row == len(task.lengths("train")) == task.accounting("train").examples
    assert task.lengths("train").max() <= max_length
    assert sum(e.target[2] for e in task.examples["train"]) == sum(len(text) for text, _ in DOCUMENTS)


def test_nats_of_a_window_by_hand() -> None:
    task, encoder = ready(Characters())
    rows = np.arange(len(task.lengths("test")))
    batch = task.collate("test", rows)
    output = task(encoder, batch)
    total, count = 0.0, 0
    for i, (nats, tokens, characters) in enumerate(output.predictions):
        target = batch.target[i][batch.target[i] != IGNORE]
        logits = task.head(encoder(batch.source).values[i, : len(target)]).log_softmax(1)
        expected = -float(logits[torch.arange(len(target)), target].sum().detach())
        assert nats == pytest.approx(expected, rel=1e-5)
        assert tokens == characters == len(target)
        total, count = total + nats, count + tokens
    assert output.items == count
    assert output.loss.item() == pytest.approx(total / count, rel=1e-5)
    scores = task.score("test", dict(enumerate(output.predictions)))
    assert scores["bits_per_character"].value == pytest.approx(total / math.log(2) / count)
    assert scores["perplexity"].value == pytest.approx(math.exp(total / count))
    task.train()
    assert float(task(encoder, batch).loss.detach()) == pytest.approx(total / count, rel=1e-5)


def test_bits_per_character_count_characters_whatever_the_tokens() -> None:
    for tokenizer in (Characters(), Bytes()):
        task, _ = ready(tokenizer, max_length=1000)
        rule = task.trivial("random", "test", 0)
        choices = tokenizer.vocab_size - 5  # UNK is one of them
        tokens = sum(len(tokenizer.encode([text])[0].ids) for text, _ in DOCUMENTS)
        characters = sum(len(text) for text, _ in DOCUMENTS)
        score = task.score("test", rule)["bits_per_character"].value
        assert score == pytest.approx(math.log2(choices) * tokens / characters)
        assert len(rule) == 3  # the empty document has no window


def test_majority_is_the_unigram_model_of_training() -> None:
    task, _ = ready(Characters(), test=[("abd", None)], bits=False)
    text = "".join(text for text, _ in DOCUMENTS)
    size = len(set(text)) + 1
    p = {c: (text.count(c) + 1) / (len(text) + size) for c in "ab"} | {"d": 1 / (len(text) + size)}
    expected = -sum(math.log(p[c]) for c in "abd")
    assert task.trivial("majority", "test", 0)[0] == (pytest.approx(expected), 3, 3)
    assert task.accounting("test").truncated == 1  # the window with an unknown character
    assert task.accounting("train").truncated == 0


def test_tied_weights_are_the_input_table() -> None:
    task, encoder = ready(Characters(), tie=True)
    assert sum(p.numel() for p in task.parameters()) == task.spec.vocab_size  # the bias alone
    batch = task.collate("test", np.array([0]))
    logits = encoder(batch.source).values @ encoder.table.T
    expected = F.cross_entropy(logits[0], batch.target[0], reduction="sum")
    assert task(encoder, batch).predictions[0][0] == pytest.approx(float(expected.detach()), rel=1e-5)
    with pytest.raises(ValueError, match="no input table"):
        task.attach(Table(task.spec.vocab_size or 0, causal=True))


def test_a_prediction_of_other_text_is_refused() -> None:
    task, encoder = ready(Characters())
    wrong = predictions(task, encoder)
    wrong[1] = (wrong[1][0], wrong[1][1] - 1, wrong[1][2])
    with pytest.raises(ValueError, match="row 1"):
        task.score("test", wrong)


def test_words_stand_for_the_space_after_them() -> None:
    task, _ = ready(Words(min_count=1, max_size=None), test=[("bb bb zz", None)], bits=False)
    assert task.examples["test"][0].target == (0.0, 3, 8)
    assert task.targets["test"].values[-1] == UNK


@pytest.mark.parametrize(
    ("tokenizer", "text", "lost"),
    [
        (Words(min_count=100000, max_size=None), "bb", "'bb' comes back as ''"),  # one id for all words costs nothing
        (Words(min_count=1, max_size=None), "bb zz", "' zz' comes back as ''"),
        (Words(min_count=1, max_size=None), "bb\nbb", r"'\\nbb' comes back as ' bb'"),  # white space isn't predicted
        (Characters(), "abd", "'d' comes back as ''"),
    ],
)
def test_bits_per_character_of_a_text_that_is_not_kept_are_refused(tokenizer: Tokenizer, text: str, lost: str) -> None:
    with pytest.raises(DataError, match=f"(?s)valid row 0: {lost}.*bits_per_character means nothing.*tokenizer=bytes"):
        ready(tokenizer, test=[(text, None)])
    task, _ = ready(tokenizer, test=[(text, None)], bits=False)
    assert task.score("test", task.trivial("majority", "test", 0))["perplexity"].value >= 1


def test_bits_per_character_of_words_that_are_kept_are_those_of_their_text() -> None:
    task, _ = ready(Words(min_count=1, max_size=None), test=[("bb abcabcabca bb", None)])
    nats = task.trivial("random", "test", 0)
    kinds = task.tokenizer.vocab_size - 5
    assert task.score("test", nats)["bits_per_character"].value == pytest.approx(3 * math.log2(kinds) / 16)


def test_both_splits_that_are_scored_are_looked_at() -> None:
    data = Rows([("ab", None)], test=[("ab", None), ("az", None)])
    task = LanguageModelling(
        data=data, tokenizer=Characters(), max_length=4, tie=False, metrics=[Perplexity(), BitsPerCharacter()]
    )
    with pytest.raises(DataError, match="test row 1: 'z' comes back as ''"):
        task.setup()
