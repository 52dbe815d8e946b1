"""Large imports and configs without the garbage collector, which looks through all that they make again and again."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

LARGE = 100  # modules


@contextmanager
def uncollected() -> Iterator[None]:
    """No collection in the block; after many modules were imported in it, none ever looks at what is there then.

    torch and Lightning make a million objects that live as long as the process: a quarter of the time of their import
    went into looking for garbage among them, and 0.3 s into each later gc.collect().
    """
    before, enabled = len(sys.modules), gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) - before >= LARGE:
            gc.freeze()
        if enabled:
            gc.enable()


def leave(code: int) -> NoReturn:
    """End the process with an exit code, as sys.exit does, but without taking apart what it holds.

    In the ordinary way where something else may still have work to do: another thread, a logger that waits for the end.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if threading.active_count() > 1 or "wandb" in sys.modules:
        sys.exit(code)
    os._exit(code)
