"""The file of predictions: what tests of significance read."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from seqbench.records import predictions
from tasks.base import Score
from tasks.classification import Classification
from tests.seqbench.toy import Hits, ToyData, ToyTask


def column(values: list[float]) -> NDArray[np.float64]:
    return np.array(values)


def write(folder: Path) -> Any:
    task = ToyTask(data=ToyData(rows=6, seed=3), metrics=[Hits()], max_length=7)
    task.setup()
    given: dict[str, dict[int, Any]] = {"valid": {1: "no", 0: "no"}, "test": {0: ["a", 1], 1: np.arange(2)}}
    statistics = {
        "valid": {"value": column([1.0, 0.0]), "tp/rare": column([0.0, 1.0])},
        "test": {"value": column([0.0, 0.5])},
    }
    scores = {
        split: {"hits": Score(metric=Hits(), value=0.5, n=2, statistics=by_name)}
        for split, by_name in statistics.items()
    }
    return predictions.write(folder, task, given, scores)


def test_rows_of_every_split_with_their_statistics(tmp_path: Path) -> None:
    artefact = write(tmp_path)
    file = tmp_path / artefact.path
    assert artefact.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert pq.read_table(file).to_pydict() == {
        "split": ["valid", "valid", "test", "test"],
        "row": [0, 1, 0, 1],
        "prediction": ['"no"', '"no"', '["a",1]', "[0,1]"],
        "reference": ['"no"', '"yes"', '"no"', '"yes"'],
        "hits/value": [1.0, 0.0, 0.0, 0.5],
        "hits/tp/rare": [0.0, 1.0, None, None],
    }


def test_same_predictions_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert write(tmp_path / "a") == write(tmp_path / "b")


def test_rows_of_own_data_have_their_lines_and_not_their_files(tmp_path: Path) -> None:
    task = ToyTask(data=ToyData(rows=6, seed=3), metrics=[Hits()], max_length=7)
    task.setup()
    task.examples["test"] = [
        replace(example, line=line, where=f"a.csv line {line}")
        for example, line in zip(task.examples["test"], (9, 4), strict=True)
    ]
    score = Score(metric=Hits(), value=0.5, n=2, statistics={"value": column([1.0, 0.0])})
    given = {split: {0: "no", 1: "no"} for split in ("valid", "test")}
    predictions.write(tmp_path, task, given, {split: {"hits": score} for split in given})
    table = pq.read_table(tmp_path / predictions.NAME)
    assert table["line"].to_pylist() == [None, None, 9, 4]
    task.examples["test"] = [replace(example, line=None) for example in task.examples["test"]]
    before = predictions.write(tmp_path, task, given, {split: {"hits": score} for split in given})
    assert predictions.without_lines(table) == before.sha256
    assert not any("a.csv" in str(row) for row in table.to_pylist())


class Twice(ToyTask):
    """Two references an example."""

    def references(self, split: str) -> list[Any]:
        return [one for one in super().references(split) for _ in range(2)]


def test_rows_that_are_no_examples_have_no_lines(tmp_path: Path) -> None:
    task = Twice(data=ToyData(rows=6, seed=3), metrics=[Hits()], max_length=7)
    task.setup()
    task.examples["test"] = [replace(example, line=i) for i, example in enumerate(task.examples["test"])]
    score = Score(metric=Hits(), value=0.5, n=4, statistics={"value": column([1.0, 0.0, 1.0, 0.0])})
    predictions.write(tmp_path, task, {"test": dict.fromkeys(range(4), "no")}, {"test": {"hits": score}})
    assert "line" not in pq.read_table(tmp_path / predictions.NAME).column_names


class Known(Classification):
    """Only its references."""

    names_a_class = True

    def __init__(self, **references: list[Any]) -> None:
        torch.nn.Module.__init__(self)
        self.known = references

    def references(self, split: str) -> list[Any]:
        return self.known[split]


def test_one_class_is_told_where_there_are_several() -> None:
    task = Known(valid=["a", "b", "b"], test=["b", "a"], train=["c", "c"])
    given = {"valid": {0: "a", 1: "a", 2: "a"}, "test": {0: "a", 1: "b"}, "train": {0: "c", 1: "c"}}
    assert predictions.one_class(task, given) == {"valid": "a"}
    assert predictions.one_class(task, {"test": {0: "b", 1: "b"}, "valid": {}}) == {"test": "b"}
    other = ToyTask(data=ToyData(rows=6, seed=3), metrics=[Hits()], max_length=7)
    other.setup()
    assert predictions.one_class(other, {"test": {0: "no", 1: "no"}}) == {}
