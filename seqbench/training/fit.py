"""One training: Lightning's Trainer around the one module, from the beginning or from the last checkpoint."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.profilers import PassThroughProfiler
from torch.optim import Optimizer

from encoders.base import Encoder
from seqbench import process, randomness
from seqbench.build import build
from seqbench.config import RunConfig
from seqbench.costs import cost
from seqbench.errors import ConfigError
from seqbench.ranks.accord import Accord
from seqbench.ranks.group import ALONE, Ranks
from seqbench.ranks.placement import placement
from seqbench.ranks.sharding import Shards, replica, separate_layers
from seqbench.training import transfer
from seqbench.training.course import Course, Plan
from seqbench.training.evaluation import Evaluator
from seqbench.training.facts import strategy_of
from seqbench.training.feed import Feed
from seqbench.training.health import Deadline
from seqbench.training.ledger import Progress
from seqbench.training.limits import Meter
from seqbench.training.loggers import Sink, log_every
from seqbench.training.module import Module
from seqbench.training.progress import Event, Watch
from seqbench.training.resume import Checkpoints, State, weights
from tasks.base import DataError, Task
from tasks.loading import Batching, Loader, Share, plan_batches


class Unprofiled(PassThroughProfiler):
    """Times nothing; Lightning's own such one makes a generator for each of some 30 hooks of a step."""

    nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]
        """A context that does nothing."""
        return self.nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """A trained module, and how to evaluate it."""

    module: Module
    evaluator: Evaluator
    feed: Feed


def batching_of(config: RunConfig) -> Batching:
    """How a step's batch is made, the same for any number of parts and ranks that it is cut into."""
    if config.budget.batch_size is not None:
        return Batching(rows=config.budget.batch_size)
    return Batching(tokens=config.budget.batch_tokens)


def parts_of_first_epoch(config: RunConfig, lengths: NDArray[np.int64], share: Share) -> list[NDArray[np.int64]]:
    """Rows of each part that a rank trains on in the first epoch."""
    plan = plan_batches(lengths, batching_of(config), seed=config.seed, epoch=0, shuffle=True)
    return [part for batch in plan for part in share.cut(batch)]


