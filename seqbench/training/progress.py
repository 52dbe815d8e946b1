"""What a run tells while it goes on, and a bar that shows it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened in a run."""

    kind: Literal["start", "step", "valid", "score", "end"]  # "step" after each optimizer step
    step: int = 0
    steps: int = 0
    values: dict[str, float] = field(default_factory=dict)  # of "valid": what the curve holds


Watch = Callable[[Event], None]


def ignore(event: Event) -> None:
    """For nobody who watches."""


class Bar:
    """One line on stderr: steps, time left, the last validation. Costs a clock reading a step."""

    def __init__(self, title: str, headline: str, *, position: int = 0) -> None:
        self.title, self.headline, self.position = title, headline, position
        self.bar: Any = None
        self.shown = 0.0

    def __call__(self, event: Event) -> None:
        """Show it, ten times a second at most."""
        if event.kind == "end":
            self.close()
            return
        if self.bar is None:
            if not event.steps:
                return
            from tqdm import tqdm

            self.bar = tqdm(
                total=event.steps,
                desc=self.title,
                unit="step",
                file=sys.stderr,
                leave=False,
                position=self.position,
                dynamic_ncols=True,
                initial=event.step,
                mininterval=0,  # we look at the clock ourselves
            )
        if event.steps:
            self.bar.total = event.steps  # an estimate, where the budget is in tokens, operations or seconds
        if event.values:
            names = {"loss": "train/loss", self.headline: f"valid/{self.headline}"}
            self.bar.set_postfix(
                {k: f"{event.values[v]:.4g}" for k, v in names.items() if v in event.values}, refresh=False
            )
        now = time.monotonic()
        if event.kind != "step" or now - self.shown > 0.1 or event.step == event.steps:
            self.shown = now
            self.bar.update(event.step - self.bar.n)

    def close(self) -> None:
        """Remove the line."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class Lines:
    """A line on stderr at each evaluation, where there is no terminal for a bar."""

    def __init__(self, title: str, headline: str) -> None:
        self.title, self.headline = title, headline

    def __call__(self, event: Event) -> None:
        """Say it."""
        if event.kind != "valid":
            return
        names = {"loss": "train/loss", self.headline: f"valid/{self.headline}"}
        values = "".join(f", {name} {event.values[key]:.4g}" for name, key in names.items() if key in event.values)
        print(f"{self.title}: step {event.step}/{event.steps}{values}", file=sys.stderr, flush=True)
