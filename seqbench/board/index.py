"""What a board needs of many records, in few files: `<results>/.index/`. A cache, made by boards and sweeps.

An entry holds for a record whose file and whose predictions are the ones that were read: same inode, size, times of
change. Anything else is read from the record itself, and an entry is only ever made of a record whose seal was checked.
Each file is written whole under another name and renamed, so that writers do not meet; what one of them loses is read
again. No entry is made of a file that changed within the last two seconds: it could change again within one tick of the
file system's clock.
"""
# n entries, W pieces of a record at most, P distinct pieces

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqbench.board.sources import checksum
from seqbench.board.statistics import Examples, Kept
from seqbench.records.pieces import Layout
from seqbench.records.store import write_atomic

FOLDER = ".index"
SHARDS = 16  # files: a few new records change a few of them
SETTLED = 2_000_000_000  # ns since a file's last change
NOT_ASKED, WHY, HITS, VALUES, ADDED = -1, 0, 1, 2, 3  # kinds of what is known of the examples
Stat = tuple[int, int, int, int]
ABSENT: Stat = (0, 0, 0, 0)
Ints = NDArray[np.int64]


def stat_of(found: os.stat_result) -> Stat:
    """What changes where a file does: inode, size, times of the content and of anything, in ns."""
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def shard_of(name: str) -> int:
    """Which file has the entry of a folder."""
    return zlib.crc32(name.encode()) % SHARDS


@dataclass(slots=True)
class Shard:
    """Entries as arrays: equal pieces of their records are held once."""

    names: list[str]
    layouts: list[Layout]
    parts: list[bytes]  # P
    stats_n8: Ints  # of the record, of its predictions
    layout_n: Ints
    refs_nW: Ints  # number of the part of each piece, -1 beyond the layout
    examples_n4: Ints  # kind, first number, how many; examples of the split
    small: NDArray[np.uint8]  # hits of 0 to 255
    large: NDArray[np.float64]

    def told(self, row: int, group: str) -> tuple[Kept | None, str | None] | None:
        """What `examples.read` says of the entry; None where it was not asked."""
        kind, start, count, size = (int(x) for x in self.examples_n4[row])
        if kind == NOT_ASKED:
            return None
        if kind == WHY:
            return None, self.parts[start].decode()
        if kind == ADDED:
            return Kept(size=size, group=group, values=None, added=self.large[start : start + count]), None
        values = self.small if kind == HITS else self.large
        return Kept(size=size, group=group, values=values[start : start + count], added=None), None


@dataclass(slots=True)
class Builder:
    """Entries one after the other."""

    names: list[str] = field(default_factory=list)
    _layouts: dict[Layout, int] = field(default_factory=dict)
    _parts: dict[bytes, int] = field(default_factory=dict)
    _stats: list[Stat] = field(default_factory=list)
    _layout: list[int] = field(default_factory=list)
    _refs: list[list[int]] = field(default_factory=list)
    _examples: list[tuple[int, int, int, int]] = field(default_factory=list)
    _small: list[NDArray[np.uint8]] = field(default_factory=list)
    _large: list[NDArray[np.float64]] = field(default_factory=list)
    _sizes: list[int] = field(default_factory=lambda: [0, 0])

    def add(
        self,
        name: str,
        stats: tuple[Stat, Stat],
        layout: Layout,
        pieces: Sequence[bytes],
        told: tuple[Examples | None, str | None] | None,
    ) -> None:
        """An entry; `told` is what `examples.read` says."""
        self.names.append(name)
        self._stats += stats
        self._layout.append(self._layouts.setdefault(layout, len(self._layouts)))
        self._refs.append([self._part(piece) for piece in pieces])
        self._examples.append(self._told(told))

    def _part(self, piece: bytes) -> int:
        return self._parts.setdefault(piece, len(self._parts))

    def _told(self, told: tuple[Examples | None, str | None] | None) -> tuple[int, int, int, int]:
        if told is None:
            return NOT_ASKED, 0, 0, 0
        found, why = told
        if found is None:
            return WHY, self._part((why or "").encode()), 0, 0
        if found.aggregate is not None:
            return ADDED, *self._keep(self._large, 1, found.contributions()), len(found)
        values = found.values["value"]
        with np.errstate(invalid="ignore"):
            small = values.astype(np.uint8)
        if np.array_equal(small.astype(np.float64), values):
            return HITS, *self._keep(self._small, 0, small), len(found)
        return VALUES, *self._keep(self._large, 1, values), len(found)

    def _keep(self, where: list[Any], which: int, values: NDArray[Any]) -> tuple[int, int]:
        where.append(values)
        start = self._sizes[which]
        self._sizes[which] += len(values)
        return start, len(values)

    def shard(self) -> Shard:
        """All entries."""
        width = max(map(len, self._layouts), default=0)
        refs = np.full((len(self.names), width), -1, dtype=np.int64)
        for row, mine in enumerate(self._refs):
            refs[row, : len(mine)] = mine
        return Shard(
            names=self.names,
            layouts=list(self._layouts),
            parts=list(self._parts),
            stats_n8=np.array(self._stats, dtype=np.int64).reshape(-1, 8),
            layout_n=np.array(self._layout, dtype=np.int64),
            refs_nW=refs,
            examples_n4=np.array(self._examples, dtype=np.int64).reshape(-1, 4),
            small=np.concatenate([np.empty(0, dtype=np.uint8), *self._small]),
            large=np.concatenate([np.empty(0), *self._large]),
        )


