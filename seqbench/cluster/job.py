"""What runs in a cell's job: the cell, and what SLURM's signals ask for.

One owner of signals, from the first line on: SIGTERM (preemption, `scontrol requeue`, `scancel`) saves and ends, and
SLURM knows what comes then; SIGUSR1 (the time of the job is nearly over) saves, ends, and puts the job back into the
queue. It then starts again and goes on from the checkpoint.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from seqbench.cluster import scheduler
from seqbench.cluster.batch import Batch, Outcome
from seqbench.cluster.here import LOG, here, job_id
from seqbench.config import RunConfig
from seqbench.errors import ConfigError, RecordError
from seqbench.training.progress import Event, Lines

TIME_UP = signal.SIGUSR1
SIGNALS = (signal.SIGINT, signal.SIGTERM, TIME_UP)
REQUEUED = 60.0  # seconds to wait for SLURM's signal: a job that ends by itself meanwhile might not be queued again
STEAL = 420.0  # seconds to wait for a claim: a dead node's is given up after 300 (records/claim), or the server's lease


class _Wish:
    """A signal, for the moments in which no run listens itself (seqbench.process)."""

    number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cell; 0 if its record says finished, 2 for the user's mistake, 1 else."""
    wish = _Wish()
    for number in SIGNALS:
        signal.signal(number, wish)
    words = list(sys.argv[1:] if argv is None else argv)
    index = words[1] if len(words) > 1 else os.environ.get("SLURM_ARRAY_TASK_ID", "")
    if not words or not index.isdecimal():
        print("scripts/cell.py: give the folder of a batch and a cell's index", file=sys.stderr)
        return 2
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # as the command line does: a package of the user's, beside their results
    if address := os.environ.get("SLURM_LAUNCH_NODE_IPADDR"):  # of rank 0's node; of srun's processes alone
        os.environ.setdefault("MASTER_ADDR", address)  # nodes need no names that resolve
    batch = Batch(Path(words[0]).resolve())
    return _Job(batch, int(index), wish).run()


class _Job:
    """One start of one cell."""

    def __init__(self, batch: Batch, index: int, wish: _Wish) -> None:
        self.batch, self.index, self.wish = batch, index, wish
        self.first = os.environ.get("SLURM_PROCID", "0") == "0"  # of several processes, the one that speaks
        self.started = ""

    def run(self) -> int:
        """As main()."""
        from seqbench.training.facts import now

        self.started = now()
        start = here()
        if self.first:
            where = f"job {start.job}, start {start.restarts + 1}, on {start.nodes}" if start else "outside a job"
            print(
                f"{self.started}: cell {self.index} of {self.batch.folder.name}: {where}", file=sys.stderr, flush=True
            )
            self._say("began")
        os.environ[LOG] = str(self.batch.log(self.index))
        try:
            this, config = self.batch.cell(self.index)
            what, *rest = self._answer(this, config)
        except (ConfigError, RecordError) as error:
            what, rest = "not run", [str(error)]
        if not self.first:
            return 0 if what == "end" and rest[0].status == "finished" else 1
        return self._ended(what, *rest)

    def _answer(self, this: str, config: RunConfig) -> tuple[Any, ...]:
        from seqbench import process
        from seqbench.build import build_task
        from seqbench.records.identity import run_id
        from seqbench.studies.worker import answer

        process.in_job(TIME_UP)
        task = build_task(config)
        if run_id(config, task) != this:
            return "not run", (
                f"data, a checkpoint or a package of yours has changed since it was submitted: it is {this} no more;"
                " submit it again"
            )
        lines = Lines(f"{config.label or config.names.encoder} {config.names.task} seed {config.seed}", "loss")
        lines.headline = task.headline.name
        show = lines if config.trainer.progress and self.first else None

        def watch(event: Event) -> None:
            if self.wish.number:
                raise process.Stopped(signal.Signals(self.wish.number).name)
            if show:
                show(event)

        begun = time.monotonic()
        while True:
            found = answer(config, 1, watch, again=True)
            if found[0] != "elsewhere" or self.wish.number or time.monotonic() - begun > STEAL:
                return found
            print(f"{found[1]}; waiting for it", file=sys.stderr, flush=True)
            time.sleep(5)

    def _ended(self, what: str, said: Any = "") -> int:
        """Tell what came of it; put the job back into the queue where it has had too little time."""
        from seqbench.report import describe

        if what == "end":
            config = self.batch.cell(self.index)[1]
            print(describe(said, Path(config.results), skipped=False), flush=True)
            self._say("end")
            return 0 if said.status == "finished" else 1
        line = str(said).strip()
        print(f"{what}: {line}", file=sys.stderr, flush=True)
        self._say(what, line.splitlines()[-1] if what == "bug" else line.splitlines()[0] if line else "")
        if what == "interrupted" and TIME_UP.name in (line, self._wished()):
            self._again()
        return 2 if what == "not run" else 1

    def _wished(self) -> str:
        return signal.Signals(self.wish.number).name if self.wish.number else ""

    def _again(self) -> None:
        start, job = here(), job_id()
        if start is None or job is None:
            return
        if start.restarts >= self.batch.requeues:
            print(f"not queued again: it was {start.restarts} times (hydra.launcher.requeues)", file=sys.stderr)
        elif wrong := scheduler.requeue(job):
            print(f"not queued again: {wrong}; the sweep's command goes on with it", file=sys.stderr)
        else:
            print("queued again, to go on from the checkpoint", file=sys.stderr, flush=True)
            self.wish.number, end = None, time.monotonic() + REQUEUED
            while not self.wish.number and time.monotonic() < end:
                time.sleep(0.1)

    def _say(self, what: str, line: str = "") -> None:
        try:
            self.batch.say(self.index, Outcome(what=what, line=line[:400], started=self.started))  # type: ignore[arg-type]
        except OSError as error:
            print(f"{self.batch.folder}: cannot be written to ({error.strerror})", file=sys.stderr)
