"""What a size comes to: parameters without memory, operations of a step, time of a forward pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from encoders.base import Encoder
from seqbench import cost, randomness
from seqbench.build import Uninitialised, encoder_of
from seqbench.config import Budget, RunConfig
from seqbench.facts import device_of
from seqbench.operations import counting
from seqbench.schema import Node
from tasks.base import Task

WARM_UP, PASSES, MOST, SECONDS = 3, 5, 100, 0.3  # latency: passes before, fewest and most that count, when to stop


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


def latency(encoder: Encoder, task: Task, device: torch.device) -> float:
    """Milliseconds of a forward pass, decoding included, on the validation example of median length.

    The least of some passes: whatever else the machine does only adds to it, so it moves less than a median.
    """
    encoder.to(device).eval()
    task.to(device).eval()
    batch = task.collate("valid", _median_row(task, "valid")).to(device)
    times: list[float] = []
    begin = time.perf_counter()
    with randomness.isolated(0), torch.no_grad():
        while len(times) < WARM_UP + PASSES or (len(times) < MOST and time.perf_counter() - begin < SECONDS):
            start = time.perf_counter()
            task(encoder, batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(1000 * (time.perf_counter() - start))
    return min(times[WARM_UP:])


def _median_row(task: Task, split: str) -> Any:
    lengths = task.lengths(split)
    return np.argsort(lengths, kind="stable")[len(lengths) // 2 :][:1].astype(np.int64)


def measure_of(config: RunConfig, task: Task) -> Callable[[Node], float]:
    """Of an encoder's node: what `budget.match` counts. Raises ConfigError, ValueError, ... for one that can't be."""
    budget, spec, allowed = config.budget, task.spec, config.allowed
    device = torch.device(device_of(config)) if budget.match == "latency" else torch.device("cpu")

    def measure(node: Node) -> float:
        if budget.match == "params":
            with torch.device("meta"), Uninitialised():
                encoder = encoder_of(node, allowed, spec)
                task.attach(encoder)
            return counted(budget, encoder, task)
        with randomness.isolated(0):
            encoder = encoder_of(node, allowed, spec)
            task.attach(encoder)
        return operations(encoder, task) if budget.match == "flops" else latency(encoder, task, device)

    return measure
