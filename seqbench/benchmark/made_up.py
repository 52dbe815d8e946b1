"""Records as runs leave them, made up by the thousand: what boards and planning are measured with."""
# N examples of a split

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqbench.record import (
    Artefact,
    Code,
    Cost,
    DataFile,
    EncoderFacts,
    Environment,
    Latency,
    Point,
    Record,
    ScoreFacts,
    SplitFacts,
    TaskFacts,
    Variation,
)
from seqbench.records import lineage
from seqbench.records.store import NAME, sealed

FAMILIES = ("encoder-only", "decoder-only", "encoder-decoder", "recurrent", "convolutional", "state-space", "linear")
VALID = 200  # examples of the validation split
POINTS = 10  # evaluations of a run
MACHINE = "made up, 1 device, 1 thread"
EVERY_OTHER_METRIC = 5  # each fifth task has a score that is no mean of its examples


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """How many records: a full grid. The first encoder is a floor."""

    encoders: int
    tasks: int
    seeds: int
    examples: int = 500  # of the test split

    @property
    def records(self) -> int:
        """All of them."""
        return self.encoders * self.tasks * self.seeds

    def __str__(self) -> str:
        return f"{self.encoders} x {self.tasks} x {self.seeds}"


def shape_of(records: int) -> Shape:
    """25 tasks and 10 seeds, as many encoders as come to so many records; smaller grids for less than 1,000."""
    tasks, seeds = (25, 10) if records >= 1000 else (5, 4)
    return Shape(encoders=max(2, records // (tasks * seeds)), tasks=tasks, seeds=seeds)


def write(results: Path, shape: Shape) -> None:
    """Write `<results>/<id>/record.json` and `predictions.parquet` for a whole grid; not atomically, nothing waits.

    The bytes are those of `store` and `predictions` in seqbench/records, all drawn by formula: the same shape gives
    the same files.
    """
    code = Code(commit="c" * 40, dirty=False, source_sha256="5" * 64, files=lineage.files(), own={})
    for encoder, task, seed in _cells(shape):
        statistics = _statistics(shape, encoder, task, seed)
        predictions = _parquet(statistics)
        record = _record(shape, encoder, task, seed, statistics, predictions, code)
        folder = results / record.id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "predictions.parquet").write_bytes(predictions)
        (folder / NAME).write_bytes(sealed(record))


def _cells(shape: Shape) -> Iterator[tuple[int, int, int]]:
    for encoder in range(shape.encoders):
        for task in range(shape.tasks):
            for seed in range(shape.seeds):
                yield encoder, task, seed


def metric_of(task: int) -> tuple[str, str]:
    """Name and class of a task's headline."""
    if task % EVERY_OTHER_METRIC == EVERY_OTHER_METRIC - 1:
        return "token_accuracy", "tasks.metrics.accuracy.TokenAccuracy"
    return "accuracy", "tasks.metrics.accuracy.Accuracy"


def _statistics(shape: Shape, encoder: int, task: int, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """By split: columns of (N,). The same examples are hard for all, as they are in the field."""
    rate = 0.2 if encoder == 0 else 0.5 + 0.4 * (encoder / shape.encoders) * (1 - 0.02 * (task % 7))
    found = {}
    for split, size in (("valid", VALID), ("test", shape.examples)):
        hard = np.random.default_rng([task, size]).uniform(size=size)
        own = np.random.default_rng([encoder, task, seed, size])
        hits = (hard + own.normal(scale=0.1, size=size) < rate).astype(np.float64)
        if metric_of(task)[0] == "accuracy":
            found[split] = {"value": hits}
        else:
            tokens = 5.0 + np.floor(20 * hard)
            found[split] = {"hits": np.round(hits * tokens * own.uniform(0.6, 1.0, size)), "tokens": tokens}
    return found


def _score(values: Mapping[str, np.ndarray]) -> float:
    return float(values["value"].mean() if "value" in values else values["hits"].sum() / values["tokens"].sum())


def _parquet(statistics: Mapping[str, Mapping[str, np.ndarray]]) -> bytes:
    """As seqbench.records.predictions writes it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for split, columns in statistics.items():
        size = len(next(iter(columns.values())))
        name = "accuracy" if "value" in columns else "token_accuracy"
        first = next(iter(columns.values()))
        tables.append(
            pa.table(
                {
                    "split": [split] * size,
                    "row": np.arange(size, dtype=np.int64),
                    "prediction": [f'"label {int(x)}"' for x in first],
                    "reference": [f'"label {row % 6}"' for row in range(size)],
                    **{f"{name}/{key}": values for key, values in columns.items()},
                }
            )
        )
    buffer = io.BytesIO()
    pq.write_table(pa.concat_tables(tables, promote_options="default"), buffer, compression="zstd")
    return buffer.getvalue()


def config_of(encoder: int, task: int, seed: int) -> dict[str, Any]:
    """A resolved config of the size that real ones have."""
    return {
        "encoder": {
            "_target_": "encoders.encoder_only.EncoderOnly",
            "dim": 32 + 8 * encoder,
            "depth": 4,
            "heads": 4,
            "hidden": 512,
            "dropout": 0.1,
            "norm": "layer",
            "position": {"_target_": "encoders.blocks.positions.Rotary", "base": 10000.0},
        },
        "task": {
            "_target_": "tasks.classification.Classification",
            "data": {"_target_": "tasks.data.listops.ListOps", "train": 20000 + task, "valid": VALID, "test": 500},
            "tokenizer": {"_target_": "tasks.tokenizers.Words", "min_count": 1, "max_size": None},
            "max_length": 128 + task,
            "readout": "mean",
            "label_smoothing": 0.0,
            "metrics": [{"_target_": metric_of(task)[1]}],
        },
        "protocol": {"train": "all"},
        "budget": {
            "steps": 1000,
            "tokens": None,
            "flops": None,
            "seconds": None,
            "batch_size": 64,
            "batch_tokens": None,
            "eval_every": 100,
            "eval_limit": None,
            "eval_batch_tokens": 16384,
            "patience": None,
            "select": "best",
            "match": None,
            "target": None,
            "vary": "width",
            "count": "all",
            "tolerance": None,
            "matched": None,
        },
        "optimizer": {
            "_target_": "torch.optim.AdamW",
            "lr": 0.001,
            "betas": [0.9, 0.98],
            "eps": 1e-8,
            "weight_decay": 0.01,
        },
        "schedule": {"kind": "cosine", "warmup": 0.1, "floor": 0.0},
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "precision": "32-true",
            "accumulate": 1,
            "clip": 1.0,
            "workers": 0,
            "threads": 1,
            "invariance_rows": 32,
            "save_every": 300.0,
            "time_limit": None,
            "explosion": 10.0,
            "progress": False,
        },
        "logger": {"csv": {"every": 20}, "tensorboard": None, "wandb": None},
        "tune": None,
        "seed": seed,
        "label": None,
        "task_label": None,
        "results": "results",
        "rerun": "never",
        "jobs": 1,
        "deterministic": True,
        "allowed": ["encoders", "tasks", "torch.optim"],
    }


def _record(
    shape: Shape,
    encoder: int,
    task: int,
    seed: int,
    statistics: Mapping[str, Mapping[str, np.ndarray]],
    predictions: bytes,
    code: Code,
) -> Record:
    config = config_of(encoder, task, seed)
    text = json.dumps([encoder, task, seed, shape.examples])
    metric, target = metric_of(task)
    noise = np.random.default_rng([encoder, task, seed]).uniform(0.9, 1.1, size=8)
    size = 50_000 + 5_000 * encoder
    end = _score(statistics["test"])
    family = "trivial" if encoder == 0 else FAMILIES[encoder % len(FAMILIES)]
    return Record(
        id=hashlib.sha256(text.encode()).hexdigest()[:16],
        ids=3,
        status="finished",
        task=TaskFacts(name=f"task_{task:02d}", kind="Classification", version=1, data_version=1, modality="synthetic"),
        encoder=EncoderFacts(
            name=f"encoder_{encoder:03d}", label=f"encoder_{encoder:03d}", family=family, target="encoders.E"
        ),
        protocol="full",
        seed=seed,
        studies=["made_up"],
        overrides=[f"encoder=encoder_{encoder:03d}", f"task=task_{task:02d}", f"seed={seed}"],
        config=config,
        headline=metric,
        scores={
            split: {
                metric: ScoreFacts(
                    value=_score(columns), n=len(next(iter(columns.values()))), best="max", unit="", target=target
                )
            }
            for split, columns in statistics.items()
        },
        curves=[
            Point(
                step=100 * (i + 1),
                seconds=float(6.1 * (i + 1) * noise[0]),
                tokens=50_000 * (i + 1),
                values={
                    "train/loss": float(2.0 * 0.7**i * noise[1]),
                    "train/lr": 0.001,
                    "valid/loss": float(2.1 * 0.75**i * noise[2]),
                    f"valid/{metric}": end * (1 - 0.6 ** (i + 1)),
                },
            )
            for i in range(POINTS)
        ],
        data=[
            DataFile(name=f"task_{task:02d}.train", url=f"https://example.org/{task}", sha256=f"{task:064d}", size=9)
        ],
        splits={
            split: SplitFacts(
                examples=number,
                positions=60 * number,
                truncated=0,
                dropped=0,
                sha256=hashlib.sha256(f"{task} {split}".encode()).hexdigest(),
                in_train=0,
            )
            for split, number in (("train", 20_000), ("valid", VALID), ("test", shape.examples))
        },
        cost=Cost(
            parameters=size,
            parameters_encoder=size - 600,
            parameters_embedding=2_000,
            parameters_trained=size,
            flops_train=6.0e9 * size,
            flops_forward=2.0 * size,
            train_seconds=float(60 * noise[3]),
            wall_seconds=float(66 * noise[3]),
            data_wait_share=float(0.01 * noise[4]),
            padding_share=float(0.05 * noise[5]),
            train_tokens=500_000,
            train_items=64_000,
            train_tokens_per_second=float(9_000 * noise[3]),
            eval_examples_per_second=float(4_000 * noise[4]),
            latency=Latency(batch_size=1, p50_ms=float(0.4 * noise[5]), p95_ms=float(0.5 * noise[5]), repeats=50),
            peak_memory_mib=float(280 * noise[6]),
        ),
        invariance={
            way: Variation(
                verdict="same", rows=32, tolerance=1e-4, seconds=float(0.01 * noise[7]), loss_difference=1e-7
            )
            for way in ("workers_0", "workers_2", "batch_1", "padding")
        },
        code=code,
        environment=Environment(
            python="3.11.9",
            platform="Linux",
            machine_class=MACHINE,
            device="cpu",
            devices=1,
            threads=1,
            precision="32-true",
            deterministic=True,
            packages={"torch": "2.13.0", "numpy": "2.4.6", "pytorch-lightning": "2.6.6", "transformers": "5.0.0"},
        ),
        predictions=Artefact(path="predictions.parquet", sha256=hashlib.sha256(predictions).hexdigest()),
        checkpoint=Artefact(path="model.safetensors", sha256="0" * 64),
        best_step=1000,
        started="2026-01-01T00:00:00+00:00",
        ended=f"2026-01-01T00:{seed % 60:02d}:00+00:00",
    )
