"""A rank that waits in NCCL for one that is gone is not told so: a thread looks, and breaks the waiting off."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

TICK = 1.0  # seconds between two looks
GRACE = 1.0  # seconds that a rank has to end by a word of its own, if it fails at the same time
BROKEN = "broken"  # set by the first rank, which has failed, or was stopped


class Alarm:
    """A context in which the process group is aborted once `trouble` says that another rank is gone.

    Only on CUDA: gloo notices a lost connection by itself. Afterwards `rung` tells; the error that ends the waiting
    may then be any, and no more than that another rank is gone is to be read from it.
    """

    def __init__(self, trouble: Callable[[], object], *, device: str) -> None:
        self.trouble, self.device = trouble, device
        self.rung = False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Alarm:
        if self.device == "cuda":
            self._thread = threading.Thread(target=self._look, daemon=True, name="ranks")
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(TICK):
            if self.trouble() and dist.is_initialized():
                if not self._over.wait(GRACE):
                    self.rung = True
                    dist.distributed_c10d._abort_process_group()
                return


def break_off(store: Any) -> None:
    """Tell the other ranks of an attempt that the first one has left it."""
    with contextlib.suppress(RuntimeError):  # the store is gone, and by that they know
        store.set(BROKEN, b"")


def is_broken_off(store: Any) -> bool:
    """Whether the first rank has left, or is gone with the store that it kept."""
    try:
        return bool(store.check([BROKEN]))
    except RuntimeError:
        return True