def fit(
    config: RunConfig,
    task: Task,
    encoder: Encoder,
    *,
    checkpoints: Checkpoints | None,
    state: State | None,
    progress: Progress,
    sinks: list[Sink],
    watch: Watch,
    deadline: Deadline,
    ranks: Ranks = ALONE,
    done: bool = False,
) -> Fitted:
    """Train until the budget is spent or patience ends, and return the module with the weights to be tested.

    With `done` the encoder and the task have these weights, and no step is taken.

    `state` is the last checkpoint, if there is one; `progress` is filled with what it says and goes on from there.
    Raises health.Diverged for a loss that is not finite or explodes, health.TimedOut where `deadline` is reached.

    Of several ranks each calls this; they meet here. Only the first one has `checkpoints`, a `state`, `sinks` and a
    deadline, and raises TimedOut or process.Agreed for all.
    """
    budget = config.budget
    share = Share(parts=config.trainer.accumulate, rank=ranks.rank, ranks=ranks.size)
    loader = task.loader(
        "train",
        batching=batching_of(config),
        seed=config.seed,
        shuffle=True,
        workers=config.trainer.workers,
        share=share,
    )
    if not len(loader):
        raise DataError("task.data: the train split gives no batch")
    feed = Feed(loader, 0, packed=encoder.packed, shared=ranks.several)
    meter = Meter(
        budget=budget,
        accumulate=config.trainer.accumulate,
        feed=feed,
        progress=progress,
        step_tokens=float(loader.lengths.sum()) / len(loader) * config.trainer.accumulate,
    )
    accord = None
    if ranks.several:
        check_cut(encoder, task, ranks.size)
        accord = Accord(ranks=ranks, feed=feed, meter=meter, deadline=deadline, save_every=config.trainer.save_every)
    module = Module(
        encoder=encoder,
        task=task,
        train=config.protocol.train,
        optimizer=partial(_optimizer, config),
        factor=partial(meter.factor, schedule=config.schedule),
        accumulate=config.trainer.accumulate,
        compiled=config.trainer.compile,
        exchange=accord.exchange if accord else None,
        weighs=lambda: feed.weighs,
    )
    ranks.join()
    state = ranks.first(lambda: state)
    if config.pretrain is not None and ranks.several:  # which the first rank alone has taken over
        module.load_state_dict(ranks.first(lambda: weights(module)))
    if budget.flops is not None:
        meter.per_position = ranks.first(lambda: _operations(config, module, loader))
    random_states = _random_states(config.seed, ranks.rank, state)
    if state:
        module.load_state_dict(state["weights"])
        progress.take_up(state["progress"])
        feed.load_state_dict(state["feed"])
        meter.agreed = progress.train_seconds if ranks.several else None
    shards, parts = None, None
    if ranks.several and strategy_of(config) == "fsdp":
        shards = Shards(module, replica(module, task))
        folder = ranks.first(lambda: str(checkpoints.folder) if checkpoints else "")
        parts = Checkpoints(Path(folder))
    trained = shards.trained if shards else module
    course = Course(
        shards=shards,
        parts=parts,
        plan=Plan(
            accumulate=config.trainer.accumulate,
            eval_every=budget.eval_every,
            eval_limit=budget.eval_limit,
            patience=budget.patience,
            keep_best=budget.select == "best",
            explosion=config.trainer.explosion,
            log_every=log_every(config.logger.model_dump(exclude_none=True)),
            save_every=config.trainer.save_every,
        ),
        meter=meter,
        feed=feed,
        evaluator=lambda trainer: _evaluator(config, module, trainer, ranks),
        checkpoints=checkpoints,
        sinks=sinks,
        watch=watch,
        progress=progress,
        state=state,
        random_states=random_states,
        deadline=deadline,
        ranks=ranks,
        accord=accord,
    )
    watch(Event(kind="start", step=progress.step, steps=meter.steps(progress.step)))
    with _quiet(), process.deferred(until_agreed=ranks.several):
        layers = partial(_layers, first=parts_of_first_epoch(config, loader.lengths, share)[0])
        trainer = _trainer(config, course, ranks, layers)
        feed.carrier = transfer.carrier(trainer.strategy.root_device)
        if progress.pending:
            module.to(trainer.strategy.root_device)
            course.evaluate(trainer, trained, over=meter.share() >= 1)
        feed.count = 0 if progress.stopped or done else meter.batches_left()
        if feed.count:
            trainer.fit(trained, train_dataloaders=feed)
    module.to(trainer.strategy.root_device)
    if budget.select == "best" and not done:
        assert progress.best_step is not None
        best = progress.best_step
        module.load_state_dict(ranks.first(lambda: _best(checkpoints, best)))
    return Fitted(module=module, evaluator=_evaluator(config, module, trainer, ranks), feed=feed)


def _best(checkpoints: Checkpoints | None, step: int) -> dict[str, torch.Tensor]:
    assert checkpoints is not None
    return checkpoints.load_best(step)


def check_cut(encoder: Encoder, task: Task, ranks: int) -> None:
    """Raise ConfigError for a model whose step is more than the sum of its rows', and so can't be cut among ranks."""
    for module in (*encoder.modules(), *task.modules()):
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f"trainer.devices: {ranks} ranks would each normalise by their own part of a batch: "
                f"{type(encoder).__name__} has {type(module).__name__}; use one device (trainer=cpu, trainer=gpu)"
            )


def _layers(module: torch.nn.Module, first: NDArray[np.int64]) -> list[torch.nn.Module]:
    """Layers that FSDP may cut one by one, found with a row."""
    assert isinstance(module, Module)
    device = next(module.parameters()).device
    return separate_layers(module, module.task.collate("train", first[:1]).to(device))


