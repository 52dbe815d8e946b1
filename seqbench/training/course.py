"""The course of a training: when it is evaluated, logged, saved and stopped; the one callback."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch

from seqbench import process, randomness
from seqbench.ranks.accord import Accord
from seqbench.ranks.group import ALONE, Ranks
from seqbench.ranks.sharding import Shards
from seqbench.record import Point
from seqbench.training.evaluation import Evaluation, Evaluator
from seqbench.training.feed import Feed
from seqbench.training.health import AgreedTimedOut, Deadline, Diverged, TimedOut, above, check_loss
from seqbench.training.ledger import Progress
from seqbench.training.limits import Meter
from seqbench.training.loggers import Sink
from seqbench.training.module import Module
from seqbench.training.progress import Event, Watch
from seqbench.training.resume import Checkpoints, State, weights
from tasks.base import Task

LEAVES = (process.Stopped, KeyboardInterrupt, SystemExit, TimedOut)  # what ends a training that can be gone on with
NOT_FINITE = "the weights are not finite after step {step}"
CHECK_EVERY = 20  # steps between looks at the losses on a device that would have to be waited for


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The numbers of a course."""

    accumulate: int  # batches a step
    eval_every: int | None  # None: at the end alone
    eval_limit: int | None
    patience: int | None
    keep_best: bool
    explosion: float | None  # times the first loss
    log_every: int | None  # steps between two lines for the loggers; None: at evaluations alone
    save_every: float | None  # seconds between checkpoints; None: at evaluations alone


