"""Training steps of the families at 110 to 150 million parameters in bf16: padded and padding-free, compiled or not.

Lengths are log-normal, cut at the greatest; batches are those of a run (buckets of length, a budget of positions). All
ways work on the same batches with the same weights, by the module of a run (seqbench/training/module.py), in turns.
Tokens are real ones. MFU: operations on real positions, as counted in the eager padding-free step, by the device's
dense peak; so what a way spends on padding lowers it. Without CUDA a row says that it is skipped; quick: on the CPU.
"""
# B batch, L positions, N real positions, D width, V vocabulary

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.base import Encoder, InputSpec, Sequences
from seqbench import process
from seqbench.benchmark.base import Row, Settings, alone, compared
from seqbench.build import build
from seqbench.composition.nodes import compose_node
from seqbench.costs import cost
from seqbench.costs.operations import counting
from seqbench.costs.peaks import peak
from seqbench.training.module import Module
from tasks.base import Batch, Output
from tasks.loading import Batching, plan_batches

FAMILIES = {"encoder_only": 12, "decoder_only": 12, "encoder_decoder": 6}  # layers, of each stack
LENGTHS = (512, 4096)
SPREAD = 0.8  # of the logarithm of a length; its median is a quarter of the greatest
POSITIONS = 32768  # a step, with padding
LIMIT = 540.0  # seconds, after which no further case is begun
GOAL = 50.0  # % MFU, compiled and padding-free at 512
STEPS, WARM = 8, 2  # steps of a way before it is another's turn; rounds before
Way = tuple[bool, bool]  # padding-free, compiled


@dataclass(frozen=True, kw_only=True, slots=True)
class Text(Batch):
    """Ids, whose own prediction is the work."""

    source: Sequences


class Head(nn.Module):
    """Logits of all real positions by the table of ids, and their mean cross-entropy."""

    def forward(self, encoder: Encoder, batch: Text) -> Output:
        """Of a batch; N items."""
        mask_BL, table_VD = batch.source.mask, encoder.token_embedding
        assert isinstance(table_VD, Tensor)
        logits_NV = F.linear(encoder(batch.source).values[mask_BL], table_VD)
        return Output(loss=F.cross_entropy(logits_NV, batch.source.values[mask_BL]), items=len(logits_NV))


def measure(settings: Settings) -> list[Row]:
    """Real tokens a second, and MFU; peak memory is in the note."""
    if not settings.quick and not torch.cuda.is_available():
        return [alone("skipped: torch finds no CUDA device here", [0.0], unit="cases", goal=None, better="higher")]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    begin, rows, left = time.perf_counter(), [], []
    for length in (24,) if settings.quick else LENGTHS:
        for family in FAMILIES:
            if time.perf_counter() - begin > LIMIT:
                left.append(f"{family} {length}")
                continue
            with process.settings(threads=None, deterministic=False, tf32=True):
                rows += Case(settings, family, length, device).rows()
    if left:
        what = f"left out after {LIMIT:g} s: {', '.join(left)}"
        rows.append(alone(what, [float(len(left))], unit="cases", goal=None, better="lower"))
    return rows


