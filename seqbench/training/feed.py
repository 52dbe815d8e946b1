"""The training batches as one stream over all epochs, with what it took to make them."""
# B batch, L positions

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch

from encoders.base import Sequences
from seqbench import process
from seqbench.training.health import TimedOut
from seqbench.training.transfer import Carrier
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


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A batch that was made, with all that is to be said once it is given out."""

    sent: tuple[Any, Any]  # as Carrier.send gives it
    real: int
    padded: int
    weighs: bool
    position: dict[str, int]  # of the loader after it


class Feed:
    """`count` batches of a loader, epoch after epoch, from where the loader stands; for Lightning, one long epoch.

    A length that is known keeps Lightning from taking a batch in advance. With a `carrier` (on CUDA) this takes one:
    while a batch is trained on, the next one is on its way to the device. All that is counted and saved here is of the
    batch which was given out last, so a checkpoint knows nothing of one in advance; a mistake in that one is raised
    when it is due.
    """

    def __init__(self, loader: Loader, count: int, *, packed: bool = False, shared: bool = False) -> None:
        self.loader, self.count, self.packed = loader, count, packed
        self.shared = shared  # with other ranks: what is given out counts when all have said theirs (ranks/accord)
        self.carrier: Carrier | None = None  # set before the first batch is taken
        self.position = loader.state_dict()
        self.weighs = True  # the part that was given out last; False: it is there to keep step with other ranks
        self.own = 0, 0  # real and padded positions given out since `take`
        self.waited = 0.0  # seconds in which training had nothing to do
        self.real = 0  # positions given out
        self.padded = 0  # the same, with the padding that was worked on

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        fetched = self._fetched()
        if self.carrier is None:
            for one in fetched:
                yield self._give(one)
            return
        ahead = next(fetched, None)
        while ahead is not None:
            one, ahead, late = ahead, None, None
            try:
                ahead = next(fetched, None)
            except TimedOut:  # comes from outside, whatever is done at the moment
                raise
            except Exception as error:
                late = error
            yield self._give(one)
            if late is not None:
                raise late

    def _give(self, one: _Fetched) -> Any:
        """Count a batch as given out."""
        self.position, self.weighs = one.position, one.weighs
        if self.shared:
            self.own = self.own[0] + one.real, self.own[1] + one.padded
        else:
            self.real += one.real
            self.padded += one.padded
        return one.sent[0] if self.carrier is None else self.carrier.receive(one.sent)

    def _fetched(self) -> Iterator[_Fetched]:
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
            weighs = self.loader.weighs()
            if not weighs:
                real = padded = 0
            sent = (batch, None) if self.carrier is None else self.carrier.send(batch)
            yield _Fetched(sent, real, padded, weighs, self.loader.state_dict())

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
            "loader": self.position,
            "waited": self.waited,
            "real": self.real,
            "padded": self.padded,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved position."""
        self.loader.load_state_dict(state["loader"])
        self.position = state["loader"]
        self.waited, self.real, self.padded = state["waited"], state["real"], state["padded"]
