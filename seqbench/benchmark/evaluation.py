"""Evaluation of a test split, metrics included, against the Trainer of transformers with the same weights."""
# B batch, L positions, D width, K classes

from __future__ import annotations

import csv
import functools
import importlib
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders.base import Encoder
from seqbench.benchmark.base import Row, Settings, alternate, compared
from seqbench.build import build
from seqbench.composition.nodes import compose_node
from seqbench.training.evaluation import Evaluator
from tasks.base import Task
from tasks.data import pinned
from tasks.loading import Batching

CLASSES = ("negative", "positive")
TOKENS = 16384  # positions a batch: budget.eval_batch_tokens of configs/budget/default.yaml
WORDS = 2000  # of the vocabulary of generated rows
GOAL = 1.2


def measure(settings: Settings) -> list[Row]:
    """Rows of the test split a second, from ids to scores; predictions are held against each other first."""
    # Lightning#21326 and the like: what a library warns of its own use of torch
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        torch.manual_seed(settings.seed)
        task, where = _task(Path(folder), settings)
        pair = Pair(task, settings)
        sizes = (8,) if settings.quick else (8, 64)
        rows = []
        for size in sizes:
            trainer = pair.trainer(Path(folder), size)
            pair.check(trainer)
            number = len(task.lengths("test"))
            rows.append(
                compared(
                    f"{where}, theirs in batches of {size}{' (its default)' if size == 8 else ''}",
                    alternate(
                        _rate(settings, number, pair.ours),
                        _rate(settings, number, functools.partial(trainer.predict, pair.split)),
                        repeats=settings.pairs(7),
                    ),
                    unit="rows/s",
                    goal=GOAL,
                    better="higher",
                )
            )
        return rows


def _rate(settings: Settings, rows: int, call: Callable[[], object]) -> Callable[[], float]:
    return lambda: rows / settings.seconds(call)


def _task(folder: Path, settings: Settings) -> tuple[Task, str]:
    """SST-2 where its files are there, else rows of as many words, which are drawn."""
    changes: dict[str, Any] = {"readout": "first"}
    if pinned.is_cached("sst2") and not settings.quick:
        name, where = "sst2", "SST-2"
    else:
        name, where = "own_classification", "generated rows as long as SST-2's"
        for split, rows in (("train", 400), ("valid", 50), ("test", 60 if settings.quick else 1800)):
            _draw(folder / f"{split}.csv", rows, [settings.seed, rows])
        files = {split: str(folder / f"{split}.csv") for split in ("train", "valid", "test")}
        changes["data"] = files | {"columns": {"source": "text", "target": "label"}}
        changes["tokenizer"] = {"_target_": "tasks.tokenizers.Words", "min_count": 1, "max_size": None}
    task = build(compose_node("task", name, changes=changes), "task", ["tasks"])
    assert isinstance(task, Task)
    task.data.check()
    task.setup()
    return task, where


def _draw(path: Path, rows: int, seed: Sequence[int]) -> None:
    """Texts of 2 to 56 words, 19 in the mean, as the sentences that SST-2 tests on."""
    draw = np.random.default_rng(seed)
    lengths = np.clip(np.round(draw.normal(19.2, 9.3, size=rows)), 2, 56).astype(int)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for length in lengths:
            words = " ".join(f"w{k}" for k in np.minimum(draw.zipf(1.3, size=length), WORDS))
            writer.writerow([words, CLASSES[int(draw.integers(2))]])


class Peer(nn.Module):
    """BERT of transformers with a linear head over the first state, as its Trainer takes it."""

    def __init__(self, bert: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.bert, self.head = bert, head

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Loss and logits (B, K)."""
        states_BLD = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits_BK = self.head(states_BLD[:, 0])
        return {"loss": nn.functional.cross_entropy(logits_BK, labels), "logits": logits_BK}


class Pair:
    """Our preset on a task, and theirs with the same weights on the same ids."""

    def __init__(self, task: Task, settings: Settings) -> None:
        import transformers

        self.task = task
        size = 128
        sizes: dict[str, Any] = {
            "vocab_size": task.spec.vocab_size,
            "hidden_size": size,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 4 * size,
            "max_position_embeddings": task.spec.max_length,
        }
        config = transformers.BertConfig(**sizes)
        bert = transformers.BertModel(config, add_pooling_layer=False)
        encoder = build(compose_node("encoder", "bert", changes={}), "encoder", ["encoders"], spec=task.spec)
        assert isinstance(encoder, Encoder)
        conversion: Any = importlib.import_module("encoders.conversion")
        names = conversion.bert_names(prefix="bert.", offset=0)
        encoder.load_state_dict(conversion.convert(bert.state_dict(), names, encoder.state_dict()))
        task.attach(encoder)
        head: Any = task.head
        nn.init.normal_(head.weight)  # classes that differ
        self.peer = Peer(bert, head)
        self.evaluator = Evaluator(
            task=task,
            encoder=encoder,
            batching=Batching(tokens=TOKENS),
            device=torch.device("cpu"),
            precision=nullcontext,
            workers=0,
            seed=settings.seed,
        )
        batches: Any = [task.collate("test", np.array([row])) for row in range(len(task.lengths("test")))]
        self.split = [{"ids": batch.source.values[0], "label": int(batch.label)} for batch in batches]

    def ours(self) -> dict[str, float]:
        """Scores by metric."""
        found = self.evaluator.run("test")
        return {name: score.value for name, score in self.task.score("test", found.predictions).items()}

    def trainer(self, folder: Path, batch_size: int) -> Any:
        """Theirs."""
        import transformers

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        return transformers.Trainer(
            model=self.peer,
            args=transformers.TrainingArguments(
                output_dir=str(folder / "trainer"),
                per_device_eval_batch_size=batch_size,
                remove_unused_columns=False,
                disable_tqdm=True,
                report_to="none",
                use_cpu=True,
            ),
            data_collator=_collate,
            compute_metrics=_scores,
        )

    def check(self, trainer: Any) -> None:
        """Raises AssertionError where the two predict or score otherwise."""
        theirs = trainer.predict(self.split)
        task: Any = self.task
        predicted = [task.classes[k] for k in theirs.predictions.argmax(1)]
        found = self.evaluator.run("test").predictions
        assert [found[row] for row in range(len(predicted))] == predicted, "predictions differ"
        for name, value in self.ours().items():
            assert abs(theirs.metrics[f"test_{name}"] - value) < 1e-9, f"{name} differs"


def _collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    ids = [row["ids"] for row in rows]
    padded_BL = nn.utils.rnn.pad_sequence(ids, batch_first=True)
    lengths_B = torch.tensor([len(row) for row in ids])
    mask_BL = (torch.arange(padded_BL.shape[1]) < lengths_B[:, None]).long()
    return {"input_ids": padded_BL, "attention_mask": mask_BL, "labels": torch.tensor([row["label"] for row in rows])}


def _scores(found: Any) -> dict[str, float]:
    """Accuracy and macro F1 over the classes that occur."""
    predicted_B, label_B = found.predictions.argmax(1), found.label_ids
    f1 = [
        2 * ((predicted_B == k) & (label_B == k)).sum() / ((predicted_B == k).sum() + (label_B == k).sum())
        for k in np.union1d(predicted_B, label_B)
    ]
    return {"accuracy": float((predicted_B == label_B).mean()), "macro_f1": float(np.mean(f1))}
