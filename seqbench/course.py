"""The course of a training: when it is evaluated, logged, saved and stopped; the one callback."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from seqbench import randomness
from seqbench.evaluation import Evaluator
from seqbench.feed import Feed
from seqbench.limits import Meter
from seqbench.loggers import Sink
from seqbench.module import Module
from seqbench.progress import Event, Watch
from seqbench.record import Point
from seqbench.resume import Checkpoints, State, weights
from tasks.base import Task

CHECK_EVERY = 20  # steps between looks at the losses on a device that would have to be waited for


class Diverged(Exception):
    """A loss that is not finite."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"the training loss is {loss} at step {step}")
        self.step = step


@dataclass
class Progress:
    """What a training has been so far: all of it that a checkpoint needs besides weights and random states."""

    step: int = 0  # optimizer steps done
    best_step: int | None = None
    best_value: float = math.nan
    waits: int = 0  # evaluations since the best one
    stopped: bool = False  # for want of gain
    resumed: int = 0  # how often it was taken up again
    train_seconds: float = 0.0  # in steps alone
    seconds: float = 0.0  # evaluation included
    seconds_before: float = 0.0  # of those, in processes before this one
    items: int = 0  # labels that the losses were means over
    curve: list[dict[str, Any]] = field(default_factory=list)  # Points

    def is_gain(self, value: float, best: Literal["max", "min"]) -> bool:
        """Whether a value is better than the best one; NaN is the worst, but better than none."""
        if self.best_step is None or math.isnan(self.best_value):
            return self.best_step is None or not math.isnan(value)
        return value > self.best_value if best == "max" else value < self.best_value


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The numbers of a course."""

    accumulate: int  # batches a step
    eval_every: int | None  # None: at the end alone
    eval_limit: int | None
    patience: int | None
    keep_best: bool
    log_every: int | None  # steps between two lines for the loggers; None: at evaluations alone


class Course(pl.Callback):
    """Evaluates, keeps the curve, stops early, saves, and notices a loss that is not finite.

    State is saved after an evaluation and nowhere else, when nothing is half done. Lightning's own loops begin anew in
    a resumed run, with a feed that is shorter; so nothing rests on how they restore themselves.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        meter: Meter,
        feed: Feed,
        evaluator: Callable[[pl.Trainer], Evaluator],
        checkpoints: Checkpoints,
        sinks: list[Sink],
        watch: Watch,
        progress: Progress,
        state: State | None,
        random_states: dict[str, Any],
    ) -> None:
        self.plan, self.meter, self.feed, self.evaluator = plan, meter, feed, evaluator
        self.checkpoints, self.sinks, self.watch = checkpoints, sinks, watch
        self.state, self.random_states = state, random_states
        self.progress = progress
        self.since: list[tuple[float, int]] = []  # (loss, items) of the batches since the last point of the curve
        self.logged = 0  # of those, how many the loggers have seen
        self.checked_step = self.progress.step

    # -- Lightning's hooks ---------------------------------------------------------------------------------------
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put optimizer, schedule and loss scaling back; the weights are already."""
        if self.state:
            trainer.optimizers[0].load_state_dict(self.state["optimizer"])
            trainer.lr_scheduler_configs[0].scheduler.load_state_dict(self.state["schedule"])
            trainer.precision_plugin.load_state_dict(self.state["precision"])
            self.state = None
        self.started = time.perf_counter()
        self.meter.start()
        self.first = True

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the random states: here, when Lightning has drawn all that it draws."""
        if self.first:
            randomness.put(self.random_states)
            self.first = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step; what is due is done."""
        assert isinstance(pl_module, Module)
        if (batch_idx + 1) % self.plan.accumulate:
            return
        self.progress.step += 1
        step = self.progress.step
        over = self.meter.share() >= 1
        due = over or (self.plan.eval_every is not None and step % self.plan.eval_every == 0)
        log = self.plan.log_every is not None and step % self.plan.log_every == 0
        if due or log or not _must_wait(pl_module.device) or step - self.checked_step >= CHECK_EVERY:
            self._collect(pl_module)
        self.watch(Event(kind="step", step=step, steps=step if over else self.meter.steps(step)))
        if due:
            self._evaluate(trainer, pl_module, over=over)
        elif log:
            self._log({"train/loss": self._mean(self.since[self.logged :]), "train/lr": self._lr(trainer)})
            self.logged = len(self.since)

    # -- parts ---------------------------------------------------------------------------------------------------
    def _collect(self, module: Module) -> None:
        """Bring the losses of the last batches here, all at once, and look at them."""
        if not module.losses:
            return
        values = torch.stack([loss.float() for loss, _ in module.losses]).tolist()
        items = [number for _, number in module.losses]
        module.losses.clear()
        for i, value in enumerate(values):
            if not math.isfinite(value):
                raise Diverged(self.checked_step + 1 + i // self.plan.accumulate, value)
        self.since += zip(values, items, strict=True)
        self.progress.items += sum(items)
        self.checked_step = self.progress.step

    def _evaluate(self, trainer: pl.Trainer, module: Module, *, over: bool) -> None:
        progress = self.progress
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        self.meter.stop()
        values = {"train/loss": self._mean(self.since), "train/lr": self._lr(trainer)}
        task: Task = module.task
        evaluation = self.evaluator(trainer).run("valid", limit=self.plan.eval_limit)
        scores = task.score("valid", evaluation.predictions, limit=self.plan.eval_limit)
        values |= {"valid/loss": evaluation.loss} | {f"valid/{name}": score.value for name, score in scores.items()}
        headline = scores[task.headline.name].value
        gain = progress.is_gain(headline, task.headline.best)
        if gain:
            progress.best_step, progress.best_value, progress.waits = progress.step, headline, 0
        else:
            progress.waits += 1
        progress.stopped = self.plan.patience is not None and progress.waits >= self.plan.patience
        progress.seconds = progress.seconds_before + time.perf_counter() - self.started
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        point = Point(step=progress.step, seconds=progress.seconds, tokens=self.feed.real, values=finite)
        progress.curve.append(point.model_dump())
        self._log(values)
        self.since, self.logged = [], 0
        if gain and self.plan.keep_best:
            self.checkpoints.save("best", {"step": progress.step, "weights": weights(module)})
        self.checkpoints.save("last", self._state(trainer, module))
        self.watch(Event(kind="valid", step=progress.step, steps=self.meter.steps(progress.step), values=finite))
        trainer.should_stop = progress.stopped or over
        self.meter.start()

    def _state(self, trainer: pl.Trainer, module: Module) -> State:
        return {
            "weights": weights(module),
            "optimizer": trainer.optimizers[0].state_dict(),
            "schedule": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
            "precision": trainer.precision_plugin.state_dict(),
            "random": randomness.take(),
            "feed": self.feed.state_dict(),
            "progress": dict(vars(self.progress)),
        }

    def _log(self, values: dict[str, float]) -> None:
        for sink in self.sinks:
            sink.log(self.progress.step, values)

    @staticmethod
    def _lr(trainer: pl.Trainer) -> float:
        return float(trainer.optimizers[0].param_groups[0]["lr"])

    @staticmethod
    def _mean(losses: list[tuple[float, int]]) -> float:
        items = sum(number for _, number in losses)
        return sum(loss * number for loss, number in losses) / items if items else math.nan


def _must_wait(device: torch.device) -> bool:
    """Whether to look at a number means to wait for the device."""
    return device.type != "cpu"
