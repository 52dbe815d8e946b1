"""What was solved before: `results/matches/<digest>.json`, with a checksum, for what is measured can't be counted."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from seqbench.errors import RecordError
from seqbench.records import identity
from seqbench.records.claim import Claimed, claim
from seqbench.records.store import reason_of, write_atomic

Changes = dict[str, int]


def content(path: Path, changes: Changes) -> bytes:
    """A solution as it is written: the checksum is of it and of the file's name, which says what it is of."""
    return (json.dumps({"solved": changes, "sha256": _seal(path, changes)}) + "\n").encode()


def read(path: Path) -> tuple[Changes, bool] | None:
    """A solution and whether it has its checksum; None where there is none. What is damaged is told, and is none.

    Files of before have no checksum.
    """
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return _damaged(path, "can't be read")
    solved = found.get("solved", found) if isinstance(found, dict) else None
    if not isinstance(solved, dict) or not all(type(value) is int for value in solved.values()):
        return _damaged(path, "is no solution")
    if solved is found:
        return solved, False
    if found.get("sha256") != _seal(path, solved):
        return _damaged(path, "is not what was written (its checksum differs)")
    return solved, True


def keep(path: Path, changes: Changes, holds: Callable[[Changes, bool], bool]) -> Changes:
    """Write a solution down, unless another process was first with one that holds: then that is the one that counts.

    Looked at and written by one process at a time, for a damaged file, or one that doesn't hold, is replaced.
    """
    while True:
        try:
            with claim(path.with_suffix("")):
                first = read(path)
                if first is not None and holds(*first):
                    return first[0]
                write_atomic(path, content(path, changes))
                return changes
        except Claimed:
            time.sleep(0.02)
        except OSError as error:
            raise RecordError(f"results: {path.parent} cannot be written to ({reason_of(error)})") from None


def _seal(path: Path, changes: Changes) -> str:
    return identity.digest([path.stem, changes])


def _damaged(path: Path, how: str) -> tuple[Changes, bool] | None:
    print(f"{path}: {how}; it is solved anew", file=sys.stderr)
    return None
