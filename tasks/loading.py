"""Batches: cut by rows or by a token budget, bucketed by length, in an order that is a function of (seed, epoch)."""
# N rows of the split

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from tasks.random_state import NumpyState

POOL = 64  # batches whose rows are sorted by length together: less padding, order still random at large


@dataclass(frozen=True, kw_only=True, slots=True)
class Batching:
    """How rows are cut into batches: by number, or by positions with padding counted. Exactly one of the two."""

    rows: int | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        if (self.rows is None) == (self.tokens is None):
            raise ValueError("set exactly one of batch_size (rows) and batch_tokens (positions, padding counted)")
        if (self.rows or self.tokens or 0) < 1:
            raise ValueError(f"a batch of {self.rows or self.tokens} rows or tokens")


def plan_batches(
    lengths: NDArray[np.int64], batching: Batching, *, seed: int, epoch: int, shuffle: bool
) -> list[NDArray[np.int64]]:
    """Row numbers of each batch of an epoch. Every row is in exactly one batch; none is dropped.

    Shuffled: a permutation from (seed, epoch), sorted by length within pools of POOL batches, cut, and the batches
    permuted again. Not shuffled: sorted by length, ties by row, longest first (memory runs out at once or never).
    A row longer than the token budget is a batch of its own.
    """
    generator = np.random.default_rng([seed, epoch])
    if not shuffle:
        return _cut(np.lexsort((np.arange(len(lengths)), -lengths)), lengths, batching)
    order = generator.permutation(len(lengths))
    mean = max(1.0, float(lengths.mean())) if len(lengths) else 1.0
    rows = batching.rows or max(1, int((batching.tokens or 1) / mean))
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), rows * POOL):
        pool = order[start : start + rows * POOL]
        batches += _cut(pool[np.argsort(lengths[pool], kind="stable")], lengths, batching)
    return [batches[i] for i in generator.permutation(len(batches))]


def _cut(order: NDArray[np.int64], lengths: NDArray[np.int64], batching: Batching) -> list[NDArray[np.int64]]:
    if batching.rows is not None:
        return [order[i : i + batching.rows] for i in range(0, len(order), batching.rows)]
    assert batching.tokens is not None
    batches, start, longest = [], 0, 0
    for i, row in enumerate(order):
        longest = max(longest, int(lengths[row]))
        if i > start and longest * (i + 1 - start) > batching.tokens:
            batches.append(order[start:i])
            start, longest = i, int(lengths[row])
    if start < len(order):
        batches.append(order[start:])
    return batches


def sample_rows(count: int, limit: int | None) -> NDArray[np.int64]:
    """Row numbers of a fixed random sample of `limit` of `count` rows, ascending; all of them for None.

    Not the first rows: a file sorted by label or length would show one kind of row alone.
    """
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).permutation(count)[:limit])


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Whose part of each batch: every one is cut into `parts` x `ranks` parts, of which `rank` gets `parts`.

    A batch's rows are dealt out in turn, so parts differ by one row at most, and all of them by little in length. The
    batch stays the same for any number of parts and ranks.
    """

    parts: int = 1
    rank: int = 0
    ranks: int = 1

    def cut(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """This rank's parts of a batch. One without rows gets the first row again, and must weigh 0 (`is_empty`)."""
        total = self.parts * self.ranks
        if total == 1:
            return [rows]
        cuts = [rows[number::total] for number in self.numbers(0)]
        return [cut if len(cut) else rows[:1] for cut in cuts]

    def numbers(self, batch: int) -> range:
        """Numbers of this rank's parts of a batch among all parts of an epoch."""
        total = self.parts * self.ranks
        return range(batch * total + self.rank, (batch + 1) * total, self.ranks)

    def is_empty(self, part: int, rows: int) -> bool:
        """Whether none of a batch's `rows` is in this rank's part number `part`."""
        return part * self.ranks + self.rank >= rows


WHOLE = Share()


