"""Numbers as a reader wants them: a metric in its own scale, an interval as half a line, sizes in powers of ten."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

DASH = "–"
PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How a metric is written: values are multiplied by `factor` and rounded to `digits` decimals."""

    unit: str
    factor: float
    digits: int

    def number(self, value: float | None, *, signed: bool = False) -> str:
        """`87.4`, or a dash where it is not defined."""
        if value is None or not math.isfinite(value):
            return DASH
        return f"{value * self.factor:{'+' if signed else ''}.{self.digits}f}"

    def interval(self, low: float | None, high: float | None) -> str:
        """`[86.1, 88.6]`, or nothing."""
        if low is None or high is None:
            return ""
        return f"[{self.number(low)}, {self.number(high)}]"


def scale(unit: str, values: list[float], bounds: tuple[float, float] | None) -> Scale:
    """By unit and bounds: shares in [0, 1] with unit % as per cent with one decimal, others with three digits or so.

    `bounds` is None where the metric's class is not known; a unit of % is then taken to be a share if all values are.
    """
    top = max((abs(value) for value in values if math.isfinite(value)), default=1.0)
    if unit == "%":
        share = bounds[1] <= 1 if bounds is not None else top <= 1
        return Scale(unit=unit, factor=100.0 if share else 1.0, digits=1)
    digits = 3 if top < 10 else 2 if top < 100 else 1 if top < 1000 else 0
    return Scale(unit=unit, factor=1.0, digits=digits)


def arrow(best: Literal["max", "min"]) -> str:
    """Which way is better."""
    return "↑" if best == "max" else "↓"


def size(value: float | None, unit: str = "") -> str:
    """`1.2M`, `340`, `3.1T`; a dash for None."""
    if value is None or not math.isfinite(value):
        return DASH
    for power, prefix in PREFIXES:
        if abs(value) >= 0.9995 * power:
            return (
                f"{value / power:.3g}{prefix}{unit}"
                if abs(value / power) < 999.5
                else f"{value / power:.0f}{prefix}{unit}"
            )
    return f"{value:.3g}{unit}" if abs(value) < 100 else f"{value:.0f}{unit}"


def seconds(value: float | None) -> str:
    """`41 s`, `3.2 min`, `1.4 h`."""
    if value is None or not math.isfinite(value):
        return DASH
    if value < 100:
        return f"{value:.2g} s" if value < 9.95 else f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 5940 else f"{value / 3600:.1f} h"


def milliseconds(value: float | None) -> str:
    """`0.83`, `12.4`, `150`."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def mebibytes(value: float | None) -> str:
    """`840 MiB`, `12.3 GiB`."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:.0f} MiB" if value < 10240 else f"{value / 1024:.1f} GiB"


def one_line(text: str, limit: int = 160) -> str:
    """Text without line breaks, cut at `limit`."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else f"{flat[: limit - 1]}…"
