"""What a size comes to: parameters without memory, operations of a step, time of a forward pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from encoders.base import Encoder
from seqbench import randomness
from seqbench.build import encoder_of
from seqbench.composition.schema import Node
from seqbench.composition.sections import Budget
from seqbench.config import RunConfig
from seqbench.costs import cost
from seqbench.costs.operations import counting
from seqbench.meta import OnMeta
from seqbench.training.facts import device_of
from tasks.base import Task

WARM_UP = 3  # latency: passes before those that count
AGREE, MOST = 5, 25  # rounds that are to agree, and rounds at most
PASSES, SECONDS = 20, 0.06  # of a round, at most
STEADY = 0.05  # how near the rounds are to come to each other, relative


@dataclass(frozen=True, slots=True)
class Timed:
    """Milliseconds, and how unsure they are: how far the least of AGREE rounds lie apart, relative."""

    ms: float
    spread: float


def counted(budget: Budget, encoder: Encoder, task: Task) -> float:
    """Parameters, as `budget.count` says."""
    numbers = cost.parameters(encoder, task)
    if budget.count == "all":
        return numbers["parameters"]
    return numbers["parameters_encoder"] - (numbers["parameters_embedding"] if budget.count == "body" else 0)


def operations(encoder: Encoder, task: Task) -> float:
    """Operations of a training step, forward and backward with the head, on the training example of median length."""
    modes = [(module, module.training) for module in [*encoder.modules(), *task.modules()]]
    encoder.train()
    task.train()
    batch = task.collate("train", _median_row(task, "train"))
    device = next((p.device for p in [*encoder.parameters(), *task.parameters()]), torch.device("cpu"))
    with randomness.isolated(0), counting() as counter:
        task(encoder, batch.to(device)).loss.backward()
    for module, mode in modes:
        module.training = mode
        module.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def latency(encoder: Encoder, task: Task, device: torch.device) -> Timed:
    """Milliseconds of a forward pass, decoding included, on the validation example of median length.

    The least of many passes: whatever else the machine does only adds to it, so it moves less than a median. They come
    in rounds, of which AGREE must have found about the same least time: on a busy machine there are more of them, so
    that one in a lucky moment, or none in one, shows as `spread`.
    """
    encoder.to(device).eval()
    task.to(device).eval()
    batch = task.collate("valid", _median_row(task, "valid")).to(device)

    def once() -> float:
        start = time.perf_counter()
        task(encoder, batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return 1000 * (time.perf_counter() - start)

    with randomness.isolated(0), torch.no_grad():
        for _ in range(WARM_UP):
            once()
        return timed(once)


def timed(once: Callable[[], float]) -> Timed:
    """The least of what `once` gives, in rounds until AGREE of them come to it within STEADY, or MOST are done."""
    least: list[float] = []
    while True:
        begin, times = time.perf_counter(), [once()]
        while len(times) < PASSES and time.perf_counter() - begin < SECONDS:
            times.append(once())
        least = sorted([*least, min(times)])
        if len(least) >= AGREE:
            spread = (least[AGREE - 1] - least[0]) / least[0]
            if spread <= STEADY or len(least) == MOST:
                return Timed(least[0], spread)


def _median_row(task: Task, split: str) -> Any:
    lengths = task.lengths(split)
    return np.argsort(lengths, kind="stable")[len(lengths) // 2 :][:1].astype(np.int64)


def measure_of(config: RunConfig, task: Task) -> Callable[[Node], float]:
    """Of an encoder's node: what `budget.match` counts. Raises ConfigError, ValueError, ... for one that can't be."""
    budget, spec, allowed = config.budget, task.spec, config.allowed
    device = torch.device(device_of(config)) if budget.match == "latency" else torch.device("cpu")

    def measure(node: Node) -> float:
        if budget.match == "params":
            with OnMeta():
                encoder = encoder_of(node, allowed, spec)
                task.attach(encoder)
            return counted(budget, encoder, task)
        with randomness.isolated(0):
            encoder = encoder_of(node, allowed, spec)
            task.attach(encoder)
        return operations(encoder, task) if budget.match == "flops" else latency(encoder, task, device).ms

    return measure
