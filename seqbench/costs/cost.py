"""What a run costs: parameters, counted operations, time, memory."""
# B batch, L positions

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils import _pytree as pytree

from encoders.base import Decoder, Encoder, Sequences
from seqbench.costs.operations import counting
from seqbench.costs.peaks import peak
from seqbench.record import Generation, Latency
from seqbench.training.evaluation import Evaluator
from seqbench.training.feed import count_positions
from tasks.base import Batch, Task

COUNTED = 2  # training batches whose operations are counted
WARM_UP, LEAST, MOST, SECONDS = 3, 20, 50, 0.5  # latency: passes before, fewest, most, and when it is enough
TOKENS = 16  # of generation: the first, and later ones, as far as a task's targets go
PATIENCE, FEWEST = 30.0, 3  # seconds after which fewer do than LEAST, without a 95th percentile, and how few


def parameters(encoder: Encoder, task: Task | None) -> dict[str, int]:
    """Numbers of parameters, by the names of `record.Cost`; a shared one counts once, and for the encoder.

    Without a task where it has no head.
    """
    own = {id(p): p for p in encoder.parameters()}
    every = own | {id(p): p for p in (task.parameters() if task is not None else ())}
    tables = {id(m.weight): m.weight for m in encoder.modules() if isinstance(m, nn.Embedding)}
    return {
        "parameters": _numel(every.values()),
        "parameters_encoder": _numel(own.values()),
        "parameters_embedding": _numel(tables.values()),
        "parameters_trained": _numel(p for p in every.values() if p.requires_grad),
    }


def _numel(values: Any) -> int:
    return sum(p.numel() for p in values)


def flops_training(evaluator: Evaluator, batches: Sequence[NDArray[np.int64]], positions: int) -> float:
    """Operations of a whole training on `positions` positions, padding that is worked on included.

    Counted in forward and backward of a few real batches, spread evenly over `batches`, and scaled by positions. The
    optimizer's work is left out. Gradients are cleared afterwards.
    """
    task, encoder = evaluator.task, evaluator.encoder
    total = counted = 0
    picks = sorted({int(i) for i in np.linspace(0, len(batches) - 1, COUNTED + 2)[1:-1]})
    modes = [(module, module.training) for module in [*encoder.modules(), *task.modules()]]
    buffers = [(buffer, buffer.clone()) for part in (encoder, task) for buffer in part.buffers()]  # as a batch norm has
    task.train()
    for parameter in encoder.parameters():
        if parameter.requires_grad:
            encoder.train()
            break
    for i in picks:
        batch = task.collate("train", batches[i])
        counted += count_positions(batch, packed=encoder.packed)[1]
        with counting() as counter:
            with evaluator.precision():
                loss = task(encoder, batch.to(evaluator.device)).loss
            loss.backward()
        total += counter.get_total_flops()
    for module, mode in modes:
        module.training = mode
        module.zero_grad(set_to_none=True)
    for buffer, before in buffers:
        buffer.copy_(before)
    return total / counted * positions


def compilations() -> dict[str, int]:
    """What torch.compile has compiled in this process so far, by the names of `record.Cost`."""
    from torch._dynamo.convert_frame import FRAME_COMPILE_COUNTER

    counts = list(FRAME_COMPILE_COUNTER.values())
    return {"compilations": sum(counts), "recompilations": sum(count - 1 for count in counts)}


def utilisation(
    operations: float, seconds: float, *, device: torch.device, devices: int, precision: str, tf32: bool
) -> dict[str, float | None]:
    """`peak_flops` and `mfu` of a training, as record.Cost has them; None where the device's peak isn't known."""
    cuda = device.type == "cuda"
    found = peak(torch.cuda.get_device_name(device), precision, tf32=tf32) if cuda else None
    if found is None:
        return {"peak_flops": None, "mfu": None}
    whole = found * devices
    return {"peak_flops": whole, "mfu": operations / seconds / whole if seconds > 0 else None}


def flops_forward(evaluator: Evaluator, rows: NDArray[np.int64]) -> float:
    """Operations of one test batch, whole, decoding included where the task decodes, per real position."""
    batch = evaluator.task.collate("test", rows)
    evaluator.encoder.eval()
    evaluator.task.eval()
    with torch.no_grad(), counting() as counter, evaluator.precision():
        evaluator.task(evaluator.encoder, batch.to(evaluator.device))
    return float(counter.get_total_flops() / max(1, count_positions(batch)[0]))