def _trainer(
    config: RunConfig, course: Course, ranks: Ranks, layers: Callable[[torch.nn.Module], list[torch.nn.Module]]
) -> pl.Trainer:
    settings = config.trainer
    return pl.Trainer(
        accelerator=settings.accelerator,
        **placement(config, ranks, layers),
        precision=settings.precision,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.clip,
        max_epochs=1,  # of the feed, which is as long as the training
        min_epochs=0,  # patience may end it
        callbacks=[course],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        benchmark=False,
        profiler=Unprofiled(),
    )


def _evaluator(config: RunConfig, module: Module, trainer: pl.Trainer, ranks: Ranks) -> Evaluator:
    return Evaluator(
        ranks=ranks,
        task=module.task,
        encoder=module.encoder,
        batching=Batching(tokens=config.budget.eval_batch_tokens),
        device=trainer.strategy.root_device,
        precision=trainer.precision_plugin.forward_context,
        workers=config.trainer.workers,
        seed=randomness.derive(config.seed, "evaluation"),
    )


def _optimizer(config: RunConfig, groups: list[dict[str, Any]]) -> Optimizer:
    """On CUDA by one fused kernel, where the optimizer has it."""
    optimizer: Optimizer = build(config.optimizer, "optimizer", config.allowed, params=groups)
    on_cuda = all(weight.is_cuda for group in groups for weight in group["params"])
    if on_cuda and "fused" in optimizer.defaults and optimizer.defaults.get("foreach") is None:
        settings = {key: value for key, value in config.optimizer.items() if key != "_target_"}
        make: Any = type(optimizer)
        fused: Optimizer = make(groups, **settings, fused=True)
        return fused
    return optimizer


def _operations(config: RunConfig, module: Module, loader: Loader) -> float:
    """Operations of a training step for each position, padding included. Leaves no trace, is the same when resumed."""
    before = weights(module)  # buffers among them, which a forward pass may change
    evaluator = Evaluator(
        task=module.task,
        encoder=module.encoder,
        batching=loader.batching,
        device=torch.device("cpu"),
        precision=nullcontext,
        workers=0,
        seed=randomness.derive(config.seed, "evaluation"),
    )
    first = parts_of_first_epoch(config, loader.lengths, loader.share)
    with randomness.isolated(evaluator.seed):
        counted = cost.flops_training(evaluator, first, 1)
    module.load_state_dict(before)
    return counted


def _random_states(seed: int, rank: int, state: State | None) -> dict[str, Any]:
    """The states that a training begins with, or goes on with: each rank has its own, so dropout differs between parts.

    A rank that a checkpoint of fewer ranks does not know begins with numbers of its own.
    """
    saved = [state["random"], *state.get("others", ())] if state else []
    if rank < len(saved):
        found: dict[str, Any] = saved[rank]
        return found
    since = f" from step {state['progress']['step']}" if state else ""
    randomness.seed_all(randomness.derive(seed, f"training{f' of rank {rank}' if rank else ''}{since}"))
    return randomness.take()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's tips and start-up lines, and without warnings about what is meant to be so."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # a frozen encoder, or an own module that is in evaluation mode on purpose
        warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
        # Lightning#21326: its own use of torch's pytree
        warnings.filterwarnings("ignore", message=r".*LeafSpec.*", category=FutureWarning)
        # a GPU that a config leaves aside on purpose
        warnings.filterwarnings("ignore", message=r"GPU available but not used")
        # under SLURM without srun: a run is one process by itself
        warnings.filterwarnings("ignore", message=r"The `srun` command is available")
        # torch's own, when torch.compile is first used
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.script.* is deprecated", category=DeprecationWarning)
        # gloo has no deterministic variant to choose, nor another one
        warnings.filterwarnings("ignore", message=r".*gloo.*", category=UserWarning)
        yield
