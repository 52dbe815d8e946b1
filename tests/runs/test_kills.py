"""A campaign of kills: whenever and however a run is stopped, the same command makes of it what it would have been.

Real processes of `python scripts/train.py`, watched from outside and struck when their files say that the moment has
come; and, for moments that no file tells, processes that strike themselves (tests/seqbench/killing.py). What they
leave is compared with what a run leaves that was never stopped, to the last bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from seqbench.record import Record
from seqbench.records.store import Store
from tests.seqbench.killing import Blow

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
DEADLINE = 120.0  # seconds that a process may take
LANES = 3  # processes at once
COMMON = [
    "seed=1",
    "trainer.threads=1",
    "trainer.invariance_rows=0",
    "logger.csv.every=1",
    "encoder.dim=16",
    "encoder.depth=1",
    "budget.batch_size=16",
    "budget.eval_batch_tokens=1024",
    "optimizer.lr=0.02",
]
TASKS = {
    # dropout; checkpoints by the clock, now and then
    "digits": [
        *("encoder=encoder_only", "encoder.heads=2", "encoder.dropout=0.2", "task=digits"),
        *("budget.steps=48", "budget.eval_every=12", "budget.eval_limit=64", "trainer.save_every=0.05"),
    ],
    # two batches a step, generation, dropout; checkpoints at evaluations alone
    "pairs": [
        *("encoder=encoder_decoder", "encoder.heads=2", "encoder.dropout=0.1", "task=own_sequence_to_sequence"),
        *("tokenizer=words", "trainer.accumulate=2"),
        *("task.max_length=10", "task.max_target_length=10", "budget.eval_limit=20"),
        *("budget.steps=40", "budget.eval_every=10", "trainer.save_every=null"),
    ],
    # patience, worker processes, random numbers of python and numpy; a checkpoint after every step
    "listops": [
        *("encoder=lstm", "encoder._target_=tests.seqbench.killing.Restless", "task=listops", "trainer.workers=2"),
        *("task.data.train=300", "task.data.valid=40", "task.data.test=40", "task.data.pool=1000"),
        *("budget.steps=60", "budget.eval_every=5", "budget.patience=3", "trainer.save_every=1e-9"),
        "allowed=[encoders,tasks,torch.optim,tests.seqbench.killing]",
    ],
}


@dataclass(frozen=True)
class Outside:
    """A stroke at a fresh process, from outside: when `metrics.csv` has so many lines, or a checkpoint is at work."""

    lines: int
    signal: int
    writing: bool = False  # from then on, as soon as there is a half-written checkpoint


@dataclass(frozen=True)
class Chain:
    """A run that is stopped once or more, and goes on to its end."""

    task: str
    blows: tuple[Blow | Outside, ...]
    resumed: int | None = None  # None: as often as it was stopped

    @property
    def name(self) -> str:
        """For pytest."""
        return "-".join([self.task, *(_name(blow) for blow in self.blows)])


def _name(blow: Blow | Outside) -> str:
    if isinstance(blow, Outside):
        return f"fresh{blow.lines}{'w' * blow.writing}{signal.Signals(blow.signal).name[3:]}"
    return f"{blow[0]}{blow[1]}{signal.Signals(blow[2]).name[3:]}"


_dice = random.Random(20)
_between = _dice.randint
CHAINS = [
    # fresh processes of the script: before the first step or in it, in the midst, while a checkpoint is written
    Chain("digits", (Outside(1, KILL), ("valid", _between(5, 8), KILL))),
    Chain("digits", (Outside(_between(14, 30), TERM), ("resuming", 1, KILL))),
    Chain("pairs", (Outside(_between(12, 19), KILL), ("valid", _between(3, 6), INT))),
    Chain("pairs", (Outside(_between(2, 30), INT), ("predictions", 1, KILL))),
    Chain("listops", (Outside(_between(6, 9), KILL, writing=True), ("previous", _between(3, 5), KILL))),
    Chain("listops", (Outside(_between(2, 9), TERM, writing=True), ("batch", _between(2, 4), KILL))),
    # exact moments
    Chain("digits", (("batch", 1, TERM), ("loading", _between(20, 40), KILL))),
    Chain("digits", (("setup", 1, KILL), ("checkpoint", _between(3, 5), KILL))),
    Chain("digits", (("record", 1, KILL),), resumed=0),
    Chain("digits", (("record", 1, TERM),), resumed=0),
    Chain("pairs", (("batch", 2 * _between(6, 12) + 2, KILL), ("update", _between(3, 9), TERM), ("logged", 11, KILL))),
    Chain("pairs", (("best", 2, KILL),)),
    Chain("listops", (("loading", _between(8, 14), KILL), ("checkpoint", _between(2, 4), TERM))),
    Chain("listops", (("saved", _between(3, 9), INT), ("checkpoint", _between(2, 4), KILL))),
    Chain("listops", (("batch", -2, KILL), ("tested", 1, KILL))),  # shortly before patience ends it
]


@dataclass
class Left:
    """What a finished run has left."""

    record: Record
    folder: Path
    outputs: list[str] = field(default_factory=list)  # what each process has printed


class Campaign:
    """Starts processes: fresh ones of the script, or forked ones of a server that has all imported."""

    def __init__(self, folder: Path, chains: list[Chain]) -> None:
        self.folder = folder
        self.lock, self.count = threading.Lock(), 0
        self.environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        rows = random.Random(3)
        lines = ["source\ttarget"]
        for _ in range(260):
            words = [rows.choice("abcdef") for _ in range(rows.randint(2, 7))]
            lines.append(f"{' '.join(words)}\t{' '.join(reversed(words))}")
        (folder / "pairs.tsv").write_text("\n".join(lines) + "\n")
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.seqbench.killing"], cwd=ROOT, env=self.environment, stdin=subprocess.PIPE
        )
        self.lanes = ThreadPoolExecutor(LANES)
        self.straight = {task: self.lanes.submit(self.run, Chain(task, ())) for task in TASKS}
        self.ends = {chain: self.lanes.submit(self.run, chain) for chain in chains}

    def close(self) -> None:
        """End all of it."""
        self.lanes.shutdown(cancel_futures=True)
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait(DEADLINE)

    def run(self, chain: Chain) -> Left:
        """Stop a run as the chain says, and have it go on to its end."""
        with self.lock:
            self.count += 1
            folder = self.folder / str(self.count)
        folder.mkdir()
        command = [*TASKS[chain.task], *COMMON, f"results={folder}"]
        if chain.task == "pairs":
            command.append(f"task.data.train={self.folder / 'pairs.tsv'}")
        outputs = []
        for number, blow in enumerate(chain.blows):
            code, output = (
                self._fresh(command, folder, blow)
                if isinstance(blow, Outside)
                else self._forked(command, folder, self._resolved(chain.task, blow), number)
            )
            struck = blow.signal if isinstance(blow, Outside) else blow[2]
            assert code == (-KILL if struck == KILL else 130), f"stroke {number + 1}: {code}\n{output}"
            outputs.append(output)
        code, output = self._forked(command, folder, None, len(chain.blows))
        assert code == 0, output
        records, damages = Store(folder).all()
        assert (len(records), damages) == (1, [])
        return Left(records[0], folder / records[0].id, [*outputs, output])

    def _resolved(self, task: str, blow: Blow) -> Blow:
        """A negative number counts from the last step of the run that is never stopped."""
        moment, n, number = blow
        return (moment, self.straight[task].result().record.curves[-1].step + n, number) if n < 0 else blow

    def _forked(self, command: list[str], folder: Path, blow: Blow | None, number: int) -> tuple[int, str]:
        log, code = folder / f"{number}.log", folder / f"{number}.code"
        request = {"argv": command, "log": str(log), "code": str(code), "blow": blow}
        with self.lock:
            assert self.server.stdin is not None
            self.server.stdin.write((json.dumps(request) + "\n").encode())
            self.server.stdin.flush()
        end = time.monotonic() + DEADLINE
        while not code.is_file():
            assert time.monotonic() < end, f"{blow}: no end of it\n{log.read_text() if log.is_file() else ''}"
            time.sleep(0.01)
        return int(code.read_text()), log.read_text() if log.is_file() else ""

    def _fresh(self, command: list[str], folder: Path, blow: Outside) -> tuple[int, str]:
        with (folder / "fresh.log").open("w+") as log:
            script = [sys.executable, "scripts/train.py", *command]
            process = subprocess.Popen(script, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
            try:
                end = time.monotonic() + DEADLINE
                while process.poll() is None and not _is_time(folder, process.pid, blow):
                    assert time.monotonic() < end, "no end of it"
                    time.sleep(0.0005 if blow.writing else 0.002)
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(blow.signal)
                code = process.wait(DEADLINE)
            finally:
                process.kill()
                process.wait()
            log.seek(0)
            return code, log.read()


def _is_time(folder: Path, pid: int, blow: Outside) -> bool:
    for run in folder.glob("*/"):
        if not blow.writing or (run / "checkpoints" / f".last.pt.{pid}.tmp").exists():
            with contextlib.suppress(FileNotFoundError):
                return (run / "metrics.csv").read_bytes().count(b"\n") >= blow.lines
    return False


@pytest.fixture(scope="module")
def campaign(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    """All of it that is asked for, under way."""
    found = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    chains = [call.params["chain"] for call in found if call is not None]
    made = Campaign(tmp_path_factory.mktemp("kills"), chains)
    yield made
    made.close()


def content(left: Left) -> dict[str, Any]:
    """All that a run has come to, costs and times aside."""
    record, folder = left.record, left.folder
    return {
        "status": record.status,
        "weights": hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest(),
        "predictions": pq.read_table(folder / "predictions.parquet").to_pylist(),
        "scores": record.scores,
        "curves": [(point.step, point.tokens, point.values) for point in record.curves],
        "best_step": record.best_step,
        "counts": (record.cost.train_tokens, record.cost.train_items, record.cost.padding_share),
        "log": (folder / "metrics.csv").read_text(),
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*")),
        "notes": record.notes,
    }


def result(future: Future[Left]) -> Left:
    return future.result(timeout=10 * DEADLINE)


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.name)
def test_stopped_and_gone_on_is_as_never_stopped(chain: Chain, campaign: Campaign) -> None:
    straight, left = result(campaign.straight[chain.task]), result(campaign.ends[chain])
    expected, found = content(straight), content(left)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert left.record.resumed == (len(chain.blows) if chain.resumed is None else chain.resumed)
    assert straight.record.resumed == 0
    assert "Traceback" not in "".join(left.outputs)


def test_the_runs_are_such_that_stopping_them_could_show(campaign: Campaign) -> None:
    """Weights to be restored that are not the last ones, patience that ends a training, epochs that end within it."""
    records = {task: result(future).record for task, future in campaign.straight.items()}
    listops = records["listops"]
    assert listops.best_step is not None
    assert listops.best_step + 3 * 5 == listops.curves[-1].step < 60
    for record in records.values():
        assert len({point.values["train/loss"] for point in record.curves}) == len(record.curves)
        assert record.splits["train"].examples < 16 * record.curves[-1].step or record.task.name == "digits"


def test_there_are_enough_kills() -> None:
    blows = [blow for chain in CHAINS for blow in chain.blows]
    assert len(blows) >= 20
    assert sum(isinstance(blow, Outside) for blow in blows) >= 6
    assert {blow.signal if isinstance(blow, Outside) else blow[2] for blow in blows} == {KILL, TERM, INT}
