"""What a run changes of its process, put back afterwards: signals, threads, determinism."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch


class Stopped(BaseException):
    """SIGINT or SIGTERM, as an exception; not KeyboardInterrupt, for which Lightning ends the process."""


class Agreed(Stopped):
    """The same on all ranks of a run, after the same step."""


@dataclass
class _Signals:
    """Signals are the process's, so this is, too."""

    held: bool = False  # note the first one, for release()
    firmly: bool = False  # note all of them
    deferred: bool = False  # note the first one, whatever is held or released
    noted: str | None = None  # name of the first one that came, until it has been heeded
    handler: Callable[[int, FrameType | None], None] | None = None  # while signals() listens
    numbers: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)  # it listens to
    patient: bool = False  # a second one waits, too

    def clear(self) -> None:
        """Nothing held, nothing noted."""
        self.held = self.firmly = self.deferred = False
        self.noted = None


_signals = _Signals()


def in_job(time_up: signal.Signals) -> None:
    """This process is a scheduler's job: `time_up` is heard, too, and no signal but SIGKILL is in a hurry.

    A scheduler tells each process of a job and srun besides, which passes it on: one wish, several signals.
    """
    _signals.numbers, _signals.patient = (signal.SIGINT, signal.SIGTERM, time_up), True


def hold(*, firmly: bool = False) -> None:
    """From here to release() a signal waits, so that what is begun is ended; a second one doesn't, unless firmly."""
    _signals.held, _signals.firmly = True, firmly


def release() -> None:
    """From here a signal raises Stopped where it comes; one that came meanwhile does so now.

    So does one that came in a destructor or the like, where an exception is lost.
    """
    _signals.held = _signals.firmly = False
    if _signals.noted and not _signals.deferred:
        hold(firmly=True)
        raise Stopped(_signals.noted)


def note(name: str) -> None:
    """As if a signal of this name had come where it waits."""
    _signals.noted = _signals.noted or name


def waits() -> bool:
    """Whether a signal waits for the ranks to agree."""
    return _signals.deferred


@contextmanager
def deferred(*, until_agreed: bool) -> Iterator[None]:
    """With `until_agreed` the first signal waits here, through every release(), for the ranks to agree on a step.

    Who leaves in peace with one that waits gets it then.
    """
    if not until_agreed:
        yield
        return
    _signals.deferred = True
    try:
        yield
    finally:
        _signals.deferred = False
    release()


def reclaim() -> None:
    """Take the signals back from a library that has put a handler of its own before ours.

    Lightning has one for SIGTERM, and leaves by it after any batch: in the middle of a step that has several.
    """
    if _signals.handler is not None and threading.current_thread() is threading.main_thread():
        for number in _signals.numbers:
            signal.signal(number, _signals.handler)


def held() -> bool:
    """Whether a signal would wait."""
    return _signals.held


def noted() -> str | None:
    """Name of a signal that waits."""
    return _signals.noted


@contextmanager
def signals() -> Iterator[list[str]]:
    """Raise Stopped where SIGINT or SIGTERM (and what in_job() names) comes, or at release().

    In other threads than the main one do nothing.

    In a destructor, where an exception would break off what it does and then be ignored, a signal waits for release();
    so does one whose Stopped Python had to ignore (in a weak reference's callback, in a generator that is thrown away).

    Begins and ends with nothing held; raises once, so that what is undone on the way out is undone in peace. At the
    end the list given has the name of the signal that came, if one did: who leaves otherwise than by Stopped must heed
    it then.
    """
    came: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    owner = os.getpid()
    state = False, False  # held and firmly, before the last Stopped

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal state
        if os.getpid() != owner:  # worker processes inherit this; they end with their parent
            return
        name = signal.Signals(number).name
        wait = (_signals.held or _signals.deferred) and (
            (_signals.held and _signals.firmly) or _signals.patient or _signals.noted is None
        )
        _signals.noted = _signals.noted or name
        if wait or _in_destructor(frame):
            return
        state = _signals.held, _signals.firmly
        hold(firmly=True)
        raise Stopped(name)

    def ignored(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, Stopped):  # noted, so nothing is lost
            _signals.held, _signals.firmly = state
        else:
            hook(unraisable)

    hook, sys.unraisablehook = sys.unraisablehook, ignored
    _signals.clear()
    _signals.handler = stop
    before = {number: signal.signal(number, stop) for number in _signals.numbers}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if sys.unraisablehook is ignored:
            sys.unraisablehook = hook
        if _signals.noted:
            came.append(_signals.noted)
        _signals.handler = None
        _signals.clear()


def _in_destructor(frame: FrameType | None) -> bool:
    """Whether some `__del__` is under way: Python prints what leaves one, and goes on."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


@contextmanager
def settings(*, threads: int | None, deterministic: bool, tf32: bool = False) -> Iterator[None]:
    """Number of CPU threads (None: as it is), torch's deterministic algorithms, tensor cores for float32 on CUDA.

    Without torch's filling of each new tensor with NaN, which shows who reads what nobody wrote, at 2 % of a step.
    """
    precise = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    filling: Any = torch.utils.deterministic
    filled, filling.fill_uninitialized_memory = filling.fill_uninitialized_memory, False
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when CUDA starts
    if threads is not None:
        torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        torch.backends.cudnn.benchmark = before[2]
        filling.fill_uninitialized_memory = filled
        torch.set_float32_matmul_precision(precise[0])
        torch.backends.cudnn.allow_tf32 = precise[1]