class Loader:
    """Iterates over batches; its position (epoch, batches given out) can be saved and set.

    With a `share` it gives this rank's parts of each batch, one after the other; position and length count parts, what
    is saved whole batches.

    A batch is made with random states that are a function of (seed, epoch, its number), so one that draws numbers is
    the same in whatever process it is made, and after whatever interruption; training's own states are as they were.
    Iterating begins where `load_state_dict` put it, else at the epoch's start; a finished epoch moves to the next.
    The order is the same for any number of workers. `len()` is the number of batches of the current epoch, whole.
    """

    def __init__(
        self,
        *,
        lengths: NDArray[np.int64],
        collate: Callable[[NDArray[np.int64]], Any],
        batching: Batching,
        seed: int,
        shuffle: bool,
        workers: int = 0,
        share: Share = WHOLE,
    ) -> None:
        self.share = share
        self.lengths, self.collate, self.batching = lengths, collate, batching
        self.seed, self.shuffle, self.workers = seed, shuffle, workers
        self.epoch, self.position = 0, 0
        self._planned: tuple[int, list[NDArray[np.int64]]] | None = None

    def batches(self) -> list[NDArray[np.int64]]:
        """Row numbers of each batch of the current epoch."""
        if self._planned is None or self._planned[0] != self.epoch:
            plan = plan_batches(self.lengths, self.batching, seed=self.seed, epoch=self.epoch, shuffle=self.shuffle)
            self._planned = (self.epoch, plan)
        return self._planned[1]

    def __len__(self) -> int:
        return len(self.batches()) * self.share.parts

    def weighs(self) -> bool:
        """Whether the part that was given out last has rows of its own, and so any weight."""
        parts = self.share.parts
        batch, part = divmod(self.position - 1, parts)
        return not self.share.is_empty(part, len(self.batches()[batch]))

    def __iter__(self) -> Iterator[Any]:
        share, batches = self.share, self.batches()
        parts = [part for batch in batches for part in share.cut(batch)]
        numbers = [n for i in range(len(batches)) for n in share.numbers(i)]
        rows = _Rows(parts, self.collate, (self.seed, self.epoch), numbers)
        remaining = range(self.position, len(rows))
        source: Any = (rows[i] for i in remaining)
        if self.workers:
            source = DataLoader(rows, batch_size=None, sampler=remaining, num_workers=self.workers)
        for batch in source:
            self.position += 1
            yield batch
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        """Epoch, and batches of it that were given out whole."""
        return {"epoch": self.epoch, "position": self.position // self.share.parts}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a saved position."""
        self.epoch, self.position = state["epoch"], state["position"] * self.share.parts


def collated(
    batches: list[NDArray[np.int64]],
    collate: Callable[[NDArray[np.int64]], Any],
    *,
    workers: int,
    only: Sequence[int] | None = None,
) -> Iterator[Any]:
    """Batches of the rows given (or the numbers `only` of them), in that order, made here or by worker processes."""
    rows = _Rows(batches, collate, (0, 0))
    numbers = range(len(rows)) if only is None else only
    if not workers:
        return (rows[i] for i in numbers)
    return iter(DataLoader(rows, batch_size=None, sampler=numbers, num_workers=workers))


class _Rows(Dataset[Any]):
    """The batches of an epoch by number, here or in DataLoader's workers."""

    def __init__(
        self,
        batches: list[NDArray[np.int64]],
        collate: Callable[[NDArray[np.int64]], Any],
        seed: tuple[int, int],
        numbers: Sequence[int] | None = None,
    ) -> None:
        self.items, self.collate, self.seed = batches, collate, seed
        self.numbers = range(len(batches)) if numbers is None else numbers  # what random states are made of

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        with _seeded(*self.seed, self.numbers[i]):
            return self.collate(self.items[i])


@contextmanager
def _seeded(*numbers: int) -> Iterator[None]:
    """Random states of python, numpy and torch on the CPU from `numbers`; afterwards they are as they were."""
    before, arrays = (random.getstate(), torch.get_rng_state()), NumpyState.take()
    words = np.random.SeedSequence(numbers).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002 -- libraries draw from the global one
    torch.default_generator.manual_seed(int(words[2]))  # not torch.manual_seed: that reaches for CUDA, too
    try:
        yield
    finally:
        random.setstate(before[0])
        torch.set_rng_state(before[1])
        arrays.put()
