"""Named streams: declared, aligned with the source, fed, learnt from, or refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders.base import InputSpec
from seqbench.build import PairError, build, judge
from seqbench.composition.nodes import compose_node
from tasks.base import Task
from tasks.classification import Classification
from tasks.data.base import DataError, DataSet, Example, FileFact, Stream
from tasks.labelling import Labelling
from tasks.metrics.accuracy import Accuracy, TokenAccuracy
from tasks.metrics.errors import MSE
from tasks.regression import Regression
from tasks.tokenizers import Characters, Ids, Tokenizer, Words
from tests.contract.cases import Case
from tests.contract.encoder_checks import ENCODER_CHECKS
from tests.tasks.toy_streams import TwoStreams

DECLARED = {"pos": Stream(), "gap": Stream(channels=1)}
ROWS = [
    (["ab", "c"], {"pos": ["X", "Y"], "gap": [0.5, 2.0]}, ["O", "B"]),
    (["c"], {"pos": ["Z"], "gap": [1.0]}, ["O"]),
]


class Given(DataSet):
    modality = "text"

    def __init__(self, rows: Sequence[Any], test: Sequence[Any] | None = None, **streams: Stream) -> None:
        self.rows, self.test, self.streams = rows, test or rows, streams or DECLARED

    def identity(self) -> list[FileFact]:
        return []

    def check(self) -> None: ...

    def read(self, split: str) -> list[Example]:
        rows = self.test if split == "test" else self.rows
        return [Example(source=x, streams=streams, target=y) for x, streams, y in rows]


class Plain(Regression):
    feeds_streams = False


def labelling(data: DataSet, tokenizer: Tokenizer | None = None, max_length: int = 9) -> Labelling:
    task = Labelling(data=data, tokenizer=tokenizer or Characters(), max_length=max_length, metrics=[TokenAccuracy()])
    task.setup()
    return task


def test_a_word_s_value_stands_at_each_of_its_pieces() -> None:
    task = labelling(Given(ROWS))
    batch = task.collate("train", np.array([0, 1]))
    assert task.spec.streams == {
        "pos": InputSpec(max_length=9, vocab_size=5),  # none, unknown, X, Y, Z
        "gap": InputSpec(max_length=9, channels=1),
    }
    streams = batch.source.streams
    assert set(streams) == {"pos", "gap"}
    assert streams["pos"].values.tolist() == [[2, 2, 0, 3], [4, 0, 0, 0]]  # a b _ c: the space is of no word
    assert streams["gap"].values[:, :, 0].tolist() == [[0.5, 0.5, 0.0, 2.0], [1.0, 0.0, 0.0, 0.0]]
    assert all(torch.equal(stream.mask, batch.source.mask) for stream in streams.values())
    cut = labelling(Given(ROWS), max_length=2).collate("train", np.array([0]))
    assert cut.source.streams["pos"].values.tolist() == [[2, 2]]


def test_names_are_of_training_and_ids_move_up() -> None:
    test = [(["c"], {"pos": ["W"], "gap": [1.0]}, ["O"])]
    assert labelling(Given(ROWS, test)).collate("test", np.array([0])).source.streams["pos"].values.tolist() == [[1]]
    arrays = [(np.array([3, 1]), {"kind": np.array([0, 6])}, np.array([1, 2]))]
    task = labelling(Given(arrays, kind=Stream(vocab_size=7)), Ids(vocab_size=5))
    assert task.spec.streams["kind"].vocab_size == 8
    assert task.collate("train", np.array([0])).source.streams["kind"].values.tolist() == [[1, 7]]


def test_channels_have_streams_too() -> None:
    series = [
        (np.ones((3, 2), np.float32) * i, {"gap": np.arange(3.0), "pos": ["a", "b", "a"]}, f"c{i % 2}")
        for i in range(4)
    ]
    task = Classification(
        data=Given(series), tokenizer=None, max_length=2, readout="auto", label_smoothing=0.0, metrics=[Accuracy()]
    )
    task.setup()
    source = task.collate("train", np.array([0, 1])).source
    assert source.streams["gap"].values[:, :, 0].tolist() == [[0.0, 1.0]] * 2
    assert source.streams["pos"].values.tolist() == [[2, 3]] * 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((["a"], {"pos": ["X"]}, ["O"]), r"test row 0: has streams \['pos'\], its data set declares \['gap', 'pos'\]"),
        ((["a"], {"pos": ["X", "Y"], "gap": [1.0]}, ["O"]), "test row 0: the stream pos has 2 values for 1 words"),
        ((["a"], {"pos": ["X"], "gap": [np.nan]}, ["O"]), "the stream gap needs 1 finite numbers a word"),
        ((["a"], {"pos": ["X"], "gap": [[1.0, 2.0]]}, ["O"]), "the stream gap needs 1 finite numbers a word"),
        ((["a"], {"pos": ["X"], "gap": ["much"]}, ["O"]), "the stream gap needs 1 finite numbers a word"),
        ((["a", "b"], {"pos": ["X", "X"], "gap": [[1.0], []]}, ["O", "O"]), "the stream gap needs 1 finite numbers"),
    ],
)
def test_streams_that_are_not_as_declared(row: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        labelling(Given(ROWS, [row]))


@pytest.mark.parametrize(
    "values",
    [[1.0, 2.5], [1.0, np.nan], [True, False], [1, True], ["1", "2"], [1, None], [[1], [2]], np.array([1.0, 2.0])],
    ids=str,
)
def test_ids_of_a_stream_are_whole_numbers(values: Any) -> None:
    rows = [(["a", "b"], {"kind": values}, ["O", "B"])]
    with pytest.raises(
        DataError, match=r"^train row 0: the stream kind needs an id a word, a whole number from 0 to 9$"
    ):
        labelling(Given(rows, kind=Stream(vocab_size=10)))


@pytest.mark.parametrize("value", [-1, 10])
def test_ids_of_a_stream_are_in_range(value: int) -> None:
    rows = [(["a", "b"], {"kind": [0, value]}, ["O", "B"])]
    with pytest.raises(DataError, match=f"the stream kind holds {value}; ids are 0 to 9"):
        labelling(Given(rows, kind=Stream(vocab_size=10)))


def test_text_that_has_no_words_and_kinds_that_feed_none() -> None:
    rows = [("a b", {"pos": ["X", "Y"], "gap": [1.0, 2.0]}, "c"), ("a", {"pos": ["X"], "gap": [1.0]}, "d")]
    settings: dict[str, Any] = {"max_length": 4, "readout": "auto"}
    task = Classification(
        data=Given(rows), tokenizer=Characters(), label_smoothing=0.0, metrics=[Accuracy()], **settings
    )
    with pytest.raises(DataError, match=r"set task\.data\.source_type=words"):
        task.setup()
    with pytest.raises(ValueError, match="data: gives the streams gap, pos, Plain feeds none; take them out"):
        Plain(data=Given(rows), tokenizer=Characters(), pair="joined", metrics=[MSE()], **settings)
    with pytest.raises(DataError, match=r"ids are 0 to 1"):
        labelling(Given([(["a", "b"], {"k": [0, 2]}, ["O", "B"])], k=Stream(vocab_size=2)))


# -- with encoders, by config ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("check", ENCODER_CHECKS, ids=lambda check: check.__name__)
def test_the_toy_keeps_the_contract(check: Any) -> None:
    check(Case(node={"_target_": "tests.tasks.toy_streams.TwoStreams", "dim": 16}, kind="ids", allowed=("tests",)))


def own(tmp_path: Path, form: str) -> Task:
    """A task over files whose tags are told by the two streams together and by no word."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(60):
        size = int(rng.integers(1, 6))
        pos, gap = rng.choice(["N", "V"], size).tolist(), rng.choice([-1.0, 1.0], size).tolist()
        tags = [f"{p}{'+' if g > 0 else '-'}" for p, g in zip(pos, gap, strict=True)]
        rows.append({"text": rng.choice(["a", "b"], size).tolist(), "p": pos, "g": gap, "label": tags})
    path = tmp_path / f"rows.{form}"
    if form == "conll":
        for row in rows:
            row["label"] = row["p"]  # of names alone
        lines = ["\n".join(" ".join(line) for line in zip(r["text"], r["p"], r["label"], strict=True)) for r in rows]
        path.write_text("\n\n".join(lines) + "\n")
        changes: dict[str, Any] = {"train": str(path), "stream_columns": {"pos": 1}}
        node = compose_node("task", "own_labelling", changes={})
    else:
        joined = [{k: v if form == "jsonl" else " ".join(map(str, v)) for k, v in row.items()} for row in rows]
        if form == "jsonl":
            path.write_text("\n".join(map(json.dumps, joined)))
        else:
            lines = ["text,p,g,label", *(",".join(row.values()) for row in joined)]
            path.write_text("\n".join(lines))
        node = compose_node("task", "own_labelling", changes={})
        node["data"] = compose_node("task", "own_classification", changes={})["data"]
        changes = {
            "train": str(path),
            "source_type": "words",
            "target_type": "words",
            "columns": {"source": "text", "target": "label", "streams": {"pos": "p"}, "number_streams": {"gap": "g"}},
        }
    node = {**node, "data": {**node["data"], **changes}, "max_length": 16}
    task = build(node, "task", ("tasks",))
    assert isinstance(task, Task)
    return task


