"""What code, machine and data a run had: all that is needed to tell why two runs differ."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqbench.record import Code, DataFile, Environment, SplitFacts
from seqbench.records import lineage
from seqbench.records.predictions import array_sha256

if TYPE_CHECKING:  # a board asks for versions, without torch
    from tasks.base import Task
    from tasks.data.base import DataSet, Example

PACKAGES = (  # the direct dependencies, as in pyproject.toml (a test holds them equal)
    "torch",
    "pytorch-lightning",
    "hydra-core",
    "omegaconf",
    "pydantic",
    "datasets",
    "evaluate",
    "wandb",
    "tokenizers",
    "safetensors",
    "sacrebleu",
    "seqeval",
    "scikit-learn",
    "scipy",
    "numpy",
    "pandas",
    "pyarrow",
    "pooch",
    "platformdirs",
    "fsspec",
    "psutil",
    "jinja2",
    "pillow",
    "tqdm",
    "tensorboard",
    "optuna",
)
ROOT = lineage.ROOT
SOURCES = lineage.SOURCES


# -- code --------------------------------------------------------------------------------------------------------------
@functools.cache
def code() -> Code:
    """The code as it was when this process first asked, which a run does at its start."""
    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain", "--", *SOURCES) if commit else None
    return Code(
        commit=commit,
        dirty=None if status is None else bool(status),
        source_sha256=source_sha256(ROOT),
        files=lineage.files(ROOT),
    )


def source_sha256(root: Path) -> str:
    """Checksum over the names and bytes of all .py files of the project's packages, in order of their names."""
    total = hashlib.sha256()
    for package in SOURCES:
        for path in sorted((root / package).rglob("*.py")):
            total.update(f"{path.relative_to(root).as_posix()}\0".encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _git(*arguments: str) -> str | None:
    """What git says of our own checkout; None without git or outside a checkout."""
    if not (ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


# -- machine -----------------------------------------------------------------------------------------------------------
def environment(
    *,
    device: str,
    devices: int,
    threads: int,
    precision: str,
    deterministic: bool,
    jobs: int = 1,
    nodes: int = 1,
    strategy: str = "single",
) -> Environment:
    """The machine as this process sees it; `device` is torch's name of the kind: cpu, cuda."""
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(aliased=True, terse=True),
        machine_class=machine_class(device, devices, threads, jobs),
        device=device,
        devices=devices,
        nodes=nodes,
        strategy=strategy,
        threads=threads,
        jobs=jobs,
        precision=precision,
        deterministic=deterministic,
        packages=packages(),
    )


def machine_class(device: str, devices: int, threads: int, jobs: int = 1) -> str:
    """What makes costs comparable: the accelerator and how many; on a CPU its model and threads; runs beside it."""
    beside = f", {jobs} jobs at once" if jobs > 1 else ""
    if device == "cuda":
        import torch

        return f"{devices} x {torch.cuda.get_device_name()}{beside}"
    number = f"{devices} x " if devices > 1 else ""
    return f"{number}{cpu_model()}, {threads} thread{'s' if threads != 1 else ''}{beside}"


@functools.cache
def cpu_model() -> str:
    """Name of the CPU as the system gives it, else its architecture."""
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return " ".join(value.split())
    return platform.processor() or platform.machine()


@functools.cache
def packages() -> dict[str, str]:
    """Versions of the direct dependencies that are installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


# -- data --------------------------------------------------------------------------------------------------------------
def data_files(data: DataSet) -> list[DataFile]:
    """The files that determine the examples."""
    return [DataFile(name=f.name, url=f.url, sha256=f.sha256, size=f.size) for f in data.identity()]


def split_facts(task: Task) -> dict[str, SplitFacts]:
    """Counts and checksum of every split, and how many of its rows read what stands in train, too."""
    facts = {}
    seen: set[int] = set()  # of train: hashes of what is read
    for split in sorted(task.examples, key=lambda split: split != "train"):
        examples, account = task.examples[split], task.accounting(split)
        checksum, inputs = _read_through(examples)
        if split == "train":
            seen = set(inputs)
        facts[split] = SplitFacts(
            examples=account.examples,
            positions=account.positions,
            truncated=account.truncated,
            dropped=account.dropped,
            sha256=checksum,
            in_train=len(inputs) - len(seen) if split == "train" else sum(each in seen for each in inputs),
        )
    return {split: facts[split] for split in task.examples}


def examples_sha256(examples: Sequence[Example]) -> str:
    """Checksum of examples, of what they say and not how it is stored: a line of canonical JSON each.

    Arrays stand there as checksum of type, shape and numbers.
    """
    return _read_through(examples)[0]


def _read_through(examples: Sequence[Example]) -> tuple[str, list[int]]:
    """The checksum of examples, and of each a hash (of this process alone) of its source and streams."""
    total, inputs = hashlib.sha256(), []
    for i in range(len(examples)):
        example = examples[i]
        given = f'"source":{canonical(example.source)},"streams":{canonical(dict(example.streams))}'
        total.update(f'{{{given},"target":{canonical(example.target)}}}\n'.encode())
        inputs.append(hash(given))
    return total.hexdigest(), inputs


def canonical(value: Any) -> str:
    """Canonical JSON of a source, a target or streams: keys sorted, no spaces, arrays by their checksum."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=_canonical)


def _canonical(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"array": array_sha256(value)}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"an example holds a {type(value).__name__}; text, numbers, lists, tuples and arrays only")