def latency(evaluator: Evaluator) -> Latency:
    """Time of one forward pass of the task on one test example, predictions included.

    The examples are drawn at random from the test split, the same ones for every encoder. LEAST passes at least: a
    95th percentile of fewer says nothing, and is None where PATIENCE allows no more.
    """
    task, device = evaluator.task, evaluator.device
    evaluator.encoder.eval()
    task.eval()
    number = len(task.lengths("test"))
    rows = np.random.default_rng(0).permutation(number)[:MOST].astype(np.int64)
    batches: list[Batch] = [task.collate("test", rows[i : i + 1]).to(device) for i in range(len(rows))]
    times: list[float] = []
    begin = time.perf_counter()
    with torch.no_grad():
        for i in range(WARM_UP + MOST):
            start = time.perf_counter()
            with evaluator.precision():
                task(evaluator.encoder, batches[i % len(batches)])
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            end = time.perf_counter()
            if i >= WARM_UP:
                times.append(1000 * (end - start))
                if end - begin > SECONDS and len(times) >= (LEAST if end - begin < PATIENCE else FEWEST):
                    break
    p50, p95 = np.percentile(times, [50, 95])
    enough = len(times) >= LEAST
    return Latency(batch_size=1, p50_ms=float(p50), p95_ms=float(p95) if enough else None, repeats=len(times))


def generation(evaluator: Evaluator) -> Generation | None:
    """Time to the first token and of each later one, and memory of the cache, on rows of the test split.

    The tokens are those of the targets (again from the first one where these are short), so that rows of all encoders
    are as long; at most TOKENS of them, and what `spec.target_length` allows. None for a task that generates nothing.
    """
    task, encoder, device = evaluator.task, evaluator.encoder, evaluator.device
    if not isinstance(encoder, Decoder) or not issubclass(task.needs, Decoder):
        return None
    encoder.eval()
    rows = np.random.default_rng(0).permutation(len(task.lengths("test")))[:MOST].astype(np.int64)
    first: list[float] = []
    later: list[float] = []
    positions, kept = [], []
    begin = time.perf_counter()
    with torch.no_grad(), evaluator.precision():
        for i in range(WARM_UP + LEAST):
            batch: Any = task.collate("test", rows[i % len(rows) : i % len(rows) + 1]).to(device)
            source, target = getattr(batch, "source", None), getattr(batch, "target", None)
            if not isinstance(source, Sequences) or not isinstance(target, Sequences):
                return None
            length = max(1, int(target.mask.sum()))
            start = _clock(device)
            states = encoder.prefill(source)
            size = sum(leaf.nbytes for leaf in pytree.tree_leaves(states.cache) if isinstance(leaf, torch.Tensor))
            for step in range(max(1, min(TOKENS, task.spec.target_length))):
                place = slice(step % length, step % length + 1)
                states = encoder.decode(Sequences(values=target.values[:, place], mask=target.mask[:, place]), states)
                now = _clock(device)
                if i >= WARM_UP:
                    (later if step else first).append(1000 * (now - start))
                start = now
            if i >= WARM_UP:
                positions.append(int(source.mask.sum()))
                kept.append(size / 2**20)
                if now - begin > PATIENCE and len(first) >= FEWEST:
                    break
    return Generation(
        source=float(np.mean(positions)),
        first_ms=float(np.median(first)),
        next_ms=float(np.median(later)) if later else None,
        cache_mib=float(np.mean(kept)),
        repeats=len(first),
    )


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def reset_peak_memory(device: torch.device) -> float:
    """Begin to measure, before a run's data and model are there. Returns what peak_memory_mib() is to subtract, in MiB.

    On a CPU that is the resident set as it is now: the interpreter and the libraries, which are no run's. What earlier
    runs of the process have freed is given back to the system first, so that a later one can't hide in it.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return 0.0
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # of glibc; elsewhere the system's own ways must do
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):  # else it is the peak since the process began, an upper bound
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak of the resident set
    return _resident_mib("VmRSS")


def peak_memory_mib(device: torch.device, before: float) -> float:
    """Most memory since the reset, in MiB: what torch held on CUDA; on a CPU the resident set above `before`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return max(0.0, _resident_mib("VmHWM") - before)


def _resident_mib(field: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process; without /proc the peak for both, so that growth is a lower bound."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
