"""A tokeniser that knows no word gains nothing by it: every kind is scored against the data's own terms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.classification import Classification
from tasks.labelling import Labelling
from tasks.metrics.accuracy import Accuracy, TokenAccuracy
from tasks.metrics.entity_f1 import EntityF1
from tasks.metrics.exact_match import ExactMatch
from tasks.metrics.ranking import MRR, R1
from tasks.metrics.translation import Bleu, Chrf
from tasks.response_selection import ResponseSelection
from tasks.search import Greedy
from tasks.sequence_to_sequence import SequenceToSequence
from tasks.tokenizers import UNK, Ids, Tokenizer, Words
from tests.tasks.toy_data import Rows, Table
from tests.tasks.toy_decoders import GRUDecoder


@pytest.fixture(autouse=True)
def _vocabularies_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def blind() -> Tokenizer:
    return Words(min_count=100000, max_size=None)


def test_of_targets_that_are_all_unknown_none_is_met_even_by_their_own_ids() -> None:
    task = SequenceToSequence(
        data=Rows([("one two", "uno dos"), ("three", "tres")]),
        metrics=[ExactMatch(), Bleu(), Chrf()],
        tokenizer=blind(),
        search=Greedy(),
        max_length=8,
        max_target_length=8,
        label_smoothing=0.0,
        tie=False,
    )
    task.setup()
    assert set(task.targets["test"].values.tolist()) >= {UNK}
    assert task.references("test") == ["uno dos", "tres"]
    of_ids = {row: task.tokenizer.decode(task.targets["test"][row].tolist()) for row in range(2)}
    torch.manual_seed(0)
    encoder = GRUDecoder(dim=8, spec=task.spec)
    task.attach(encoder)
    task.eval()
    made = dict(enumerate(task(encoder, task.collate("test", np.arange(2))).predictions))
    for predictions in (of_ids, made):
        assert [score.value for score in task.score("test", predictions).values()] == [0.0, 0.0, 0.0]
    assert task.score("test", {0: "uno dos", 1: "tres"})["exact_match"].value == 1.0


def test_one_unknown_word_of_a_target_fails_it() -> None:
    data = Rows([("a", "x y"), ("b", "x y")], test=[("a", "x zz y")])
    task = SequenceToSequence(
        data=data,
        metrics=[ExactMatch()],
        tokenizer=Words(min_count=1, max_size=None),
        search=Greedy(),
        max_length=8,
        max_target_length=8,
        label_smoothing=0.0,
        tie=False,
    )
    task.setup()
    best = task.tokenizer.decode(task.targets["test"][0].tolist())
    assert best == "x y"
    assert task.score("test", {0: best})["exact_match"].value == 0.0


def test_labels_of_unknown_words_and_ids_count_all() -> None:
    rows = [(["a", "b", "c"], ["B-x", "I-x", "O"]), (["d"], ["B-y"])]
    task = Labelling(data=Rows(rows), tokenizer=blind(), max_length=9, metrics=[TokenAccuracy(), EntityF1()])
    task.setup()
    encoder = Table(task.spec.vocab_size or 0)
    task.attach(encoder)
    task.eval()
    assert set(task.rows["test"].values.tolist()) == {UNK}
    predictions = task(encoder, task.collate("test", np.arange(2))).predictions
    assert len({tag for row in predictions for tag in row}) == 1  # one id, one tag
    scores = task.score("test", dict(enumerate(predictions)))
    assert scores["token_accuracy"].statistics["tokens"].tolist() == [3, 1]
    assert scores["token_accuracy"].value <= 0.25
    assert scores["entity_f1"].statistics["gold"].sum() == 2
    ids = Rows([(np.array([7, 8, 9]), np.array([1, -100, 2]))])
    numbers = Labelling(data=ids, tokenizer=Ids(vocab_size=2), max_length=9, metrics=[TokenAccuracy()])
    numbers.setup()
    assert set(numbers.rows["test"].values.tolist()) == {UNK}
    assert numbers.score("test", {0: [1, 1, 1]})["token_accuracy"].value == 0.5


def test_classes_of_unknown_texts_count_all() -> None:
    task = Classification(
        data=Rows([("a", "x"), ("b", "y"), ("c", "z")]),
        tokenizer=blind(),
        max_length=4,
        readout="auto",
        label_smoothing=0.0,
        metrics=[Accuracy()],
    )
    task.setup()
    encoder = Table(task.spec.vocab_size or 0)
    task.attach(encoder)
    task.eval()
    predictions = task(encoder, task.collate("test", np.arange(3))).predictions
    assert task.score("test", dict(enumerate(predictions)))["accuracy"].value == pytest.approx(1 / 3)


def test_candidates_that_read_alike_share_their_mean_rank() -> None:
    rows = [((["turn"], ["good", "bad", "worse", "worst"]), "good")]
    task = ResponseSelection(
        data=Rows(rows),
        tokenizer=blind(),
        max_length=4,
        max_response_length=4,
        readout="auto",
        in_batch=False,
        metrics=[R1(), MRR()],
    )
    task.setup()
    encoder = Table(task.spec.vocab_size or 0)
    task.attach(encoder)
    task.eval()
    with torch.no_grad():
        predictions = task(encoder, task.collate("test", np.arange(1))).predictions
    assert predictions[0]["rank"] == 2.5  # of 1, 2, 3, 4
    assert task.score("test", dict(enumerate(predictions)))["r@1"].value == 0.0
