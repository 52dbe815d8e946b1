"""Streams with positions of their own, what rows share, and what sources and streams say by being the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from encoders.base import InputSpec
from seqbench.build import PairError, build, encoder_of, judge
from seqbench.composition.nodes import compose_node
from tasks.base import Task
from tasks.biases import additive, kinds
from tasks.classification import Classification
from tasks.data.base import DataError, DataSet, Example, FileFact, Stream
from tasks.labelling import Labelling
from tasks.metrics.accuracy import Accuracy, TokenAccuracy
from tasks.metrics.errors import MSE
from tasks.regression import Regression
from tasks.tokenizers import Words

VECTOR, PROTEIN = np.array([[0.5, -1.0]]), ["K", "M", "K"]
DECLARED = {"vector": Stream(channels=2, length=1), "protein": Stream(length=2)}


class Pairs(DataSet):
    modality = "molecules"

    def __init__(self, rows: Sequence[Example], **streams: Stream) -> None:
        self.rows, self.streams = rows, streams or DECLARED

    def identity(self) -> list[FileFact]:
        return []

    def check(self) -> None: ...

    def read(self, split: str) -> Sequence[Example]:
        return self.rows


def rows(source: Any = "C C O", target: Any = None) -> list[Example]:
    targets = target or [0.5, 1.5, 4.0]
    return [
        Example(source=source, streams={"vector": VECTOR, "protein": PROTEIN}, target=targets[0]),
        Example(source=source, streams={"vector": 2 * VECTOR, "protein": ["R"]}, target=targets[1]),
        Example(source=source, streams={"vector": VECTOR, "protein": PROTEIN}, target=targets[2]),
    ]


def regression(data: DataSet, *, pair: Any = "joined", max_length: int = 9) -> Regression:
    words = Words(min_count=1, max_size=None)
    task = Regression(data=data, tokenizer=words, max_length=max_length, readout="auto", pair=pair, metrics=[MSE()])
    task.setup()
    return task


def test_a_vector_and_a_sequence_of_their_own_lengths_are_fed_beside_a_text() -> None:
    task = regression(Pairs(rows()))
    assert task.spec.streams == {
        "vector": InputSpec(max_length=1, channels=2),
        "protein": InputSpec(max_length=2, vocab_size=5),  # none, unknown, K, M, R
    }
    streams = task.collate("train", np.array([0, 1])).source.streams
    assert streams["vector"].values.tolist() == [[[0.5, -1.0]], [[1.0, -2.0]]]
    assert streams["protein"].values.tolist() == [[2, 3], [4, 0]]
    assert streams["protein"].mask.tolist() == [[True, True], [True, False]]
    assert task.accounting("train").truncated == 2  # proteins of three residues, where two are fed
    assert regression(Pairs(rows()), max_length=3).accounting("train").truncated == 2  # a text of three is whole
    assert regression(Pairs(rows("C C O N")), max_length=3).accounting("train").truncated == 3


@pytest.mark.parametrize("name", ["regression", "classification"])
def test_names_that_only_the_test_split_has_are_unknown(name: str) -> None:
    """And move none of the others: vocabularies are of training."""
    train = rows(target=["yes", "no", "yes"]) if name == "classification" else rows()
    new = [Example(source="C", streams={"vector": VECTOR, "protein": ["A", "K"]}, target=train[0].target)]
    data = Pairs(train)
    data.read = lambda split: new if split == "test" else train  # type: ignore[method-assign]
    words = Words(min_count=1, max_size=None)
    if name == "regression":
        task: Any = regression(data)
    else:
        task = Classification(
            data=data, tokenizer=words, max_length=9, readout="auto", label_smoothing=0.0, metrics=[Accuracy()]
        )
        task.setup()
    assert task.collate("test", np.array([0])).source.streams["protein"].values.tolist() == [[1, 2]]


def test_what_rows_share_is_kept_once() -> None:
    task = regression(Pairs(rows()))
    [side] = task.sides["train"]
    assert [len(side.streams[name].distinct) for name in ("vector", "protein")] == [2, 2]  # type: ignore[union-attr]
    batch = task.collate("train", np.array([2, 0])).source.streams["vector"].values
    assert batch[0].tolist() == batch[1].tolist() == VECTOR.tolist()


def test_a_source_that_rows_share_is_tokenised_once() -> None:
    asked = []

    class Asked(Words):
        def encode(self, texts: Any) -> Any:
            asked.append(len(texts))
            return super().encode(texts)

    words, same = Asked(min_count=1, max_size=None), ["C", "O"]
    examples = [Example(source=s, target=float(i)) for i, s in enumerate((same, ["O"], same, ["C", "O"]))]
    task = Regression(
        data=Pairs(examples, beside=Stream()),
        tokenizer=words,
        max_length=9,
        readout="auto",
        pair="joined",
        metrics=[MSE()],
    )
    examples[:] = [Example(source=e.source, target=e.target, streams={"beside": e.source}) for e in examples]
    task.setup()
    assert asked == [3, 3, 3]
    assert task.collate("train", np.arange(4)).source.values.tolist() == [[7, 6], [6, 0], [7, 6], [7, 6]]


def test_every_task_that_feeds_streams_feeds_them() -> None:
    words = Words(min_count=1, max_size=None)
    one = Classification(
        data=Pairs(rows(target=["yes", "no", "yes"])),
        tokenizer=words,
        max_length=9,
        readout="auto",
        label_smoothing=0.0,
        metrics=[Accuracy()],
    )
    other = Labelling(
        data=Pairs(rows(["C", "O"], [["X", "Y"]] * 3)), tokenizer=words, max_length=9, metrics=[TokenAccuracy()]
    )
    pairs = regression(Pairs(rows(("C C", "O"))))
    for task in (one, other, pairs):
        if task is not pairs:
            task.setup()
        streams = task.collate("train", np.array([1])).source.streams
        assert streams["vector"].values.tolist() == [[[1.0, -2.0]]], type(task)
        assert streams["protein"].values.tolist() == [[4]], type(task)
    assert other.accounting("train").truncated == 2


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ({"vector": VECTOR, "protein": []}, "train row 0: the stream protein has no position"),
        ({"vector": np.array([[1.0]]), "protein": PROTEIN}, "train row 0: the stream vector needs 2 finite numbers"),
        ({"vector": VECTOR}, r"train row 0: has streams \['vector'\]"),
    ],
)
def test_streams_that_are_not_as_declared(streams: dict[str, Any], message: str) -> None:
    examples = [Example(source="C", streams=streams, target=0.0), Example(source="C", streams=streams, target=1.0)]
    with pytest.raises(DataError, match=message):
        regression(Pairs(examples))


def test_siamese_pairs_and_encoders_that_do_not_read_them_are_refused() -> None:
    with pytest.raises(DataError, match=r"task.pair: siamese reads no stream \(protein, vector\)"):
        regression(Pairs(rows(("C", "O"))), pair="siamese")
    with pytest.raises(ValueError, match="length 0"):
        Stream(length=0)
    task: Task = regression(Pairs(rows()))
    encoder = build(compose_node("encoder", "bag"), "encoder", ["encoders"], spec=task.spec)
    with pytest.raises(PairError, match="feeds streams protein, vector, which encoder bag doesn't read"):
        judge(encoder, task, task.spec, encoder_name="bag", task_name="pairs")


def test_an_encoder_is_tried_with_streams_as_long_as_they_can_be() -> None:
    spec = InputSpec(max_length=12, vocab_size=9, streams={"type": InputSpec(max_length=2, vocab_size=2)})
    with pytest.raises(Exception, match="size of tensor a"):  # of 5 positions and of 2: it was given no more
        encoder_of(compose_node("encoder", "bag"), ["encoders"], spec)


# -- what being the same says ------------------------------------------------------------------------------------
def test_biases_are_the_least_squares_of_two_one_hot_parts() -> None:
    generator = np.random.default_rng(0)
    left, right = generator.integers(5, size=60), generator.integers(4, size=60)
    y = generator.normal(size=60) + left - 2 * right
    pairs = [(str(a), str(b)) for a, b in zip(left, right, strict=True)]
    design = np.concatenate([np.eye(5)[left], np.eye(4)[right]], axis=1)
    fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    assert additive(pairs, y, pairs) == pytest.approx(fitted, abs=0.02)  # ten rounds, with holes in the matrix
    full = [(str(a), str(b)) for a in range(3) for b in range(4)]
    values = generator.normal(size=12)
    grid = values.reshape(3, 4)
    exact = (grid.mean(1, keepdims=True) + grid.mean(0) - grid.mean()).ravel()
    assert additive(full, values, full) == pytest.approx(exact, abs=1e-12)
    unseen = additive(full, values, [("0", "new"), ("new", "1"), ("new", "new")])
    assert unseen == pytest.approx([grid[0].mean(), grid[:, 1].mean(), grid.mean()])


def test_trivial_rows_by_source_and_by_both() -> None:
    examples = [
        Example(source=a, streams={"vector": b * VECTOR, "protein": PROTEIN}, target=y)
        for a, b, y in (("C", 1, 0.0), ("C", 2, 2.0), ("O", 1, 4.0), ("O", 2, 6.0))
    ]
    task = regression(Pairs(examples))
    assert list(task.trivial("source_mean", "test", 0).values()) == [1.0, 1.0, 5.0, 5.0]
    assert list(task.trivial("biases", "test", 0).values()) == pytest.approx([0.0, 2.0, 4.0, 6.0])


def test_kinds_are_of_contents_not_of_objects() -> None:
    one = kinds([{"a": np.ones(2)}, {"a": np.ones(2)}, {"a": np.zeros(2)}, ["C"], ["C"], "C"])
    assert [one.index(kind) for kind in one] == [0, 0, 2, 3, 3, 5]
    assert len(set(kinds([{"a": "x", "b": "y"}, {"b": "y", "a": "x"}]))) == 1
    long, other = np.zeros(5000), np.zeros(5000)
    other[2500] = 1.0  # where a text of it has an ellipsis
    pairs = kinds(
        [(long, other), (long.copy(), other), (other, long), (long, long), ("a", "b"), ("a", "b"), ("b", "a")]
    )
    assert [pairs.index(kind) for kind in pairs] == [0, 0, 2, 3, 4, 4, 6]