def joined(chosen: Sequence[tuple[Shard, Ints]]) -> Shard:
    """Some entries of several shards as one."""
    parts: dict[bytes, int] = {}
    layouts: dict[Layout, int] = {}
    width = max((shard.refs_nW.shape[1] for shard, _ in chosen), default=0)
    names: list[str] = []
    stats, layout, every_refs, examples = [], [], [], []
    small: list[Any] = []
    large: list[Any] = []
    sizes = [0, 0]
    for shard, rows in chosen:
        names += [shard.names[row] for row in rows]
        stats.append(shard.stats_n8[rows])
        numbers = np.array([layouts.setdefault(each, len(layouts)) for each in shard.layouts] or [0], dtype=np.int64)
        layout.append(numbers[shard.layout_n[rows]])
        told = shard.examples_n4[rows].copy()
        refs = shard.refs_nW[rows]
        whys = told[:, 0] == WHY
        place = np.full(len(shard.parts) + 1, -1, dtype=np.int64)  # the last one is that of -1
        for old in np.unique(np.concatenate([refs.ravel(), told[whys, 1]])):
            if old >= 0:
                place[old] = parts.setdefault(shard.parts[old], len(parts))
        wide = np.full((len(rows), width), -1, dtype=np.int64)
        wide[:, : refs.shape[1]] = place[refs]
        every_refs.append(wide)
        told[whys, 1] = place[told[whys, 1]]
        for kinds, which, source, kept in (((HITS,), 0, shard.small, small), ((VALUES, ADDED), 1, shard.large, large)):
            for row in np.flatnonzero(np.isin(told[:, 0], kinds)):
                start, count = told[row, 1:3]
                kept.append(source[start : start + count])
                told[row, 1] = sizes[which]
                sizes[which] += int(count)
        examples.append(told)
    return Shard(
        names=names,
        layouts=list(layouts),
        parts=list(parts),
        stats_n8=np.concatenate([np.empty((0, 8), dtype=np.int64), *stats]),
        layout_n=np.concatenate([np.empty(0, dtype=np.int64), *layout]),
        refs_nW=np.concatenate([np.empty((0, width), dtype=np.int64), *every_refs]),
        examples_n4=np.concatenate([np.empty((0, 4), dtype=np.int64), *examples]),
        small=np.concatenate([np.empty(0, dtype=np.uint8), *small]),
        large=np.concatenate([np.empty(0), *large]),
    )


class Index:
    """The entries of a results folder for boards of one split."""

    def __init__(self, results: Path, split: str) -> None:
        self.folder = results / FOLDER
        self.split = split

    def load(self) -> Iterator[tuple[int, Shard]]:
        """Every file that can be read and that this code made; the others are as if they weren't there."""
        for number in range(SHARDS):
            if (shard := self.read(number)) is not None:
                yield number, shard

    def save(self, number: int, shard: Shard) -> None:
        """Write one file whole. Raises OSError."""
        ends = np.cumsum([len(part) for part in shard.parts], dtype=np.int64)
        about = json.dumps({"key": checksum(), "names": shard.names, "layouts": shard.layouts}).encode()
        arrays = {
            "about": np.frombuffer(about, dtype=np.uint8),
            "parts": np.frombuffer(b"".join(shard.parts), dtype=np.uint8),
            "ends": ends,
            **{name: getattr(shard, name) for name in _ARRAYS},
        }
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_atomic(self._path(number), buffer.getvalue())

    def started(self) -> int:
        """The file system's time in ns, by a file that is made and taken away. Raises OSError where none can be."""
        self.folder.mkdir(exist_ok=True)  # not its parent: no results, no index
        path = self.folder / f".{os.getpid()}.tmp"
        path.touch()
        try:
            return path.stat().st_mtime_ns
        finally:
            path.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.split}-{number:02d}.npz"

    def read(self, number: int) -> Shard | None:
        """One file; None where there is none of this code."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
            with open(self._path(number), "rb") as file, np.load(file, allow_pickle=False) as found:
                about: Mapping[str, Any] = json.loads(found["about"].tobytes())
                if about["key"] != checksum():
                    return None
                blob, ends = found["parts"].tobytes(), found["ends"].tolist()
                parts = [blob[start:end] for start, end in zip([0, *ends], ends, strict=False)]
                shard = Shard(
                    names=list(about["names"]),
                    layouts=[tuple(layout) for layout in about["layouts"]],
                    parts=parts,
                    **{name: found[name] for name in _ARRAYS},
                )
            return shard if len(shard.names) == len(shard.stats_n8) else None
        return None


_ARRAYS = ("stats_n8", "layout_n", "refs_nW", "examples_n4", "small", "large")
