"""A training step through the harness (feed, Lightning, course, CSV) against a hand-written loop of the same step."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from encoders.base import Encoder
from seqbench import process, randomness
from seqbench.benchmark.base import Row, Settings, compared
from seqbench.build import build, build_encoder, build_task
from seqbench.config import RunConfig
from seqbench.studies.study import plan_sweep
from seqbench.training.fit import batching_of, fit
from seqbench.training.health import Deadline
from seqbench.training.ledger import Progress
from seqbench.training.loggers import About, open_sinks
from seqbench.training.optimizers import parameter_groups
from seqbench.training.progress import Event
from seqbench.training.resume import Checkpoints
from seqbench.training.schedules import factor
from tasks.base import Task
from tasks.loading import plan_batches

STEPS = 10  # of a side before it is the other's turn
SIZES = {  # name -> encoder, rows a step, pairs, goal
    "0.1 M": ("encoder.dim=64 encoder.depth=2 encoder.heads=2 encoder.hidden=256", 32, 40, 1.10),
    "1 M": ("encoder.dim=144 encoder.depth=4 encoder.heads=4 encoder.hidden=576", 32, 20, 1.02),
    "10 M": ("encoder.dim=384 encoder.depth=6 encoder.heads=6 encoder.hidden=1536", 16, 6, 1.02),
}


def measure(settings: Settings) -> list[Row]:
    """Milliseconds a step: batch, forward, backward, clipping, optimizer, schedule; with the harness, all it does."""
    sizes = {"0.1 M": SIZES["0.1 M"]} if settings.quick else SIZES
    return [_measure(settings, name, *values) for name, values in sizes.items()]


def _measure(settings: Settings, name: str, encoder: str, rows: int, usual: int, goal: float) -> Row:
    pairs = settings.pairs(usual)
    config = _config(settings, encoder, rows, steps=(pairs + 2) * STEPS)
    task = build_task(config)
    task.setup()
    randomness.seed_all(settings.seed)
    made = build_encoder(config, task.spec)
    task.attach(made)
    loop = Loop(config, *copy.deepcopy((made, task)))
    turns = Turns(settings, loop, warmup=2)
    with tempfile.TemporaryDirectory() as folder:
        about = About(
            id="benchmark",
            folder=Path(folder),
            label="",
            encoder=config.names.encoder,
            task=config.names.task,
            study=None,
            seed=config.seed,
            config={},
            metrics=[metric.name for metric in task.metrics],
            start_step=0,
        )
        with (
            process.signals(),
            process.settings(threads=None, deterministic=config.deterministic),
        ):
            fitted = fit(
                config,
                task,
                made,
                checkpoints=Checkpoints(Path(folder) / "checkpoints"),
                state=None,
                progress=Progress(),
                sinks=open_sinks(config.logger.model_dump(exclude_none=True), about),
                watch=turns,
                deadline=Deadline(None),
            )
    for ours, theirs in zip(fitted.module.parameters(), loop.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, msg="the two have not made the same training")
    number = sum(p.numel() for p in loop.model.parameters())
    return compared(
        f"{name} parameters", turns.pairs, unit="ms", goal=goal, better="lower", note=f"{number:,}, {rows} rows a step"
    )


def _config(settings: Settings, encoder: str, rows: int, *, steps: int) -> RunConfig:
    overrides = [
        *("encoder=encoder_only", *encoder.split(), "encoder.dropout=0.0", f"seed={settings.seed}"),
        *("task=listops", f"task.data.train={max(200, rows * 20)}", "task.data.valid=20", "task.data.test=20"),
        *(f"budget.steps={steps}", f"budget.batch_size={rows}", "budget.eval_every=null", "budget.select=last"),
    ]
    (cell,) = plan_sweep(overrides).cells
    return cell.config


class Turns:
    """Hears of each step of the harness; after STEPS of them the hand-written loop makes as many."""

    def __init__(self, settings: Settings, loop: Loop, *, warmup: int) -> None:
        self.settings, self.loop, self.warmup = settings, loop, warmup
        self.since = 0.0
        self.pairs: list[tuple[float, float]] = []  # milliseconds a step: ours, the loop's

    def __call__(self, event: Event) -> None:
        """Event "start" begins the clock; it stands while the loop works."""
        if event.kind not in ("start", "step") or event.step % STEPS:
            return
        if event.step:
            ours = self.settings.now() - self.since
            theirs = self.settings.seconds(lambda: self.loop.run(STEPS))
            if event.step > self.warmup * STEPS:
                self.pairs.append((1000 * ours / STEPS, 1000 * theirs / STEPS))
        self.since = self.settings.now()


class Loop:
    """What one writes by hand: no counts, no logs, no checks, nothing that could be gone on with."""

    def __init__(self, config: RunConfig, encoder: Encoder, task: Task) -> None:
        self.encoder, self.task = encoder, task
        self.model = nn.ModuleDict({"encoder": encoder, "task": task})
        self.optimizer: torch.optim.Optimizer = build(
            config.optimizer, "optimizer", config.allowed, params=parameter_groups(self.model)
        )
        steps, shape = config.budget.steps or 0, config.schedule.model_dump()
        self.schedule = LambdaLR(self.optimizer, lambda done: factor(done, steps=steps, **shape))
        self.clip = config.trainer.clip
        self.batches = self._batches(config)
        self.model.train()

    def run(self, steps: int) -> None:
        """So many steps."""
        deterministic = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(False)
        for _ in range(steps):
            batch = next(self.batches)
            loss = self.task(self.encoder, batch).loss
            self.optimizer.zero_grad()
            loss.backward()
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()
            self.schedule.step()
        torch.use_deterministic_algorithms(deterministic)

    def _batches(self, config: RunConfig) -> Iterator[Any]:
        lengths, batching = self.task.lengths("train"), batching_of(config)
        epoch = 0
        while True:
            for rows in plan_batches(lengths, batching, seed=config.seed, epoch=epoch, shuffle=True):
                yield self.task.collate("train", rows)
            epoch += 1