@pytest.mark.parametrize("form", ["jsonl", "csv", "conll"])
def test_own_files_feed_an_encoder_that_reads_both(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    task = own(tmp_path, form)
    outline = task.outline()
    names = {"pos"} if form == "conll" else {"pos", "gap"}
    assert set(outline.streams) == names
    with torch.device("meta"):
        judge(TwoStreams(dim=8, spec=outline), task, outline, encoder_name="two", task_name="own")
        plain = build(compose_node("encoder", "lstm"), "encoder", ("encoders",), spec=outline_without(outline))
    with pytest.raises(PairError, match=r"feeds stream.* pos, which encoder lstm doesn't read"):
        judge(plain, task, outline, encoder_name="lstm", task_name="own")
    task.data.check()
    task.setup()
    assert set(task.spec.streams) == names
    torch.manual_seed(0)
    encoder = TwoStreams(dim=16, spec=task.spec)
    task.attach(encoder)
    optimizer = torch.optim.Adam([*encoder.parameters(), *task.parameters()], lr=0.1)
    rows = np.arange(len(task.lengths("train")))
    for _ in range(60):
        loss = task(encoder, task.collate("train", rows)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    task.eval()
    rows = np.arange(len(task.lengths("test")))
    predictions = task(encoder, task.collate("test", rows)).predictions
    assert task.score("test", dict(enumerate(predictions)))["token_accuracy"].value == 1.0


def outline_without(spec: InputSpec) -> InputSpec:
    return InputSpec(max_length=spec.max_length, vocab_size=spec.vocab_size)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"streams": {"a": "p"}, "number_streams": {"a": "q"}}, "columns: streams and number_streams"),
        ({"streams": "p"}, "columns: streams and number_streams"),
        ({"stream": {"a": "p"}}, "columns: needs the keys source and target"),
    ],
)
def test_columns_of_streams_that_cannot_be(columns: dict[str, Any], message: str) -> None:
    from tasks.data.columns import Columns

    with pytest.raises(ValueError, match=message):
        Columns.of({"source": "text", "target": "label", **columns}, "words", "text")
    with pytest.raises(ValueError, match="source_type: streams go with words"):
        Columns.of({"source": "text", "target": "label", "streams": {"a": "p"}}, "text", "text")


def test_words_and_streams_of_a_tokeniser_of_words() -> None:
    task = labelling(Given(ROWS), Words(min_count=1, max_size=None))
    assert task.collate("train", np.array([0])).source.streams["pos"].values.tolist() == [[2, 3]]
