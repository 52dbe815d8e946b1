"""Toy runs by several ranks, for tests: an encoder that goes wrong on one of them, and processes that make many runs.

`python -m tests.seqbench.toy_ranks FOLDER CHANGES...` makes a toy run for each JSON object of changes, as a rank of the
environment (RANK, WORLD_SIZE, ...), one after the other; the first one prints a JSON line for each.
"""
# B batch, L positions, D width

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Literal

import torch.distributed as dist

from encoders.base import InputSpec, Sequences, States
from tests.seqbench.toy import ToyEncoder

EVEN = {"encoder.dropout": 0.0, "trainer.accumulate": 1, "task.data.rows": 303, "budget.eval_limit": None}


class Uneven(ToyEncoder):
    """Goes wrong in the `at`-th forward pass in training of rank `on`, unless SEQBENCH_TOY_HEALTHY is set."""

    def __init__(
        self,
        *,
        dim: int,
        dropout: float,
        how: Literal["nan", "oom", "error", "kill", "terminate", "slow"],
        at: int,
        on: int,
        spec: InputSpec,
    ) -> None:
        super().__init__(dim=dim, dropout=dropout, spec=spec)
        self.how, self.at, self.on, self.passes = how, at, on, 0

    def forward(self, source: Sequences) -> States:
        """States (B, L, D), as ToyEncoder's until then."""
        states = super().forward(source)
        if not self.training or "SEQBENCH_TOY_HEALTHY" in os.environ:
            return states
        self.passes += 1
        rank = dist.get_rank() if dist.is_initialized() else 0
        if rank != self.on or self.passes < self.at:
            return states
        if self.how == "slow":
            time.sleep(0.05)
        elif self.passes == self.at:
            if self.how == "nan":
                return States(values=states.values * float("nan"), mask=states.mask)
            if self.how == "oom":
                raise MemoryError("no room for 2.00 GiB")
            if self.how == "error":
                raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
            os.kill(os.getpid(), signal.SIGKILL if self.how == "kill" else signal.SIGTERM)
        return states


def uneven(how: str, at: int, on: int) -> dict[str, object]:
    """Changes to a config."""
    target = f"{Uneven.__module__}.Uneven"
    return {
        "encoder": {"_target_": target, "dim": 12, "dropout": 0.2, "how": how, "at": at, "on": on},
        "allowed": ["tests.seqbench.toy", "tests.seqbench.toy_ranks", "encoders", "torch.optim"],
    }


def main(folder: str, *changes: str) -> None:
    """The runs; a line of what came of each."""
    from seqbench.run import run
    from tests.seqbench.toy_config import toy_config

    for change in changes:
        config = toy_config(Path(folder), json.loads(change))
        before = time.monotonic()
        outcome = run(config)
        if not int(os.environ["RANK"]):
            told = {"id": outcome.record.id, "status": outcome.record.status, "seconds": time.monotonic() - before}
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
