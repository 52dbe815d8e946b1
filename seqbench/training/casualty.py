"""The record of a run whose process is gone: who is killed can't write one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import signal
import time
from pathlib import Path

import torch

from seqbench.build import build_task
from seqbench.config import RunConfig
from seqbench.errors import RecordError, Unwritable
from seqbench.record import ClusterFacts, Point, Record, Saved, Status
from seqbench.records.claim import Claimed, claim
from seqbench.records.store import Store, reason_of
from seqbench.training.facts import facts, now
from seqbench.training.resume import LAST, PREVIOUS, Checkpoints
from seqbench.training.standing import ENDED, KILLED

PATIENCE = 5.0  # seconds for the dead process's own children to let go of its claim


def saved_in(folder: Path, step: int | None) -> Saved | None:
    """The checkpoint that a run in a folder goes on from, which was saved after `step` steps."""
    places = [folder / "checkpoints" / f"{name}.pt" for name in (LAST, PREVIOUS)]
    path = next((place for place in places if place.is_file()), None)
    if step is None or path is None:
        return None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Saved(path=path.relative_to(folder).as_posix(), sha256=digest, step=step)


def cluster_of(checkpoints: Checkpoints, folder: Path) -> ClusterFacts | None:
    """The scheduler's jobs of the attempts at a run; None where no attempt was in one."""
    starts = checkpoints.starts()
    if not starts:
        return None
    restarts = {start.job: start.restarts for start in starts}  # the last of each job counts
    log = starts[-1].log
    return ClusterFacts(
        scheduler="slurm",
        jobs=list(restarts),
        requeues=sum(restarts.values()),
        nodes=starts[-1].nodes,
        log=os.path.relpath(log, folder.resolve()) if log else None,
    )


def oom_kills() -> int | None:
    """How many processes this system has killed for want of memory since it started; None where it doesn't tell."""
    path = Path("/proc/vmstat")  # proc(5), Linux 4.13
    if path.is_file():
        for line in path.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None


def cause(code: int, *, memory: bool) -> tuple[Status, str]:
    """Status and reason of a process that ended with a code, -9 for signal 9; `memory`: the system had too little."""
    if code >= 0:
        return "failed", f"{ENDED} in the middle of it, with exit code {code}"
    try:
        name = f"signal {-code}, {signal.Signals(-code).name}"
    except ValueError:
        name = f"signal {-code}"
    if memory and -code == signal.SIGKILL:
        return "out_of_memory", f"{KILLED} ({name}); the system ran out of memory meanwhile"
    return "killed", f"{KILLED} ({name})"


def bury(
    config: RunConfig,
    run_id: str,
    *,
    process: int | None,
    since: str,
    status: Status,
    reason: str,
    step: int | None,
    threads: int | None,
    jobs: int,
) -> Record:
    """Write and return the record of a run that died in `process` (None: on another machine); what it has saved stays.

    If it had written its record (not before `since`) and died after that, this is returned as it is. Raises Claimed
    where another process has taken the run up, RecordError where nothing can be written.
    """
    store = Store(config.results)
    folder = store.folder(run_id)
    begun = time.monotonic()
    while True:
        try:
            with claim(folder):
                known = None
                with contextlib.suppress(RecordError):  # damaged: nothing of it counts
                    known = store.find(run_id)
                if known is not None and known.ended >= since:
                    return known
                for left in folder.rglob(f".*.{process or '*'}.tmp"):  # seqbench.records.store.write_atomic's
                    left.unlink(missing_ok=True)
                checkpoints = Checkpoints(folder / "checkpoints")
                saved = checkpoints.peek()  # what is damaged the next attempt says
                progress = saved["progress"] if saved else {}
                record = Record(
                    status=status,
                    reason=reason,
                    failed_at_step=step,
                    curves=[Point(**point) for point in progress.get("curve", [])],
                    best_step=progress.get("best_step"),
                    resumed=max(progress.get("resumed", 0), checkpoints.attempts() - 1),
                    cluster=cluster_of(checkpoints, folder),
                    notes=progress.get("notes", []),
                    saved=saved_in(folder, progress.get("step")),
                    ended=now(),
                    **facts(config, build_task(config), run_id, known, threads=threads, jobs=jobs)
                    | {"started": progress.get("started") or since},
                )
                try:
                    store.write(record)
                except OSError as error:
                    raise Unwritable(f"results: {folder} cannot be written to ({reason_of(error)})") from None
                return record
        except Claimed:
            if time.monotonic() - begun > PATIENCE:
                raise
            time.sleep(0.05)


def is_memory(error: Exception, *, killed: bool) -> bool:
    """Whether memory ran out; torch says so in several ways. `killed`: the system has killed a process for it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    words = ("can't allocate memory", "not enough memory", "CUDA error: out of memory", "Cannot allocate memory")
    if isinstance(error, RuntimeError) and any(text in str(error) for text in words):
        return True
    return killed and "is killed by signal: Killed" in str(error)  # a DataLoader's worker
