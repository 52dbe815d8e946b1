"""How far a sweep is, and the time left: one line drawn anew on a terminal, a line per finished cell elsewhere."""

from __future__ import annotations

import heapq
import math
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from seqbench.training.progress import Event

WIDTH = 20  # characters of the bar
TRIVIAL = 0.5  # seconds that a cell without steps is taken for
FIRST = 0.02  # seconds a step, before any step was taken
DRAWN = 0.2  # seconds between two drawings, at least


class StudyBar:
    """Progress over cells, each (id, title, steps, kind), `lanes` of them at once, on `stream` (stderr).

    Time left: a cell takes its steps times the seconds a step of the finished cells of its kind (the task), else of
    all finished cells, else of those that run; one that runs, what its own pace says. Cells that wait are given to
    the lane that is free first.
    """

    def __init__(
        self,
        cells: Sequence[tuple[str, str, int, str]],
        *,
        lanes: int = 1,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        ended: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.cells = {this: (title, steps, kind) for this, title, steps, kind in cells}
        self.lanes = lanes
        self.stream = stream if stream is not None else sys.stderr
        self.live = self.stream.isatty()
        self.clock = clock
        self.ended = ended  # is told of each cell that has finished
        self.seconds: dict[str, float] = {}  # finished cell -> what it took
        self.begun: dict[str, float] = {}  # running cell -> when
        self.share: dict[str, float] = {}  # running cell -> how much of its steps
        self.first = clock()
        self.shown = -math.inf
        self.lock = threading.RLock()  # tick() may come from a thread of its own

    def start(self, this: str) -> None:
        """A cell begins."""
        with self.lock:
            self.begun[this], self.share[this] = self.clock(), 0.0
            self._draw()

    def watch(self, this: str, event: Event) -> None:
        """What a run tells (seqbench.training.progress.Watch)."""
        with self.lock:
            if event.steps and this in self.share:
                self.share[this] = min(1.0, event.step / event.steps)
            self.tick()

    def tick(self) -> None:
        """Time goes by."""
        with self.lock:
            if self.live and self.clock() - self.shown >= DRAWN:
                self._draw()

    def finish(self, this: str, what: str) -> None:
        """A cell has ended with a score or a reason."""
        with self.lock:
            self.seconds[this] = self.clock() - self.begun.pop(this, self.clock())
            self.share.pop(this, None)
            rest = f"  ({about(self.left())} left)" if len(self.seconds) < len(self.cells) else ""
            self.say(f"{self._count()} {self.cells[this][0]}  {what}  {spell(self.seconds[this])}{rest}")
        self.ended(this)

    def say(self, line: str) -> None:
        """A line that stays."""
        with self.lock:
            self._write(f"\r\x1b[K{line}\n" if self.live else f"{line}\n")
            if self.begun:
                self._draw()

    def close(self) -> None:
        """Leave the cursor at the beginning of an empty line."""
        with self.lock:
            if self.live:
                self._write("\r\x1b[K")
            self.live = False

    def left(self) -> float:
        """Estimated seconds until the last cell ends."""
        waiting = [this for this in self.cells if this not in self.seconds and this not in self.begun]
        lanes = [(1 - self.share[this]) * self._guess(this) for this in self.begun]
        lanes += [0.0] * (self.lanes - len(lanes))
        heapq.heapify(lanes)
        for seconds in sorted(map(self._guess, waiting), reverse=True):
            heapq.heapreplace(lanes, lanes[0] + seconds)
        return max(lanes)

    def _guess(self, this: str) -> float:
        """Seconds that a cell takes."""
        _, steps, kind = self.cells[this]
        if not steps:
            took = [self.seconds[c] for c in self.seconds if not self.cells[c][1]]
            return sum(took) / len(took) if took else TRIVIAL
        own = self._pace(this)
        if own is not None:
            return steps * own
        for same in (True, False):
            done = [c for c in self.seconds if self.cells[c][1] and (not same or self.cells[c][2] == kind)]
            if done:
                return steps * sum(self.seconds[c] for c in done) / sum(self.cells[c][1] for c in done)
        paces = [pace for pace in map(self._pace, self.begun) if pace is not None]
        return steps * (sum(paces) / len(paces) if paces else FIRST)

    def _pace(self, this: str) -> float | None:
        """Seconds a step of a running cell, once a twentieth of it is done."""
        if this not in self.begun or self.share[this] < 0.05:
            return None
        return (self.clock() - self.begun[this]) / (self.share[this] * self.cells[this][1])

    def _count(self) -> str:
        return f"[{len(self.seconds):>{len(str(len(self.cells)))}}/{len(self.cells)}]"

    def _draw(self) -> None:
        if not self.live:
            return
        self.shown = self.clock()
        done = sum(self.seconds.values()) + sum(self.share[c] * self._guess(c) for c in self.begun)
        whole = sum(self.seconds.get(c, self._guess(c)) for c in self.cells)
        now = ", ".join(f"{self.cells[c][0]} {self.share[c]:.0%}" for c in self.begun) or "starting"
        columns = max(shutil.get_terminal_size().columns - 1, 20)
        times = [f"{spell(self.clock() - self.first)}, {about(self.left())} left", f"{about(self.left())} left", ""]
        for width, time_left in [(WIDTH, times[0]), (WIDTH // 2, times[0]), (WIDTH // 2, times[1]), (0, times[2])]:
            bar = ("#" * round(done / max(whole, 1e-9) * width)).ljust(width, ".")
            head = " ".join(part for part in (self._count(), bar, time_left) if part)
            text = f"{head}  {now}"
            if len(text) <= columns:  # what runs, its seed at the end, is shown whole before a long bar is
                break
        self._write(f"\r\x1b[K{text[:columns]}")

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


@contextmanager
def ticking(bar: StudyBar) -> Iterator[None]:
    """While this process is busy, a thread lets the bar's clock go on."""
    if not bar.live:
        yield
        return
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.5):
            bar.tick()

    thread = threading.Thread(target=beat, daemon=True, name="study bar")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def spell(seconds: float) -> str:
    """`12 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def about(seconds: float) -> str:
    """As spell() for what is only estimated: `about 20 s`, `about 3 min`, `about 2 h 5 min`."""
    if seconds < 55:
        return f"about {max(1, math.ceil(seconds / 5)) * 5} s"
    if seconds < 3570:
        return f"about {round(seconds / 60)} min"
    return f"about {spell(60 * round(seconds / 60))}"
