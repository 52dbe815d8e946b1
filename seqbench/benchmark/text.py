"""Training on text of unequal lengths, against transformers' Trainer: real tokens per second, peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqbench.benchmark.base import Row, Settings, compared
from seqbench.errors import ConfigError
from tasks.data.base import DataError

if TYPE_CHECKING:
    from seqbench.benchmark.text_ours import Ours

SETS = {"sst2": "SST-2, BERT preset", "multi30k": "Multi30k de-en, BART preset"}
SIDES = ("ours", "ours packed", "Trainer", "Trainer grouped")
GOALS = {"Trainer": 1.5, "Trainer grouped": 1.0}
ROWS = 64  # a step


def measure(settings: Settings) -> list[Row]:
    """Rows of both data sets: each of our two paths against the Trainer's default and its `group_by_length`.

    The same model and first weights, the same optimizer, 64 rows a step drawn from the same ids; the sides take turns.
    Tokens are real positions, of source and target, from the end of the first step on. Memory is the peak of a process
    that does nothing else. Raises ConfigError where the data is not in the cache.
    """
    rows: list[Row] = []
    for name, title in list(SETS.items())[: 1 if settings.quick else None]:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            train = sides_of(name, folder, settings)
            speeds = _turns(train, settings)
            for ours in SIDES[:2]:
                for peer, goal in GOALS.items():
                    rows.append(
                        compared(
                            f"{title}: {ours}, to {peer}",
                            list(zip(speeds[ours], speeds[peer], strict=True)),
                            unit="tokens/s",
                            goal=goal,
                            better="higher",
                        )
                    )
            peaks = {side: [_peak(name, folder, side, settings) for _ in range(settings.pairs(3))] for side in SIDES}
            rows += [
                compared(
                    f"{title}: peak memory of {ours}, to {peer}",
                    list(zip(peaks[ours], peaks[peer], strict=True)),
                    unit="MiB",
                    goal=None,
                    better="lower",
                )
                for ours, peer in zip(SIDES[:2], SIDES[2:], strict=True)
            ]
    return rows


Train = Callable[[int], tuple[int, float]]  # by a seed: real positions, and seconds


def sides_of(name: str, folder: Path, settings: Settings) -> dict[str, Train]:
    """The four trainings of a data set. Leaves in the folder what a process of its own needs to do one."""
    ours = _prepared(name, folder)
    peer = peer_of(name, folder)
    steps = _steps(settings)
    return {
        "ours": lambda seed: ours.train(settings, steps=steps, seed=seed, packed=False),
        "ours packed": lambda seed: ours.train(settings, steps=steps, seed=seed, packed=True),
        "Trainer": lambda seed: peer.train(settings, steps=steps, seed=seed, sampling="random"),
        "Trainer grouped": lambda seed: peer.train(settings, steps=steps, seed=seed, sampling="group_by_length"),
    }


def peer_of(name: str, folder: Path) -> Any:
    """The Trainer's side, from what is in the folder."""
    from seqbench.benchmark.text_peer import Peer

    with np.load(folder / "features.npz") as arrays:
        columns = {
            key: np.split(arrays[key], np.cumsum(arrays[f"{key}_lengths"])[:-1]) for key in ("input_ids", "labels")
        }
        pad = int(arrays["pad"])
    single = name == "sst2"
    features = [
        {"input_ids": ids.tolist(), "labels": int(labels[0]) if single else labels.tolist()}
        for ids, labels in zip(columns["input_ids"], columns["labels"], strict=True)
    ]
    return Peer(name, folder, features=features, pad=pad, rows=ROWS)


def _prepared(name: str, folder: Path) -> Ours:
    """Our side, and in the folder a checkpoint of random weights, the head's, and the ids of the training split."""
    from seqbench.benchmark import text_peer
    from seqbench.benchmark.text_ours import Ours

    try:
        ours = Ours(name, folder, rows=ROWS)
    except DataError as error:
        raise ConfigError(str(error)) from None
    task: Any = ours.task
    specials = task.tokenizer.specials
    special = {key: getattr(specials, key) for key in ("bos", "eos", "pad")}
    positions = max(task.spec.max_length, task.spec.target_length)
    text_peer.save(name, folder, vocab_size=task.spec.vocab_size, positions=positions, special=special)
    ours.pair(ours.config(steps=1, seed=0, packed=False))
    if name == "sst2":
        sources, labels = task.sources["train"].rows, task.labels["train"]
        lengths = np.ones(len(labels), dtype=np.int64)
    else:  # a target without what stands before it: the library's collator puts that there
        sources, targets = task.sources["train"], task.targets["train"]
        labels, lengths = np.delete(targets.values, targets.offsets[:-1]), targets.lengths - 1
    np.savez(
        folder / "features.npz",
        input_ids=sources.values,
        input_ids_lengths=sources.lengths,
        labels=labels,
        labels_lengths=lengths,
        pad=specials.pad,
    )
    return ours


def _steps(settings: Settings) -> int:
    return 3 if settings.quick else 101


def _turns(train: dict[str, Train], settings: Settings) -> dict[str, list[float]]:
    """Real positions a second of each side, turn by turn; who begins changes, and so do the batches."""
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    for turn in range(settings.pairs(7) + 1):
        order = [SIDES[(turn + i) % len(SIDES)] for i in range(len(SIDES))]
        for side in order:
            tokens, seconds = train[side](settings.seed + turn)
            if turn:  # the first is thrown away
                found[side].append(tokens / seconds)
    return found


def _peak(name: str, folder: Path, side: str, settings: Settings) -> float:
    """Peak memory of a process that trains so, MiB."""
    command = [sys.executable, "-m", "seqbench.benchmark.text_child", name, str(folder), side, str(_steps(settings))]
    environment = os.environ | {"OMP_NUM_THREADS": str(settings.threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=Path(__file__).resolve().parents[2]
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1])["peak_mib"])
