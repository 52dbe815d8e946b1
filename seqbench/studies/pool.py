"""Cells of a sweep in several processes at once; one that dies loses its cell and no other.

Each lane is a process of its own at the end of its own connection, not concurrent.futures or loky: there one death
fails every cell that waits, and a stop can't be told to the cells that run, which then could not save themselves.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import wait
from types import FrameType
from typing import Any

from seqbench.cores import cores
from seqbench.errors import RecordError, Unwritable
from seqbench.records.claim import Claimed
from seqbench.report import Troubles, told
from seqbench.studies.study import Cell
from seqbench.studies.studybar import StudyBar
from seqbench.training import casualty
from seqbench.training.facts import now

TICK = 0.25  # seconds between looks at what has no message: deaths, signals, what workers print, the clock
GRACE = 30.0  # seconds that a stopped run has to write its record
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from seqbench.studies.worker import work; work(int(sys.argv[2]), int(sys.argv[3]))"
)


class Lane:
    """One worker process, and the cell that it has."""

    def __init__(self, threads: int) -> None:
        self.link, far = Pipe()
        # what it prints; in a file, so that it never waits for its reader
        self.output = tempfile.TemporaryFile()  # noqa: SIM115  # closed by gone()
        self.shown = 0  # bytes of it that were shown
        command = [sys.executable, *(f"-W{option}" for option in sys.warnoptions), "-c", START]
        self.process = subprocess.Popen(
            [*command, json.dumps([path or os.getcwd() for path in sys.path]), str(far.fileno()), str(threads)],
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=self.output,
            pass_fds=[far.fileno()],
            process_group=0,  # Ctrl-C reaches the sweep alone, which then tells each worker once
        )
        far.close()
        self.ready = False
        self.cell: Cell | None = None
        self.since = ""
        self.step: int | None = None
        self.oom_kills: int | None = None

    def give(self, cell: Cell, jobs: int) -> None:
        """Send a cell. A worker that is dead already is found out later."""
        self.cell, self.since, self.step, self.oom_kills = cell, now(), None, casualty.oom_kills()
        with contextlib.suppress(OSError):
            self.link.send((cell.config, jobs))

    def lines(self, *, whole: bool) -> list[str]:
        """What was printed since the last time, without a line that goes on unless `whole`."""
        text = os.pread(self.output.fileno(), 2**20, self.shown)
        end = len(text) if whole or len(text) == 2**20 else text.rfind(b"\n") + 1
        self.shown += end
        return [line.rstrip() for line in text[:end].decode(errors="replace").splitlines() if line.strip()]

    def kill(self) -> None:
        """End it and what it has started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Let go of it: an idle worker ends by that."""
        self.link.close()

    def gone(self, seconds: float) -> None:
        """Wait for its end; kill it if that takes longer."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self.kill()
        self.output.close()


