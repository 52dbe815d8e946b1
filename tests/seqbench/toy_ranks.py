"""Toy runs by several ranks, for tests: an encoder that goes wrong on one of them, and processes that make many runs.

`python -m tests.seqbench.toy_ranks FOLDER ORDERS...` makes a toy run for each JSON object {name, healthy, changes} in
FOLDER/name, as a rank of the environment (RANK, WORLD_SIZE, ...), one after the other; the first one prints a JSON line
for each.
"""
# B batch, L positions, D width, K classes, M real positions of a batch

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist

from encoders.base import Encoder, InputSpec, Sequences, States
from tasks.base import Batch, Output
from tests.seqbench.toy import ToyBatch, ToyEncoder, ToyTask

ALLOWED = ["tests.seqbench.toy", "tests.seqbench.toy_ranks", "encoders", "torch.optim"]


class Positions(ToyTask):
    """Its items are real positions, so that parts of a batch weigh differently."""

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """Cross-entropy of each position; predictions as of the mean of its logits."""
        assert isinstance(batch, ToyBatch)
        states = encoder(batch.source)
        logits_BLK = self.head(states.values)
        label_M = batch.label.unsqueeze(1).expand(states.mask.shape)[states.mask]
        loss = torch.nn.functional.cross_entropy(logits_BLK[states.mask], label_M)
        predictions = []
        if not self.training:
            mean_BK = (logits_BLK * states.mask.unsqueeze(-1)).sum(1) / states.mask.sum(1, keepdim=True)
            predictions = [("no", "yes")[int(k)] for k in mean_BK.argmax(1)]
        return Output(loss=loss, items=len(label_M), predictions=predictions)


class Uneven(ToyEncoder):
    """Goes wrong in the `at`-th forward pass in training of rank `on`, unless SEQBENCH_TOY_HEALTHY is set."""

    def __init__(
        self,
        *,
        dim: int,
        dropout: float,
        how: Literal["nan", "oom", "error", "words", "kill", "terminate", "slow"],
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
            if self.how == "words":
                raise RuntimeError("NCCL, gloo: abort; Connection reset")
            os.kill(os.getpid(), signal.SIGKILL if self.how == "kill" else signal.SIGTERM)
        return states


def uneven(how: str, at: int, on: int) -> dict[str, object]:
    """Changes to a config."""
    target = f"{Uneven.__module__}.Uneven"
    return {
        "encoder": {"_target_": target, "dim": 12, "dropout": 0.2, "how": how, "at": at, "on": on},
        "allowed": ALLOWED,
    }


def main(folder: str, *orders: str) -> None:
    """The runs; a line of what came of each."""
    from seqbench.run import run
    from tests.seqbench.toy_config import toy_config

    for order in map(json.loads, orders):
        os.environ.pop("SEQBENCH_TOY_HEALTHY", None)
        if order.get("healthy"):
            os.environ["SEQBENCH_TOY_HEALTHY"] = "1"
        try:
            outcome = run(toy_config(Path(folder) / order["name"], order["changes"]))
            told = [outcome.record.status, outcome.skipped]
        except (Exception, KeyboardInterrupt) as error:
            told = [type(error).__name__, str(error)]
        print(json.dumps([order["name"], int(os.environ["RANK"]), *told]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
