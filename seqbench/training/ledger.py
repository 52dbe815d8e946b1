"""What a training has been so far: steps, clocks, losses, its curve and the best of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, fields
from typing import Any, Literal


@dataclass
class Progress:
    """What a training has been so far: all of it that a checkpoint needs besides weights and random states."""

    step: int = 0  # optimizer steps done
    best_step: int | None = None
    best_value: float = math.nan
    waits: int = 0  # evaluations since the best one
    stopped: bool = False  # for want of gain
    resumed: int = 0  # how often it was taken up again
    started: str = ""  # when the first process that counts began, ISO 8601
    train_seconds: float = 0.0  # in steps alone
    seconds: float = 0.0  # evaluation included
    wall: float = 0.0  # of the whole run
    saved: int | None = None  # steps of the last checkpoint
    first_loss: float | None = None  # of the first step
    above: int = 0  # steps in a row with a loss far above it
    seconds_before: float = 0.0  # of `seconds`, in processes before this one
    wall_before: float = 0.0  # the same of `wall`
    items: int = 0  # labels that the losses were means over
    pending: bool = False  # an evaluation is due after this step and was not made
    curve: list[dict[str, Any]] = field(default_factory=list)  # Points
    curve_sum: float = 0.0  # loss x items since the last point
    curve_items: int = 0
    log_sum: float = 0.0  # the same since the last line for the loggers
    log_items: int = 0
    notes: list[str] = field(default_factory=list)  # what the record is to say of how it came about

    def __post_init__(self) -> None:
        self._begun = time.perf_counter()

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        self.look()
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint says; what was noted and counted in this process stays."""
        notes, resumed = self.notes, self.resumed
        vars(self).update(state)
        self.notes = [*self.notes, *(note for note in notes if note not in self.notes)]
        self.resumed = max(resumed, self.resumed + 1)  # attempts that have saved nothing count, too
        self.seconds_before, self.wall_before = self.seconds, self.wall

    def look(self) -> float:
        """Seconds of the whole run until now, processes before this one up to their last checkpoint included."""
        self.wall = self.wall_before + time.perf_counter() - self._begun
        return self.wall

    def count(self, loss: float, items: int) -> None:
        """A batch that was trained on."""
        self.curve_sum += loss * items
        self.curve_items += items
        self.log_sum += loss * items
        self.log_items += items
        self.items += items

    def is_gain(self, value: float, best: Literal["max", "min"]) -> bool:
        """Whether a value is better than the best one; NaN is the worst, but better than none."""
        if self.best_step is None or math.isnan(self.best_value):
            return self.best_step is None or not math.isnan(value)
        return value > self.best_value if best == "max" else value < self.best_value
