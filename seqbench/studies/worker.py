"""A process of a sweep that takes cell after cell: torch and Lightning are imported once (pool.py starts it).

What it is sent, through one connection: (config, jobs) for each cell; the connection's end is its own end. What it
sends: ("ready",), then ("event", Event) while a cell runs and one of these at its end:
("end", Record), ("not run", why), ("elsewhere", why), ("stop", why) where nothing can be written,
("interrupted", by), ("bug", traceback).
"""

from __future__ import annotations

import gc
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from seqbench.config import RunConfig
from seqbench.garbage import uncollected
from seqbench.training.progress import Event, Watch

OFTEN = 0.2  # seconds between two messages about steps


class _Wish:
    """Somebody wants this process to end; for the moments in which no run listens itself (seqbench.process)."""

    name: str | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name


class _Watch:
    """Tells the other end what happens in a run, and stops the run if somebody wants that or nobody listens."""

    def __init__(self, link: Connection[Any, Any], wish: _Wish) -> None:
        self.link, self.wish, self.sent = link, wish, 0.0

    def __call__(self, event: Event) -> None:
        from seqbench.process import Stopped

        if event.kind == "end":
            return
        if self.wish.name:
            raise Stopped(self.wish.name)
        if event.kind == "step" and event.step < event.steps and time.monotonic() - self.sent < OFTEN:
            return
        self.sent = time.monotonic()
        try:
            self.link.send(("event", event))
        except OSError:
            self.wish.name = "the end of the sweep"
            raise Stopped(self.wish.name) from None


def work(descriptor: int, threads: int) -> None:
    """Take cells from the connection until it ends, in this process's main thread, with `threads` for torch."""
    wish = _Wish()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, wish)
    link: Connection[Any, Any] = Connection(descriptor)
    with uncollected():
        import torch

        import seqbench.training.attempt  # noqa: F401  # Lightning: seconds, once for all cells

    torch.set_num_threads(min(threads, torch.get_num_threads()))
    try:
        link.send(("ready",))
        while not wish.name:
            config, jobs = link.recv()
            reply = answer(config, jobs, _Watch(link, wish))
            gc.collect()  # a cell's tensors, before the next one's
            sys.stdout.flush()
            sys.stderr.flush()
            link.send(reply)
            if reply[0] == "interrupted":
                return
    except (EOFError, OSError):
        return  # the sweep is over


def answer(config: RunConfig, jobs: int, watch: Watch, *, again: bool = False) -> tuple[Any, ...]:
    """Run a cell; what to send at its end. `again`: as run() has it."""
    from seqbench.errors import ConfigError, RecordError, Unwritable
    from seqbench.process import Stopped
    from seqbench.records.claim import Claimed
    from seqbench.run import run
    from tasks.data.base import DataError

    try:
        return "end", run(config, watch=watch, jobs=jobs, again=again).record
    except Claimed as error:
        return "elsewhere", str(error)
    except Unwritable as error:
        return "stop", str(error)
    except (ConfigError, DataError, RecordError) as error:
        return "not run", str(error)
    except (KeyboardInterrupt, Stopped) as error:
        return "interrupted", str(error)
    except Exception:
        return "bug", traceback.format_exc()
