"""What the ranks of a training agree on, exchanged once a batch: weights of its parts, amounts spent, when to leave."""

from __future__ import annotations

import math
import signal
import time
from dataclasses import dataclass, field

from seqbench import process
from seqbench.ranks.group import Ranks
from seqbench.training.feed import Feed
from seqbench.training.health import Deadline
from seqbench.training.limits import Meter

OTHER = 99  # no signal has this number


@dataclass(kw_only=True)
class Accord:
    """One exchange for each part of a step, before its backward pass; then all ranks know the same, and decide alike.

    Amounts (real and padded positions) are sums over ranks, clocks are the first rank's. A signal or a time limit
    that any rank knows of by the exchange ends all of them after that step; what comes later waits for the next one.
    """

    ranks: Ranks
    feed: Feed
    meter: Meter
    deadline: Deadline
    save_every: float | None  # seconds
    saved_at: float = field(default_factory=time.perf_counter)
    stop: str | None = field(default=None, init=False)  # name of a signal that came to one of them
    late: bool = field(default=False, init=False)  # the time limit is reached
    save: bool = field(default=False, init=False)  # a checkpoint is due by the clock

    def exchange(self, items: int) -> list[int]:
        """Items of each rank's part of the batch; the rest is kept here, in the feed and in the meter."""
        real, padded = self.feed.take()
        due = self.save_every is not None and time.perf_counter() - self.saved_at >= self.save_every
        table = self.ranks.table(
            [items, real, padded, self.meter.clock(), number(process.noted()), self.deadline.reached, due]
        )
        columns = list(zip(*table, strict=True))
        self.feed.real += int(sum(columns[1]))
        self.feed.padded += int(sum(columns[2]))
        self.meter.agreed = columns[3][0]
        self.stop = name(max(columns[4]))
        self.late = bool(columns[5][0])
        self.save = bool(columns[6][0])
        return [int(value) for value in columns[0]]


def number(name: str | None) -> int:
    """Of a signal; 0 for none, OTHER for another reason to stop."""
    if name is None:
        return 0
    return int(signal.Signals[name]) if name in signal.Signals.__members__ else OTHER


def name(number: float) -> str | None:
    """Of a signal's number, None for 0."""
    if not number or not math.isfinite(number):
        return None
    try:
        return signal.Signals(int(number)).name
    except ValueError:
        return "another process"