class Case:
    """A family at a length, with its batches on the device."""

    def __init__(self, settings: Settings, family: str, length: int, device: torch.device) -> None:
        self.settings, self.family, self.length, self.device = settings, family, length, device
        quick = settings.quick
        vocabulary = 50 if quick else 32768
        sizes = (
            {"dim": 16, "depth": 1, "heads": 2, "hidden": 32}
            if quick
            else {"dim": 768, "depth": FAMILIES[family], "heads": 12, "hidden": 3072}
        )
        spec = InputSpec(max_length=length, vocab_size=vocabulary, target_length=length)
        torch.manual_seed(settings.seed)
        node = compose_node("encoder", family, changes={})
        encoder = build({**node, **sizes, "dropout": 0.0}, "encoder", ["encoders"], spec=spec)  # dropout: no flash
        self.number = sum(p.numel() for p in encoder.parameters())
        self.batches = batches_of(
            length, vocabulary, 96 if quick else POSITIONS, count=2 if quick else STEPS, seed=settings.seed
        )
        self.batches = [batch.to(device) for batch in self.batches]
        self.real = sum(int(batch.source.mask.sum()) for batch in self.batches)
        self.padding = 1 - self.real / sum(batch.source.mask.numel() for batch in self.batches)
        head: Any = Head()
        self.module = Module(
            encoder=encoder, task=head, train="all", optimizer=torch.optim.AdamW, factor=lambda step: 1.0, accumulate=1
        ).to(device)
        on_cuda = device.type == "cuda"
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-5, fused=on_cuda)
        compiled = (False, True) if on_cuda else (False,)  # compiling is tested elsewhere, and takes long on a CPU
        self.ways: list[Way] = [(packed, program) for program in compiled for packed in (False, True)]
        self.memory: dict[Way, float] = {}

    def steps(self, way: Way) -> float:
        """Seconds of a step on each batch."""
        self.module.encoder.packed, self.module.compiled = way[0], "default" if way[1] else None
        before = cost.reset_peak_memory(self.device)
        self._wait()
        start = self.settings.now()
        for batch in self.batches:
            self._loss(batch).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.module.losses.clear()
        self._wait()
        seconds = self.settings.now() - start
        self.memory[way] = cost.peak_memory_mib(self.device, before)
        return seconds

    def operations(self) -> float:
        """Of a step on each batch, forward and backward, padding left out."""
        self.module.encoder.packed, self.module.compiled = True, None
        with counting() as counter:
            for batch in self.batches:
                self._loss(batch).backward()
        self.optimizer.zero_grad()
        return float(counter.get_total_flops())

    def rows(self) -> list[Row]:
        """Of all ways, each measured as often."""
        work = self.operations()
        for _ in range(WARM):
            for way in self.ways:
                self.steps(way)
        times: dict[Way, list[float]] = {way: [] for way in self.ways}
        for i in range(self.settings.pairs(5)):
            for way in self.ways if i % 2 else reversed(self.ways):
                times[way].append(self.steps(way))
        speed = {way: [self.real / seconds for seconds in found] for way, found in times.items()}
        name, found = f"{self.family} {self.length}", []
        for program in sorted({program for _, program in self.ways}):
            ours, theirs = (True, program), (False, program)
            memory = " and ".join(f"{self.memory[way]:,.0f}" for way in (ours, theirs))
            note = f"{self.number / 1e6:.1f} M, {self.padding:.0%} padding in the other; peak {memory} MiB"
            title = f"{name}, {'compiled' if program else 'eager'}: padding-free against padded"
            found.append(_row(title, speed[ours], speed[theirs], note))
        for packed in (False, True) if (True, True) in self.ways else ():
            title = f"{name}, {'padding-free' if packed else 'padded'}: compiled against eager"
            found.append(_row(title, speed[packed, True], speed[packed, False], ""))
        return found + self._utilisation(name, work, times)

    def _utilisation(self, name: str, work: float, times: dict[Way, list[float]]) -> list[Row]:
        if self.device.type != "cuda":
            return []
        device = torch.cuda.get_device_name(self.device)
        dense = peak(device, "bf16-mixed", tf32=True)
        if dense is None:
            return []
        rows = []
        for (packed, program), found in times.items():
            title = f"{name}, {'padding-free' if packed else 'padded'}, {'compiled' if program else 'eager'}: MFU"
            goal = GOAL if packed and program and self.length == LENGTHS[0] else None
            shares = [100 * work / seconds / dense for seconds in found]
            rows.append(alone(title, shares, unit="%", goal=goal, better="higher", note=device))
        return rows

    def _loss(self, batch: Text) -> Any:
        with torch.autocast(self.device.type, torch.bfloat16):
            return self.module.training_step(batch)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _row(title: str, ours: Sequence[float], theirs: Sequence[float], note: str) -> Row:
    pairs = list(zip(ours, theirs, strict=True))
    return compared(title, pairs, unit="tokens/s", goal=None, better="higher", note=note)


def batches_of(length: int, vocabulary: int, positions: int, *, count: int, seed: int) -> list[Text]:
    """The first `count` batches of an epoch, as a run cuts them, of rows of drawn lengths and ids."""
    generator = np.random.default_rng(seed)
    rows = 64 * count * max(1, positions // length)
    lengths = np.clip(generator.lognormal(np.log(length / 4), SPREAD, rows).astype(np.int64), 1, length)
    found = []
    plan = plan_batches(lengths, Batching(tokens=positions), seed=seed, epoch=0, shuffle=True)
    for numbers in plan[:count]:
        own = torch.from_numpy(lengths[numbers])
        mask_BL = torch.arange(int(own.max())) < own[:, None]
        ids_BL = torch.from_numpy(generator.integers(1, vocabulary, mask_BL.shape)) * mask_BL
        found.append(Text(index=torch.from_numpy(numbers), source=Sequences(values=ids_BL, mask=mask_BL)))
    return found
