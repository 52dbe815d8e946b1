"""What a run has spent and what its model costs, put together once it is trained and tested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from encoders.base import Encoder
from seqbench import randomness
from seqbench.config import RunConfig
from seqbench.costs import cost
from seqbench.training.fit import Fitted, parts_of_first_epoch
from seqbench.training.ledger import Progress
from tasks.loading import plan_batches


def on_training(config: RunConfig, encoder: Encoder, fitted: Fitted, progress: Progress) -> dict[str, Any]:
    """Fields of a record's cost: parameters, and what the training took."""
    with randomness.isolated(fitted.evaluator.seed):
        return _on_training(config, encoder, fitted, progress)


def _on_training(config: RunConfig, encoder: Encoder, fitted: Fitted, progress: Progress) -> dict[str, Any]:
    task, feed = fitted.evaluator.task, fitted.feed
    plan = parts_of_first_epoch(config, task.lengths("train"), feed.loader.share)
    return {
        **cost.parameters(encoder, task),
        "flops_train": cost.flops_training(fitted.evaluator, plan, feed.padded),
        "train_seconds": progress.train_seconds,
        "train_tokens": feed.real,
    }


def all_told(
    config: RunConfig,
    encoder: Encoder,
    fitted: Fitted,
    progress: Progress,
    *,
    examples_per_second: float,
    compilations: Mapping[str, int],
    devices: int,
) -> dict[str, Any]:
    """Those fields, and what the model costs where it is used.

    `examples_per_second` are those of the test; `compilations` were counted before the run, {} where it compiles
    nothing: of this process alone, with several ranks of the first.
    """
    evaluator, feed = fitted.evaluator, fitted.feed
    test = plan_batches(evaluator.task.lengths("test"), evaluator.batching, seed=0, epoch=0, shuffle=False)
    with randomness.isolated(evaluator.seed):
        latency = cost.latency(evaluator)
        generation = cost.generation(evaluator)
        forward = cost.flops_forward(evaluator, test[len(test) // 2])
        training = _on_training(config, encoder, fitted, progress)
    trained = progress.train_seconds > 0
    now = cost.compilations() if compilations else {}
    return {
        **training,
        "flops_forward": forward,
        "data_wait_share": min(1.0, feed.waited / progress.train_seconds) if trained else None,
        "padding_share": 1 - feed.real / feed.padded if feed.padded else None,
        "train_items": progress.items,
        "train_tokens_per_second": feed.real / progress.train_seconds if trained else None,
        "eval_examples_per_second": examples_per_second,
        "latency": latency,
        "generation": generation,
        **{name: value - compilations[name] for name, value in now.items()},
        **cost.utilisation(
            training["flops_train"],
            progress.train_seconds,
            device=evaluator.device,
            devices=devices,
            precision=config.trainer.precision,
            tf32=config.trainer.tf32,
        ),
    }
