"""What this machine, or this version, cannot do: said before a run."""

from __future__ import annotations

import torch

from seqbench.build import is_trivial
from seqbench.config import RunConfig
from seqbench.errors import ConfigError
from seqbench.ranks.crew import size_of
from seqbench.ranks.place import placed
from seqbench.training.facts import device_of
from seqbench.training.loggers import check_account


def check_machine(config: RunConfig) -> None:
    """Raise ConfigError for what this machine, or this version, cannot do."""
    trainer, budget = config.trainer, config.budget
    if trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"trainer.accelerator: {trainer.accelerator}, but torch finds no CUDA device; use trainer=cpu"
        )
    if trainer.accelerator == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("trainer.accelerator: mps, but torch finds no such device here; use trainer=cpu")
    check_account(config.logger.model_dump(exclude_none=True))
    ranks = 1 if is_trivial(config) else size_of(config, placed())
    if ranks > 1 and trainer.accelerator == "mps":
        raise ConfigError(f"trainer.devices: {ranks}, but a machine has one mps device; use 1")
    if device_of(config) == "cuda" and placed() is None and ranks > torch.cuda.device_count():
        raise ConfigError(f"trainer.devices: {ranks}, but torch finds {torch.cuda.device_count()} here")
    if budget.batch_size is not None and ranks * trainer.accumulate > budget.batch_size:
        raise ConfigError(
            f"trainer.devices: {ranks} ranks x trainer.accumulate {trainer.accumulate} are more parts than a step has "
            f"rows, budget.batch_size {budget.batch_size}; use fewer"
        )
