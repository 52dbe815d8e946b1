"""Configs of the toy task and encoder, with dotted changes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from seqbench.config import Names, RunConfig, check_config

TREE: dict[str, Any] = {
    "encoder": {"_target_": "tests.seqbench.toy.ToyEncoder", "dim": 12, "dropout": 0.2},
    "task": {
        "_target_": "tests.seqbench.toy.ToyTask",
        "data": {"_target_": "tests.seqbench.toy.ToyData", "rows": 42, "seed": 3},
        "metrics": [{"_target_": "tests.seqbench.toy.Hits"}, {"_target_": "tests.seqbench.toy.Misses"}],
        "max_length": 7,
    },
    "protocol": {"train": "all"},
    "budget": {
        "steps": 20,
        "batch_size": 8,
        "batch_tokens": None,
        "eval_every": 5,
        "eval_limit": 10,
        "eval_batch_tokens": 40,
        "patience": None,
        "select": "best",
    },
    "optimizer": {
        "_target_": "torch.optim.AdamW",
        "lr": 0.03,
        "betas": [0.9, 0.98],
        "eps": 1e-8,
        "weight_decay": 0.01,
    },
    "schedule": {"kind": "cosine", "warmup": 0.1, "floor": 0.05},
    "trainer": {
        "accelerator": "cpu",
        "devices": 1,
        "precision": "32-true",
        "accumulate": 2,
        "clip": 1.0,
        "workers": 0,
        "threads": 1,
        "invariance_rows": 0,
        "save_every": None,
        "time_limit": None,
        "explosion": 10.0,
        "progress": False,
    },
    "logger": {"csv": {"every": 2}},
    "seed": 0,
    "label": None,
    "rerun": "never",
    "jobs": 1,
    "deterministic": True,
    "allowed": ["tests.seqbench.toy", "encoders", "torch.optim"],
}
NAMES = Names(
    encoder="toy",
    task="toy",
    protocol="full",
    budget="default",
    optimizer="adamw",
    schedule="cosine",
    trainer="cpu",
    logger="csv",
)


def toy_config(results: Path, changes: dict[str, Any] | None = None, *, study: str | None = None) -> RunConfig:
    """The toy run, with changes by dotted key: {"budget.steps": 3}."""
    tree = copy.deepcopy(TREE) | {"results": str(results)}
    for key, value in (changes or {}).items():
        *sections, last = key.split(".")
        node = tree
        for section in sections:
            node = node[section]
        node[last] = value
    return check_config(tree, NAMES.model_copy(update={"study": study}), [], allowed=tree["allowed"])


def broken(how: str, at: int) -> dict[str, Any]:
    """Changes that make the encoder go wrong in its `at`-th forward pass of training (two of them a step)."""
    encoder = {"_target_": "tests.seqbench.toy.BrokenEncoder", "dim": 12, "dropout": 0.2, "how": how, "at": at}
    return {"encoder": encoder}
