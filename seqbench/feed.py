"""The training batches as one stream over all epochs, with what it took to make them."""
# B batch, L positions

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import torch

from encoders.base import Sequences
from seqbench import process
from tasks.base import Batch
from tasks.loading import Loader


def count_positions(batch: Batch, *, packed: bool = False) -> tuple[int, int]:
    """Real positions of a batch, and those that are worked on: over each of its fields that is Sequences.

    These are all positions, padding included, or where the encoder works `packed`, the real ones.
    """
    real = padded = 0
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Sequences):
            real += int(value.mask.sum())
            padded += value.mask.numel()
    return real, real if packed else padded


class Feed:
    """`count` batches of a loader, epoch after epoch, from where the loader stands; for Lightning, one long epoch.

    A length that is known keeps Lightning from taking a batch in advance, so the loader's position is always that
    of the batch which was trained on last.
    """

    def __init__(self, loader: Loader, count: int, *, packed: bool = False, shared: bool = False) -> None:
        self.loader, self.count, self.packed = loader, count, packed
        self.shared = shared  # with other ranks: what is given out counts when all have said theirs (seqbench.accord)
        self.weighs = True  # the part that was given out last; False: it is there to keep step with other ranks
        self.own = 0, 0  # real and padded positions given out since `take`
        self.waited = 0.0  # seconds in which training had nothing to do
        self.real = 0  # positions given out
        self.padded = 0  # the same, with the padding that was worked on

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        iterator = iter(self.loader)
        fresh = True
        for _ in range(self.count):
            start = time.perf_counter()
            between_steps = not process.held()
            batch = None
            while batch is None:
                if between_steps and (fresh or not self.loader.workers):
                    process.hold()  # random states of this process are changed and put back
                try:
                    batch = self._first(iterator) if fresh else next(iterator)
                    fresh = False
                except StopIteration:
                    iterator, fresh = iter(self.loader), True
            if between_steps:
                process.release()
            self.waited += time.perf_counter() - start
            real, padded = count_positions(batch, packed=self.packed)
            self.weighs = self.loader.weighs()
            if not self.weighs:
                real = padded = 0
            if self.shared:
                self.own = self.own[0] + real, self.own[1] + padded
            else:
                self.real += real
                self.padded += padded
            yield batch

    def take(self) -> tuple[int, int]:
        """Real and padded positions that this rank has given out since the last time."""
        own, self.own = self.own, (0, 0)
        return own

    def _first(self, iterator: Iterator[Any]) -> Any:
        """An epoch's first batch. Starting worker processes draws a number; dropout shall not depend on that."""
        with torch.random.fork_rng(devices=[]):
            return next(iterator)

    def state_dict(self) -> dict[str, Any]:
        """Position and counts."""
        return {
            "loader": self.loader.state_dict(),
            "waited": self.waited,
            "real": self.real,
            "padded": self.padded,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved position."""
        self.loader.load_state_dict(state["loader"])
        self.waited, self.real, self.padded = state["waited"], state["real"], state["padded"]