class Course(pl.Callback):
    """Evaluates, keeps the curve, stops early, saves, and notices a loss that is not finite.

    State is saved between two steps and nowhere else: after an evaluation, now and then, and on leaving. A signal that
    comes within a step waits for its end; in an evaluation it doesn't, and the resumed run begins with that evaluation.
    Lightning's own loops begin anew in a resumed run, with a feed that is shorter; so nothing rests on how they
    restore themselves.

    Ranks go through the same course side by side and decide alike: by what they have exchanged (`accord`), and by the
    scores of the first one, which alone has `checkpoints` and writes.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        meter: Meter,
        feed: Feed,
        evaluator: Callable[[pl.Trainer], Evaluator],
        checkpoints: Checkpoints | None,
        sinks: list[Sink],
        watch: Watch,
        progress: Progress,
        state: State | None,
        random_states: dict[str, Any],
        deadline: Deadline,
        ranks: Ranks = ALONE,
        accord: Accord | None = None,
        shards: Shards | None = None,
        parts: Checkpoints | None = None,
    ) -> None:
        self.shards, self.parts = shards, parts  # of weights; where this rank saves its own
        self.deadline, self.ranks, self.accord = deadline, ranks, accord
        self.plan, self.meter, self.feed, self.evaluator = plan, meter, feed, evaluator
        self.checkpoints, self.sinks, self.watch = checkpoints, sinks, watch
        self.state = state  # until optimizer, schedule and loss scaling have taken theirs from it
        self.random_states: dict[str, Any] | None = random_states  # to go on with; None: those that are
        self.progress = progress
        self.checked_step = self.saved_step = self.progress.step
        self.feed_state = feed.state_dict()  # after the last whole step; the feed may be a batch ahead of it
        self.whole = True  # the module and all here are as after a whole step
        self.started: float | None = None
        self.saved_at = time.perf_counter()

    # -- Lightning's hooks ---------------------------------------------------------------------------------------
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put optimizer, schedule and loss scaling back; the weights are already."""
        process.reclaim()
        if self.state:
            if self.shards is not None:
                self.shards.load_optimizer(trainer.optimizers[0], self.state["optimizer"])
            else:
                trainer.optimizers[0].load_state_dict(self.state["optimizer"])
            trainer.lr_scheduler_configs[0].scheduler.load_state_dict(self.state["schedule"])
            trainer.precision_plugin.load_state_dict(self.state["precision"])
            self.state = None
        self._begin()
        self.meter.start()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin a step. Random states are set here, when Lightning has drawn all that it draws."""
        process.hold()
        self.whole = False
        if self.random_states:
            randomness.put(self.random_states)
            self.random_states = None

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
        if log and not due:
            loss = _mean(self.progress.log_sum, self.progress.log_items)
            self._log({"train/loss": loss, "train/lr": self._lr(trainer)})
        self.progress.pending = due
        self.feed_state = self.feed.state_dict()
        self.whole = True
        self._tell(Event(kind="step", step=step, steps=step if over else self.meter.steps(step)))
        process.release()
        if self.accord is not None and self.accord.stop is not None:
            process.hold(firmly=True)
            raise process.Agreed(self.accord.stop)
        if due:
            self.evaluate(trainer, pl_module, over=over)
        elif self._save_due():
            process.hold()
            self._save(trainer, pl_module)
            process.release()
        if not over:
            self._check_time()

    def _save_due(self) -> bool:
        if self.accord is not None:
            return self.accord.save
        return self.plan.save_every is not None and time.perf_counter() - self.saved_at >= self.plan.save_every

    def _check_time(self) -> None:
        """Raise TimedOut, on all ranks, where the limit was reached."""
        if self.accord is None:
            self.deadline.check()
        elif self.accord.late:
            raise AgreedTimedOut(str(self.deadline.error()) if self.ranks.first_one else "the time limit is over")

    def _tell(self, event: Event) -> None:
        """Tell who watches. With other ranks, who wants to stop this one stops all of them."""
        try:
            self.watch(event)
        except process.Stopped as error:
            if self.accord is None:
                raise
            process.note(str(error))

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save before the training is left, if that is between two steps; else the last checkpoint counts."""
        self.deadline.hear()
        leaves = LEAVES if self.accord is None else (process.Agreed, AgreedTimedOut)  # all ranks at once
        if isinstance(exception, leaves) and self.whole and self.progress.step > self.saved_step:
            assert isinstance(pl_module, Module)
            process.hold(firmly=True)
            self._save(trainer, pl_module)

    # -- parts ---------------------------------------------------------------------------------------------------
    def _collect(self, module: Module) -> None:
        """Bring the losses of the last batches here, all at once, and look at them."""
        if not module.losses:
            return
        values = torch.stack([loss.float() for loss, _ in module.losses]).tolist()
        items = [number for _, number in module.losses]
        module.losses.clear()
        parts = self.plan.accumulate * self.ranks.size
        if self.ranks.several:  # of each part of a batch in turn, as one process would have had them
            told = self.ranks.everywhere((values, items))
            values, items = (_in_turn(lists) for lists in zip(*told, strict=True))
        for i in range(0, len(values), parts):
            self._judge(self.checked_step + 1 + i // parts, values[i : i + parts], items[i : i + parts])
        for value, number in zip(values, items, strict=True):
            self.progress.count(value, number)
        self.checked_step = self.progress.step

    def _judge(self, step: int, losses: list[float], items: list[int]) -> None:
        """Raise Diverged for a step's losses that are not finite, or that explode."""
        for loss, number in zip(losses, items, strict=True):
            if number or not self.ranks.several:
                check_loss(step, loss)
        progress = self.progress
        loss = _mean(sum(loss * number for loss, number in zip(losses, items, strict=True)), sum(items))
        if progress.first_loss is None:
            progress.first_loss = loss
        factor = self.plan.explosion
        progress.above = above(step, loss, first=progress.first_loss, factor=factor, already=progress.above)

    def evaluate(self, trainer: pl.Trainer, module: Module, *, over: bool) -> None:
        """Score the validation split, add a point to the curve, save, and see whether to go on (not if `over`)."""
        progress = self.progress
        self._check_weights(module)
        self._begin()
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        self._account()
        self.meter.since = None
        if self.random_states is None:
            self.random_states = randomness.take()  # whatever happens meanwhile
        values = {"train/loss": _mean(progress.curve_sum, progress.curve_items), "train/lr": self._lr(trainer)}
        task: Task = module.task
        if cut := self._cut:
            cut.assemble(module.device)
        evaluation = self.evaluator(trainer).run("valid", limit=self.plan.eval_limit)
        if cut:
            cut.put_away()
        scores = self.ranks.first(lambda: self._scores(task, evaluation))
        values |= {"valid/loss": evaluation.loss} | {f"valid/{name}": value for name, value in scores.items()}
        headline = scores[task.headline.name]
        gain = progress.is_gain(headline, task.headline.best)
        process.hold()
        self.whole = False
        if gain:
            progress.best_step, progress.best_value, progress.waits = progress.step, headline, 0
        else:
            progress.waits += 1
        progress.stopped = self.plan.patience is not None and progress.waits >= self.plan.patience
        self._account()
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        point = Point(step=progress.step, seconds=progress.seconds, tokens=self.feed.real, values=finite)
        progress.curve.append(point.model_dump())
        self._log(values)
        progress.curve_sum, progress.curve_items, progress.pending = 0.0, 0, False
        if gain and self.plan.keep_best:
            self._save_best(module)
        self._save(trainer, module)
        self.whole = True
        trainer.should_stop = progress.stopped or over
        self._tell(Event(kind="valid", step=progress.step, steps=self.meter.steps(progress.step), values=finite))
        self.meter.start()
        process.release()

    def _scores(self, task: Task, evaluation: Evaluation) -> dict[str, float]:
        scores = task.score("valid", evaluation.predictions, limit=self.plan.eval_limit)
        return {name: score.value for name, score in scores.items()}

    @property
    def _cut(self) -> Shards | None:
        """The shards, once there are some."""
        return self.shards if self.shards is not None and self.shards.cut else None

    def _check_weights(self, module: Module) -> None:
        """As check_weights, for shards on all ranks at once."""
        if self._cut is None:
            check_weights(module, self.progress.step)
        elif not all(row[0] for row in self.ranks.table([is_finite(module)])):
            raise Diverged(self.progress.step, NOT_FINITE.format(step=self.progress.step))

    def _save_best(self, module: Module) -> None:
        step = self.progress.step
        state = self._saved(f"best-{step}", lambda: {"weights": weights(module)}, lambda cut: cut.weights())
        if self.checkpoints is not None:
            self.checkpoints.save_best(step, {"step": step, **state})

    def _saved(
        self, name: str, whole: Callable[[], dict[str, Any]], part: Callable[[Shards], dict[str, Any]]
    ) -> dict[str, Any]:
        """What the first rank saves: the whole, or where each rank has saved its part of it."""
        if (cut := self._cut) is None:
            return whole() if self.ranks.first_one else {}
        assert self.parts is not None
        written = self.parts.save_part(name, self.ranks.rank, self.ranks.size, part(cut))
        return {"parts": self.ranks.gathered(written)}

    def _save(self, trainer: pl.Trainer, module: Module) -> None:
        self._collect(module)
        self._account()
        self._check_weights(module)
        self.progress.saved = self.progress.step
        state = self._state(trainer, module)
        if self.checkpoints is not None:
            self.checkpoints.save_last(state)
        self.saved_step, self.saved_at = self.progress.step, time.perf_counter()
        if self.accord is not None:
            self.accord.saved_at, self.accord.save = self.saved_at, False

    def _state(self, trainer: pl.Trainer, module: Module) -> State:
        optimizer, schedule, precision = (
            (self.state["optimizer"], self.state["schedule"], self.state["precision"])
            if self.state
            else (
                trainer.optimizers[0].state_dict(),
                trainer.lr_scheduler_configs[0].scheduler.state_dict(),
                trainer.precision_plugin.state_dict(),
            )
        )
        random, *others = self.ranks.gathered(self.random_states or randomness.take())
        saved = self._saved(
            f"at-{self.progress.step}",
            lambda: {"weights": weights(self.shards.whole if self.shards else module), "optimizer": optimizer},
            lambda cut: cut.state(trainer.optimizers[0]),
        )
        return {
            **saved,
            "schedule": schedule,
            "precision": precision,
            "random": random,
            "feed": self.feed_state,
            "progress": self.progress.state(),
            **({"others": others} if others else {}),
        }

    def _begin(self) -> None:
        if self.started is None:
            self.started = time.perf_counter()

    def _account(self) -> None:
        """Bring the clocks up to now."""
        if self.meter.since is not None:
            self.meter.stop()
            self.meter.start()
        if self.started is not None:
            self.progress.seconds = self.progress.seconds_before + time.perf_counter() - self.started

    def _log(self, values: dict[str, float]) -> None:
        for sink in self.sinks:
            sink.log(self.progress.step, values)
        self.progress.log_sum, self.progress.log_items = 0.0, 0

    def _lr(self, trainer: pl.Trainer) -> float:
        groups = self.state["optimizer"]["param_groups"] if self.state else trainer.optimizers[0].param_groups
        return float(groups[0]["lr"])


def _in_turn(lists: Iterable[list[Any]]) -> list[Any]:
    """The first of each list, then the second of each."""
    return [one for each in zip(*lists, strict=True) for one in each]


def _mean(total: float, items: int) -> float:
    return total / items if items else math.nan


def is_finite(module: Module) -> bool:
    """Whether all weights are, or of those that are cut this rank's part."""
    here = (getattr(weight, "to_local", lambda weight=weight: weight)() for weight in module.parameters())
    return all(bool(torch.isfinite(weight).all()) for weight in here)


def check_weights(module: Module, step: int) -> None:
    """Raise Diverged for weights that are not finite: what they are saved as would be no healthy checkpoint."""
    if not is_finite(module):
        raise Diverged(step, NOT_FINITE.format(step=step))


def _must_wait(device: torch.device) -> bool:
    """Whether to look at a number means to wait for the device."""
    return device.type != "cpu"
