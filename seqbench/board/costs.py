"""Cost beside quality: means over a cell's runs, per machine class and never across."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from seqbench.record import Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """A column of cost."""

    key: str
    title: str
    header: str  # short, for a table's head
    format: str  # size | ms | s | mib
    of_machine: bool  # whether it can be compared only within a machine class
    better: str  # less | more


COSTS = (
    Cost(key="parameters", title="Parameters", header="params", format="size", of_machine=False, better="less"),
    Cost(
        key="flops_train", title="Training FLOPs", header="train FLOPs", format="size", of_machine=False, better="less"
    ),
    Cost(
        key="tokens_per_second",
        title="Training tokens/s",
        header="tokens/s",
        format="size",
        of_machine=True,
        better="more",
    ),
    Cost(
        key="latency_p50_ms",
        title="Latency p50, ms (batch 1)",
        header="p50 ms",
        format="ms",
        of_machine=True,
        better="less",
    ),
    Cost(
        key="latency_p95_ms",
        title="Latency p95, ms (batch 1)",
        header="p95 ms",
        format="ms",
        of_machine=True,
        better="less",
    ),
    Cost(
        key="peak_memory_mib",
        title="Peak memory of data, model and training, MiB (on a CPU: growth of the process)",
        header="memory",
        format="mib",
        of_machine=True,
        better="less",
    ),
    Cost(key="wall_seconds", title="Wall time, s", header="wall time", format="s", of_machine=True, better="less"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CostLine:
    """Mean cost of a cell's finished runs on one machine class; None where no run measured it."""

    machine: str
    runs: int
    values: dict[str, float | None]


def cost_values(record: Record) -> dict[str, float | None]:
    """What one run cost, by the keys of COSTS; a latency that is not of batch 1 is not given."""
    cost = record.cost
    latency = cost.latency if cost.latency is not None and cost.latency.batch_size == 1 else None
    return {
        "parameters": cost.parameters,
        "flops_train": cost.flops_train,
        "tokens_per_second": cost.train_tokens_per_second,
        "latency_p50_ms": latency.p50_ms if latency else None,
        "latency_p95_ms": latency.p95_ms if latency else None,
        "peak_memory_mib": cost.peak_memory_mib,
        "wall_seconds": cost.wall_seconds,
    }


def cost_lines(records: Sequence[Record]) -> list[CostLine]:
    """One line per machine class, the one with most runs first."""
    by_machine: dict[str, list[dict[str, float | None]]] = {}
    for record in records:
        by_machine.setdefault(record.environment.machine_class, []).append(cost_values(record))
    lines = []
    for machine, runs in sorted(by_machine.items(), key=lambda item: (-len(item[1]), item[0])):
        measured = {cost.key: [x for run in runs if (x := run[cost.key]) is not None and isfinite(x)] for cost in COSTS}
        values = {key: fmean(xs) if xs else None for key, xs in measured.items()}
        lines.append(CostLine(machine=machine, runs=len(runs), values=values))
    return lines
