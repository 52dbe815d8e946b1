"""Whether a training goes well: a loss that is not finite or explodes, a time limit that is reached."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from seqbench.training.standing import EXPLODES

PATIENCE = 20  # steps in a row
GRACE = 10.0  # seconds after a time limit in which a step, or an evaluation, may end
AGAIN = 5.0  # seconds between two alarms, since what is raised in a destructor is lost


class Diverged(Exception):
    """A training that won't recover, and the step in which that was found."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(reason)
        self.step = step


class TimedOut(Exception):
    """A run that takes longer than it may."""


class AgreedTimedOut(TimedOut):
    """The same on all ranks, after the same step."""


def check_loss(step: int, loss: float) -> None:
    """Raise Diverged for a loss that is not finite."""
    if not math.isfinite(loss):
        raise Diverged(step, f"the training loss is {loss} at step {step}")


def above(step: int, loss: float, *, first: float, factor: float | None, already: int) -> int:
    """How many steps in a row the loss has been above `factor` times the first one, this step included.

    Raises Diverged after PATIENCE of them. Never above: a first loss of zero or less, which has no multiples.
    The first loss is that of the initial weights, before anything was learnt: one that stays ten times as bad is lost,
    while spikes end.
    """
    if factor is None or first <= 0 or loss <= factor * first:
        return 0
    if already + 1 >= PATIENCE:
        raise Diverged(
            step,
            f"{EXPLODES}: {loss:.4g} at step {step}, "
            f"above {factor:g} times the first one ({first:.4g}) for {PATIENCE} steps",
        )
    return already + 1


class Deadline:
    """The end of a run's time, `seconds` from now; None: never."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.end = math.inf if seconds is None else time.monotonic() + seconds
        self.heard = False  # no more alarms: whoever leaves the run has heard of it, or it is over

    @property
    def reached(self) -> bool:
        """Whether it is over."""
        return time.monotonic() >= self.end

    def check(self) -> None:
        """Raise TimedOut if it is."""
        if self.reached:
            raise self.error()

    def error(self) -> TimedOut:
        """What to raise."""
        return TimedOut(f"trainer.time_limit: {self.seconds:g} seconds are over")

    def hear(self) -> None:
        """Say that the error has arrived, so that what is saved on the way out is not disturbed again."""
        self.heard = True

    @contextmanager
    def enforced(self) -> Iterator[None]:
        """Raise TimedOut where the limit and GRACE have passed, even in the middle of a step that doesn't end.

        By SIGALRM; in other threads than the main one there is none. Python drops an exception that is raised in a
        destructor or in a callback of C code: so the alarm comes again every AGAIN seconds, until one is heard.
        """
        if self.seconds is None or threading.current_thread() is not threading.main_thread():
            yield
            return

        def ring(number: int, frame: FrameType | None) -> None:
            if not self.heard:
                raise self.error()

        self.heard = False
        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, max(self.end - time.monotonic(), 0) + GRACE, AGAIN)
        try:
            yield
        finally:
            self.heard = True
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
