"""Large imports and configs without the garbage collector, which looks through all that they make again and again."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

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
