"""Records as runs would leave them, made up by formula: what the board is tested with."""
# N examples

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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
    Status,
    TaskFacts,
)
from seqbench.records.store import Store

CPU, GPU = "Xeon 8481C, 1 device, 2 threads", "H100 80GB, 1 device"
MODALITY = {"listops": "synthetic", "etth1": "time series", "atis_slots": "text", "stsb": "text"}
METRIC = {  # name, best, unit, class
    "listops": ("accuracy", "max", "%", "own.package.Accuracy"),  # not importable: only its mean can be checked
    "etth1": ("mse", "min", "", "tasks.metrics.errors.MSE"),
    "atis_slots": ("f1", "max", "%", "own.package.F1"),
    "stsb": ("spearman", "max", "", "tasks.metrics.correlation.Spearman"),
}


def config(
    task: str, encoder: str, seed: int, *, results: str, encoder_keys: Mapping[str, Any] | None = None, **keys: Any
) -> dict[str, Any]:
    """A resolved config; `keys` are dotted with two underscores (budget__steps=200)."""
    made: dict[str, Any] = {
        "encoder": {"_target_": f"encoders.{encoder}.Encoder", "dim": 64, "depth": 2, **(encoder_keys or {})},
        "task": {"_target_": f"tasks.{task}.Task", "data": {"_target_": f"tasks.data.{task}.Data", "rows": 900}},
        "protocol": {"train": "all"},
        "budget": {"steps": 100, "batch_size": 64},
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-3, "betas": [0.9, 0.98]},
        "schedule": {"kind": "cosine"},
        "trainer": {"precision": "32-true", "accelerator": "cpu", "workers": 0, "threads": None},
        "logger": None,
        "seed": seed,
        "label": None,
        "results": results,
    }
    for key, value in keys.items():
        *sections, name = key.split("__")
        section = made
        for each in sections:
            section = section[each]
        section[name] = value
    return made


def write(
    results: Path,
    *,
    task: str = "listops",
    encoder: str = "encoder_only",
    label: str | None = None,
    task_label: str = "",
    files: Sequence[DataFile] = (),
    family: str | None = None,
    seed: int = 0,
    status: Status = "finished",
    reason: str | None = None,
    statistics: Mapping[str, np.ndarray] | None = None,
    value: float | None = 0.5,
    n: int = 100,
    machine: str = CPU,
    parameters: int = 100_000,
    points: int = 5,
    parquet: bool = True,
    data_sha256: str = "d" * 64,
    dirty: bool = False,
    train_items: int | None = None,
    encoder_keys: Mapping[str, Any] | None = None,
    **keys: Any,
) -> Record:
    """Write a record (with its predictions, where statistics are given) and return it."""
    resolved = config(task, encoder, seed, results="results", encoder_keys=encoder_keys, **keys)
    run_id = hashlib.sha256(repr((label, resolved, machine, data_sha256)).encode()).hexdigest()[:16]
    metric, best, unit, target = METRIC.get(task, ("accuracy", "max", "%", "own.package.Accuracy"))
    finished = status == "finished"
    predictions = None
    if statistics is not None and finished:
        n = len(next(iter(statistics.values())))
        data = parquet_bytes(metric, statistics)
        predictions = Artefact(path="predictions.parquet", sha256=hashlib.sha256(data).hexdigest())
        if parquet:
            (results / run_id).mkdir(parents=True, exist_ok=True)
            (results / run_id / predictions.path).write_bytes(data)
        if set(statistics) == {"value"}:
            value = float(statistics["value"].mean())
    score = ScoreFacts(value=value, n=n, best=best, unit=unit, target=target)
    end = 0.5 if value is None else value
    curve = [
        Point(
            step=20 * i,
            seconds=1.5 * i,
            tokens=4000 * i,
            values={f"valid/{metric}": end * (1 - 0.6 ** (i + 1)), "train/loss": 2.0 * 0.7**i},
        )
        for i in range(points)
    ]
    record = Record(
        id=run_id,
        status=status,
        reason=reason,
        task=TaskFacts(
            name=task,
            label=task_label,
            kind="Classification",
            version=1,
            data_version=1,
            modality=MODALITY.get(task, "synthetic"),
        ),
        encoder=EncoderFacts(
            name=encoder, label=label or encoder, family=family or encoder.replace("_", "-"), target="encoders.E"
        ),
        protocol="full",
        seed=seed,
        studies=["made_up"],
        overrides=[f"encoder={encoder}", f"task={task}", f"seed={seed}"],
        config=resolved,
        data=list(files),
        headline=metric if finished else None,
        scores={"test": {metric: score}, "valid": {metric: score}} if finished else {},
        curves=curve,
        splits={"test": SplitFacts(examples=n, positions=9 * n, truncated=0, dropped=0, sha256=data_sha256)}
        if finished
        else {},
        cost=Cost(
            parameters=parameters,
            flops_train=6.0e6 * parameters,
            wall_seconds=40.0 + seed,
            train_items=train_items,
            train_tokens_per_second=2.0e10 / max(parameters, 1000),
            latency=Latency(batch_size=1, p50_ms=0.05 + parameters / 1e5, p95_ms=0.07 + parameters / 8e4, repeats=50),
            peak_memory_mib=300.0,
        ),
        code=Code(commit="c" * 40, dirty=dirty, source_sha256="5" * 64),
        environment=Environment(
            python="3.11",
            platform="Linux",
            machine_class=machine,
            device="cpu",
            devices=1,
            threads=2,
            precision="32-true",
            deterministic=True,
            packages={"torch": "2.13.0", "numpy": "2.4.6"},
        ),
        predictions=predictions,
        started="2026-01-01T00:00:00Z",
        ended=f"2026-01-01T00:00:{seed:02d}Z",
    )
    Store(results).write(record)
    return record


