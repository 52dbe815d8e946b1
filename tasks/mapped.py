"""Large arrays as memory-mapped files in the cache, named by content: made once, shared by all processes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 20 * 2**30  # bytes of the cache's entries together; beyond them those go that were not used for longest
SUMS = "sha256.json"  # of each array's bytes; written last

Arrays = Mapping[str, NDArray[Any]]


def mapped_folder() -> Path:
    """`seqbench/encoded` in the platform's cache folder."""
    import platformdirs

    return Path(platformdirs.user_cache_path("seqbench")) / "encoded"


def mapped(key: str, build: Callable[[], Arrays]) -> Arrays:
    """The arrays of that key, read-only: from the cache, else built and stored there.

    Their pages are the system's own: processes that map the same file (ranks, worker processes, runs side by side)
    hold them once. A file that is not what was written is built again; a cache that can't be written costs the time of
    building and the sharing.
    """
    folder = mapped_folder() / key
    found = _read(folder)
    if found is None:
        built = build()
        found = _read(folder) if _write(folder, built) else None
        return built if found is None else found
    return found


def shared(array: NDArray[Any]) -> NDArray[Any]:
    """The same array, memory-mapped under the hash of its content."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(_bytes(array))
    return mapped(digest.hexdigest(), lambda: {"array": array})["array"]


def _bytes(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _read(folder: Path) -> dict[str, NDArray[Any]] | None:
    try:
        sums = json.loads((folder / SUMS).read_bytes())
        found = {}
        for name, expected in sums.items():
            array = np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
            if hashlib.sha256(_bytes(array)).hexdigest() != expected:
                return None
            found[name] = array
        os.utime(folder)  # used now
    except (OSError, ValueError, AttributeError):  # absent, cut off, or not what was written
        return None
    return found


def _write(folder: Path, arrays: Arrays) -> bool:
    """Whether it could be: all files of an entry come to be at once."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _make_room(folder.parent, sum(array.nbytes for array in arrays.values()))
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".part-"))
    except OSError:
        return False
    try:
        sums = {}
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
            sums[name] = hashlib.sha256(_bytes(array)).hexdigest()
        (temporary / SUMS).write_text(json.dumps(sums))
        if folder.exists() and _read(folder) is None:  # damaged; not what another process has just written, and maps
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    except OSError:  # another process was faster; or the disk is full
        return folder.is_dir()
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def _make_room(place: Path, wanted: int) -> None:
    """Take away the entries that were not used for longest, until there is room for so many bytes."""
    entries = []
    for folder in place.iterdir():
        files = [file.stat() for file in folder.glob("*")] if folder.is_dir() else []
        entries.append((folder.stat().st_mtime, sum(file.st_size for file in files), folder))
    total = wanted + sum(size for _, size, _ in entries)
    for _, size, folder in sorted(entries):
        if total <= MOST:
            return
        shutil.rmtree(folder, ignore_errors=True)
        total -= size