class _Stop:
    """SIGINT or SIGTERM in this process, noted."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.numbers.append(number)


@contextmanager
def _noted() -> Iterator[_Stop]:
    """Signals are noted, not raised, so that none comes between two steps of the bookkeeping."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Pool:
    """Runs cells in `jobs` workers. After an error in one of our own parts, or a full disk, no worker goes on."""

    def __init__(self, cells: Sequence[Cell], *, jobs: int, bar: StudyBar) -> None:
        self.jobs, self.bar = jobs, bar
        self.threads = max(1, cores() // jobs)
        self.waiting = deque(cells)
        self.lanes: list[Lane] = []
        self.troubles = Troubles()

    def run(self) -> Troubles:
        """Run all cells. Raises KeyboardInterrupt on SIGINT and SIGTERM, when every worker has ended."""
        with _noted() as stop:
            try:
                while self.waiting and len(self.lanes) < self.jobs:
                    self._new_lane()
                while self.waiting or any(lane.cell for lane in self.lanes):
                    self._once()
                    if stop.numbers:
                        self._interrupt(stop)
            finally:
                for lane in self.lanes:
                    lane.close()
                for lane in self.lanes:
                    if lane.cell is not None:  # an error of ours: it tells them to save themselves, and raises on
                        lane.process.terminate()
                for lane in self.lanes:
                    lane.gone(GRACE)
        return self.troubles

    def _new_lane(self) -> None:
        lane = Lane(self.threads)
        self.lanes.append(lane)
        lane.give(self.waiting.popleft(), self.jobs)

    def _once(self) -> None:
        """Take what the workers say, for a tick at most."""
        by_link: dict[Any, Lane] = {lane.link: lane for lane in self.lanes}
        for link in wait(list(by_link), TICK):
            lane = by_link[link]
            try:
                while lane.link.poll():
                    self._hear(lane, lane.link.recv())
            except (EOFError, OSError):
                self._lost(lane)
        for lane in list(self.lanes):
            self._say(lane, whole=False)
            if lane.process.poll() is not None and not lane.link.poll():  # its children may hold the connection
                self._lost(lane)
        self.bar.tick()

    def _hear(self, lane: Lane, message: tuple[Any, ...]) -> None:
        what, *rest = message
        cell = lane.cell
        assert cell is not None
        if what == "ready":
            lane.ready = True
            self.bar.start(cell.id)
        elif what == "event":
            lane.step = rest[0].step
            self.bar.watch(cell.id, rest[0])
        else:
            self._say(lane, whole=True)
            lane.cell = None
            self._ended(cell, what, *rest)
            if what != "interrupted" and self.waiting:
                lane.give(self.waiting.popleft(), self.jobs)
                assert lane.cell is not None
                self.bar.start(lane.cell.id)

    def _ended(self, cell: Cell, what: str, said: Any = None) -> None:
        """A cell has ended, with a record or without."""
        line = str(said).splitlines()[0] if isinstance(said, str) and said else ""
        if what == "end":
            line = told(said)
        elif what == "not run":
            self.troubles.not_run[cell.id] = line
            line = f"not run: {line}"
        elif what == "elsewhere":
            self.troubles.elsewhere[cell.id] = line
            line = f"running elsewhere: {line}"
        elif what == "interrupted":
            line = "interrupted"
        elif what == "stop":
            raise Unwritable(said)
        else:
            raise RuntimeError(f"{cell.title}, in a worker process:\n{said}")
        self.bar.finish(cell.id, line)

    def _lost(self, lane: Lane) -> None:
        """A worker has died. Its cell gets a record that says so, the cells that wait a new worker."""
        lane.kill()  # its children, which hold its claim; and itself, if it has only closed its connection
        cell = lane.cell
        lines = self._say(lane, whole=True)
        self.lanes.remove(lane)
        lane.close()
        lane.output.close()
        lane.cell = None
        if cell is not None:
            self._buried(lane, cell, lines)
        if self.waiting:
            self._new_lane()

    def _buried(self, lane: Lane, cell: Cell, lines: list[str]) -> None:
        kills = casualty.oom_kills()
        memory = kills is not None and lane.oom_kills is not None and kills > lane.oom_kills
        status, reason = casualty.cause(lane.process.returncode, memory=memory)
        if not lane.ready:
            self._ended(cell, "not run", "; ".join([f"{reason}, before it could begin", *lines[-1:]]))
            return
        try:
            record = casualty.bury(
                cell.config,
                cell.id,
                process=lane.process.pid,
                since=lane.since,
                status=status,
                reason=reason,
                step=lane.step,
                threads=self.threads,
                jobs=self.jobs,
            )
        except Claimed as error:
            self._ended(cell, "elsewhere", str(error))
        except Unwritable:
            raise
        except RecordError as error:
            self._ended(cell, "not run", str(error))
        else:
            self._ended(cell, "end", record)

    def _say(self, lane: Lane, *, whole: bool) -> list[str]:
        """Show what a worker has printed, as whole lines with the cell's name."""
        lines = lane.lines(whole=whole)
        for line in lines:
            self.bar.say(f"{lane.cell.title if lane.cell else 'a worker'}: {line}")
        return lines

    def _interrupt(self, stop: _Stop) -> None:
        """Every run writes that it was interrupted. A second signal, or GRACE seconds, end all at once."""
        self.waiting.clear()
        heard = len(stop.numbers)
        for lane in self.lanes:
            if lane.cell is None:
                lane.close()
            else:
                lane.process.send_signal(stop.numbers[0])
        end = time.monotonic() + GRACE
        while any(lane.cell is not None and lane.process.poll() is None for lane in self.lanes):
            if time.monotonic() >= end or len(stop.numbers) > heard:
                for lane in self.lanes:
                    lane.kill()
            time.sleep(0.05)
            self.bar.tick()
        for lane in self.lanes:
            lane.cell = None
        raise KeyboardInterrupt(signal.Signals(stop.numbers[0]).name)
