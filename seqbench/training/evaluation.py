"""Predictions and loss of a split, with no trace left in the training that they interrupt."""
# B batch

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.base import Encoder
from seqbench import process
from seqbench.randomness import isolated
from seqbench.ranks.group import ALONE, Ranks
from tasks.base import Task
from tasks.loading import Batching, collated, plan_batches, sample_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What came of the rows of a split."""

    predictions: dict[int, Any]  # row of the split -> prediction, in the data set's own terms
    losses: list[tuple[float, int]]  # of each batch, the mean over its items that count, and how many these are
    seconds: float

    @property
    def loss(self) -> float:
        """Mean over the items that count; NaN where there is none."""
        total, items = 0.0, 0
        for loss, number in self.losses:
            total += loss * number
            items += number
        return total / items if items else math.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluator:
    """Runs a task over rows: how, on what device and in what precision."""

    task: Task
    encoder: Encoder
    batching: Batching
    device: torch.device
    precision: Callable[[], AbstractContextManager[Any]]  # makes a context, e.g. of autocast
    workers: int
    seed: int
    ranks: Ranks = ALONE

    def run(self, split: str, *, limit: int | None = None) -> Evaluation:
        """Evaluate the split, or a fixed sample of `limit` rows. Afterwards modes and random states are as before.

        Without gradients, but not in inference mode: what a module caches then must serve training too.

        Ranks share the batches, which are those of one process; the first rank has all predictions, the others theirs,
        all have the losses. Where signals wait for the ranks to agree, one ends this for all: raises process.Agreed.
        """
        lengths = self.task.lengths(split)
        rows = sample_rows(len(lengths), limit)
        planned = plan_batches(lengths[rows], self.batching, seed=0, epoch=0, shuffle=False)
        batches = [rows[places] for places in planned]
        if not self.ranks.several:
            return self.over(split, batches, workers=self.workers)
        start = time.perf_counter()
        mine = range(self.ranks.rank, len(batches), self.ranks.size)
        part = self.over(split, batches, workers=self.workers, only=mine)
        told = self.ranks.everywhere((process.noted() if process.waits() else None, part.losses))
        stops = [stop for stop, _ in told if stop is not None]
        if stops:
            raise process.Agreed(stops[0])
        predictions = {row: one for share in self.ranks.gathered(part.predictions) for row, one in share.items()}
        losses = [told[i % self.ranks.size][1][i // self.ranks.size] for i in range(len(batches))]
        return Evaluation(predictions=predictions, losses=losses, seconds=time.perf_counter() - start)

    def over(
        self,
        split: str,
        batches: list[NDArray[np.int64]],
        *,
        workers: int,
        seconds: float = math.inf,
        only: Sequence[int] | None = None,
    ) -> Evaluation:
        """Evaluate batches of rows as they are given, or the numbers `only` of them, in this process.

        None begins after `seconds`, the first always does; nor when a signal waits for other ranks.
        """
        modules = [*self.encoder.modules(), *self.task.modules()]
        modes = [module.training for module in modules]
        self.encoder.eval()
        self.task.eval()
        predictions: dict[int, Any] = {}
        losses: list[tuple[float, int]] = []
        start = time.perf_counter()
        try:
            with isolated(self.seed), torch.no_grad():
                for batch in collated(batches, functools.partial(self.task.collate, split), workers=workers, only=only):
                    with self.precision():
                        output = self.task(self.encoder, batch.to(self.device))
                    predictions.update(zip(batch.index.tolist(), output.predictions, strict=True))
                    losses.append((float(output.loss), output.items))
                    if time.perf_counter() - start > seconds or (process.waits() and process.noted()):
                        break
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode
        return Evaluation(predictions=predictions, losses=losses, seconds=time.perf_counter() - start)