def parquet_bytes(metric: str, statistics: Mapping[str, np.ndarray]) -> bytes:
    """A predictions file: test rows (in reverse order, which must not matter) and two of validation."""
    n = len(next(iter(statistics.values())))
    columns: dict[str, Any] = {
        "split": ["test"] * n + ["valid"] * 2,
        "row": [*reversed(range(n)), 0, 1],
        "prediction": ["0"] * (n + 2),
        "reference": ["0"] * (n + 2),
    }
    for name, values in statistics.items():
        columns[f"{metric}/{name}"] = [*map(float, values[::-1]), 7.0, 7.0]
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue().to_pybytes()


def hits(rate: float, n: int, *seed: int) -> dict[str, np.ndarray]:
    """0/1 hits; the same examples are hard in all of them, so that pairing has something to gain."""
    hardness = np.random.default_rng(7).uniform(size=n)
    noise = np.random.default_rng([8, *seed]).normal(scale=0.05, size=n)
    return {"value": (hardness + noise < rate).astype(np.float64)}


def study(results: Path) -> None:
    """A board with everything on it: ties, failures, one seed, two machine classes, an undefined score, no Parquet."""
    encoders = {  # family, parameters, rate on ListOps, error on ETTh1
        "encoder_only": ("encoder-only", 210_000, 0.86, 0.40),
        "decoder_only": ("decoder-only", 205_000, 0.78, 0.42),
        "encoder_decoder": ("encoder-decoder", 310_000, 0.855, 0.41),
        "lstm": ("recurrent", 150_000, 0.60, 0.38),
        "dlinear": ("linear", 20_000, 0.41, 0.375),
        "majority": ("trivial", 0, 0.18, 1.0),
    }
    for i, (encoder, (family, size, rate, error)) in enumerate(encoders.items()):
        for seed in range(3):
            common: dict[str, Any] = {"encoder": encoder, "family": family, "seed": seed, "parameters": size}
            if encoder == "lstm" and seed == 2:
                write(results, task="listops", status="diverged", reason="loss is NaN at step 61", **common)
            else:
                write(results, task="listops", statistics=hits(rate + 0.01 * seed, 600, i, seed), **common)
            squares = error * np.random.default_rng([i, seed]).chisquare(4, size=300) / 4
            if encoder == "encoder_decoder":
                write(
                    results, task="etth1", status="out_of_memory", reason="CUDA out of memory: 2.00 GiB\nat x", **common
                )
            else:
                write(results, task="etth1", statistics={"value": squares}, machine=GPU if i == 1 else CPU, **common)
        common = {"encoder": encoder, "family": family, "parameters": size}
        if family != "linear":
            write(results, task="atis_slots", value=rate, parquet=False, statistics=hits(rate, 50, i), **common)
        write(results, task="stsb", value=None if family == "trivial" else rate - 0.2, n=150, **common)
    write(results, encoder="encoder_only", statistics=hits(0.88, 600, 9), encoder_keys={"depth": 6}, parameters=500_000)
