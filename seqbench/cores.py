"""The cores of this machine, and work done on all of them at once."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
MOST = 16  # processes: more of them wait for the disk


def cores() -> int:
    """CPU cores that this process may use: by its affinity and, in a container, by its quota."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: `200000 100000`, or `max 100000`
    if quota.is_file():
        limit, _, period = quota.read_text().strip().partition(" ")
        if limit.isdecimal() and period.isdecimal():
            count = min(count, int(limit) // int(period))
    return max(1, count)


def workers(parts: int) -> int:
    """In how many processes to do so many parts: one a core that this process may use, 1 where forking is not safe."""
    alone = threading.active_count() == 1 and "fork" in multiprocessing.get_all_start_methods()
    return max(1, min(cores(), MOST, parts)) if alone else 1


def shares(items: Sequence[T], count: int) -> list[Sequence[T]]:
    """The items in order, in as many runs of about the same length."""
    ends = [len(items) * i // count for i in range(count + 1)]
    return [items[start:end] for start, end in itertools.pairwise(ends)]


def at_once(works: Sequence[Callable[[], T]]) -> list[T]:
    """What each returns, in order: the first done here, each other in a process of its own.

    They are forked from this one: what is imported and read by now need not be again. Of what a work changes nothing
    is seen here but what it returns, by pickle. Where none comes back (it raised, the
    process was killed) the work is done again here, so that an error is raised here as if there were one process.
    """
    context = multiprocessing.get_context("fork") if len(works) > 1 else None
    children = []
    found = []
    try:
        for work in works[1:]:
            assert context is not None
            receiver, sender = context.Pipe(duplex=False)
            child = context.Process(target=_send, args=(work, sender), daemon=True)
            child.start()
            sender.close()
            children.append((child, receiver))
        found += [work() for work in works[:1]]
        for work, (_, receiver) in zip(works[1:], children, strict=True):
            try:
                found.append(receiver.recv())
            except EOFError:
                found.append(work())
    finally:
        for child, receiver in children:
            receiver.close()
            child.terminate()
            child.join()
    return found


def _send(work: Callable[[], Any], sender: Connection) -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)  # OpenMP's threads are not forked with the process: it would wait for them
    with contextlib.suppress(Exception):  # the end of the pipe says so
        sender.send(work())
