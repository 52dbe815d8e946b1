"""What is known of a record before anything is done: task, encoder, config, code, machine."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import torch

from seqbench.build import locate
from seqbench.config import RunConfig
from seqbench.record import EncoderFacts, Record, TaskFacts
from seqbench.records import provenance
from seqbench.records.identity import IDS, own_sources
from seqbench.records.labels import column_label, row_label
from tasks.base import Task


def facts(
    config: RunConfig,
    task: Task,
    run_id: str,
    known: Record | None,
    *,
    threads: int | None = None,
    jobs: int = 1,
    devices: int = 1,
    nodes: int = 1,
) -> dict[str, Any]:
    """Fields of a Record by name. `known` is the record that there is already, whose studies are kept.

    `threads` are those of the process that the run is in (None: this one's), `jobs` how many runs the machine has at
    once, `devices` the ranks that it has on `nodes` machines.

    Raises ConfigError for a `_target_` that can't be imported.
    """
    names = config.names
    target = str(config.encoder["_target_"])
    return {
        "id": run_id,
        "ids": IDS,
        "task": TaskFacts(
            name=names.task,
            label=column_label(config),
            kind=type(task).__name__,
            version=task.version,
            data_version=task.data.version,
            modality=task.data.modality,
        ),
        "encoder": EncoderFacts(
            name=names.encoder,
            label=row_label(config),
            family=getattr(locate(target, "encoder", config.allowed), "family", "other"),
            target=target,
        ),
        "protocol": names.protocol,
        "seed": config.seed,
        "studies": sorted({*(known.studies if known else ()), *([names.study] if names.study else ())}),
        "overrides": config.overrides,
        "config": {key: value for key, value in config.resolved().items() if key != "mirror"},
        "headline": task.headline.name,
        "data": provenance.data_files(task.data),
        "code": provenance.code().model_copy(update={"own": own_sources(config)}),
        "environment": provenance.environment(
            device=device_of(config),
            devices=devices,
            nodes=nodes,
            strategy="single" if devices == 1 else strategy_of(config),
            threads=config.trainer.threads or threads or torch.get_num_threads(),
            precision=config.trainer.precision,
            deterministic=config.deterministic,
            jobs=jobs,
        ),
        "started": now(),
    }


def strategy_of(config: RunConfig) -> str:
    """How several ranks share a training: ddp or fsdp."""
    return "ddp" if config.trainer.strategy == "auto" else config.trainer.strategy


def device_of(config: RunConfig) -> str:
    """Torch's name of the kind of device that the trainer will take."""
    accelerator = config.trainer.accelerator
    if accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return "cuda" if accelerator == "gpu" else accelerator


def now() -> str:
    """The time as records have it: ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
