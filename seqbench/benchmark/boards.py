"""A board from 10,000 records, the whole command: after the study that made them, again, and of a folder as copied."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seqbench.benchmark import made_up
from seqbench.benchmark.base import Row, Settings, alone
from seqbench.board.index import FOLDER, SETTLED
from seqbench.records.store import NAME
from seqbench.studies.indexing import Leaving

ROOT = Path(__file__).resolve().parents[2]
GOAL = 3.0  # s
SHAPES = ((40, 25, 10), (400, 5, 5))  # encoders, tasks, seeds


@dataclass(frozen=True, kw_only=True, slots=True)
class Used:
    """What a command took."""

    wall: float  # s
    cpu: float  # s, user and system, of it and its processes
    mib: float  # resident at most, of the largest of them

    def seconds(self, settings: Settings) -> float:
        """By the clock of the settings."""
        return self.wall if settings.clock == "wall" else self.cpu


def used(command: Sequence[str]) -> Used:
    """Run a script of ours in a process of its own. Raises CalledProcessError where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as told:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=told, stderr=told, env=environment)
        _, status, took = os.wait4(process.pid, 0)
        wall, process.returncode = time.perf_counter() - start, os.waitstatus_to_exitcode(status)
        if process.returncode:
            told.seek(0)
            raise subprocess.CalledProcessError(process.returncode, list(command), told.read().decode(errors="replace"))
    return Used(wall=wall, cpu=took.ru_utime + took.ru_stime, mib=took.ru_maxrss / 1024)


def board(results: Path, out: Path) -> Used:
    """One board."""
    return used(["scripts/leaderboard.py", f"results={results}", f"out={out}"])


def as_a_sweep(results: Path) -> None:
    """Leave the index that a sweep leaves which has run all these cells, one after the other."""
    names = sorted(path.parent.name for path in results.glob(f"*/{NAME}"))
    leaving = Leaving(dict.fromkeys(names, results))
    for name in names:
        leaving.ended(name)
    leaving.rest()


def settle() -> None:
    """Wait until files made just now are old enough for the index."""
    time.sleep(1.1 * SETTLED / 1e9)


def measure(settings: Settings) -> list[Row]:
    """Seconds of `python scripts/leaderboard.py`; what a process takes that only says its settings beside them."""
    repeats = settings.pairs(5)
    start = [used(["scripts/leaderboard.py", "--cfg"]).seconds(settings) for _ in range(repeats)]
    rows = [alone("start of the process", start, unit="s", goal=None, better="lower")]
    for encoders, tasks, seeds in ((3, 5, 2),) if settings.quick else SHAPES:
        shape = made_up.Shape(encoders=encoders, tasks=tasks, seeds=seeds)
        with tempfile.TemporaryDirectory() as folder:
            results, out = Path(folder) / "results", Path(folder) / "board"
            made_up.write(results, shape)
            settle()
            first, again, after = [], [], []
            for _ in range(repeats):
                shutil.rmtree(results / FOLDER, ignore_errors=True)
                first.append(board(results, out).seconds(settings))
                again.append(board(results, out).seconds(settings))
                shutil.rmtree(results / FOLDER)
                as_a_sweep(results)
                after.append(board(results, out).seconds(settings))
        what = f"board of {shape.records:,} records ({shape})"
        kept = "the index is the sweep's"
        rows.append(alone(f"{what}, after their study", after, unit="s", goal=GOAL, better="lower", note=kept))
        rows.append(alone(f"{what}, again", again, unit="s", goal=GOAL, better="lower"))
        rows.append(alone(f"{what}, the first", first, unit="s", goal=GOAL, better="lower", note="no index: a copy"))
    return rows
