"""When a training ends: how much of its budget of steps, tokens, operations or seconds is spent."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from seqbench.composition.sections import Budget, Schedule
from seqbench.training.feed import Feed
from seqbench.training.ledger import Progress
from seqbench.training.schedules import factor

Kind = Literal["steps", "tokens", "flops", "seconds"]
ENDLESS = 10**9  # batches of a feed whose end is not known before
UNKNOWN = 1000  # steps that a budget of seconds is taken to last until the first one is done


@dataclass(kw_only=True)
class Meter:
    """How much of a budget is spent: of exactly one of steps, tokens, flops, seconds.

    Tokens are the real positions that were fed, padding aside; operations those that are counted on real batches
    before the training (`per_position` of them for each position fed, padding included), as a record's `flops_train`;
    seconds those in training steps, evaluations aside. The first three are functions of the config and the data, so a
    run that is resumed ends at the same step; seconds are those of the clock, and go on from the last checkpoint.
    The budget is spent at the first step at which the amount is reached, so it may be exceeded by less than a step.
    """

    budget: Budget
    accumulate: int  # batches a step
    feed: Feed
    progress: Progress
    step_tokens: float  # expected of a step, before one is done
    per_position: float = 0.0  # operations of a position; for a budget in flops alone
    since: float | None = field(default=None, init=False)  # when the clock was started; None: it stands
    agreed: float | None = field(default=None, init=False)  # seconds that count, where several ranks must agree on them

    @property
    def kind(self) -> Kind:
        """What is counted."""
        return kind_of(self.budget)

    def start(self) -> None:
        """Start the clock."""
        self.since = time.perf_counter()

    def stop(self) -> None:
        """Stop the clock; what it shows is added to `progress.train_seconds`."""
        self.progress.train_seconds = self._seconds()
        self.since = None

    def share(self) -> float:
        """Of the budget, spent; 1 and more: it is over."""
        budget = self.budget
        if budget.steps is not None:
            return self.progress.step / budget.steps
        if budget.tokens is not None:
            return self.feed.real / budget.tokens
        if budget.flops is not None:
            return self.per_position * self.feed.padded / budget.flops
        assert budget.seconds is not None
        return (self._seconds() if self.agreed is None else self.agreed) / budget.seconds

    def clock(self) -> float:
        """Seconds in training steps until now, by this process's clock."""
        return self._seconds()

    def batches_left(self) -> int:
        """Batches that the feed must have; 0 if the budget is spent."""
        if self.budget.steps is not None:
            return max(0, self.budget.steps - self.progress.step) * self.accumulate
        return ENDLESS * self.accumulate if self.share() < 1 else 0

    def steps(self, done: int) -> int:
        """Steps of the whole training, as `done` steps and what they took let expect; exact for a budget of steps."""
        if self.budget.steps is not None:
            return self.budget.steps
        share = self.share()
        if done and share > 0:
            return max(done, round(done / share))
        if self.budget.tokens is not None:
            return max(1, round(self.budget.tokens / self.step_tokens))
        if self.budget.flops is not None:
            return max(1, round(self.budget.flops / (self.per_position * self.step_tokens)))
        return UNKNOWN

    def factor(self, done: int, schedule: Schedule) -> float:
        """Learning rate after `done` steps, as a share of its peak.

        That of a training of as many steps as are expected now: so it follows the share of the budget that is spent.
        """
        return factor(done, steps=self.steps(done), kind=schedule.kind, warmup=schedule.warmup, floor=schedule.floor)

    def _seconds(self) -> float:
        return self.progress.train_seconds + (0.0 if self.since is None else time.perf_counter() - self.since)


def kind_of(budget: Budget) -> Kind:
    """The one of the four that is set."""
    kinds: tuple[Kind, ...] = ("steps", "tokens", "flops", "seconds")
    return next(kind for kind in kinds if getattr(budget, kind) is not None)
