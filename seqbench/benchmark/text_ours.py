"""The harness's side of the text benchmark: a real run's training, from a checkpoint's weights."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from hydra import version
from safetensors.torch import load_file, save_file

from encoders.base import Encoder
from seqbench.benchmark.base import Settings
from seqbench.build import build_encoder, build_task
from seqbench.composition.compose import own_loader
from seqbench.composition.compositions import Compositions
from seqbench.config import RunConfig, check_config
from seqbench.training.fit import fit
from seqbench.training.health import Deadline
from seqbench.training.ledger import Progress
from seqbench.training.progress import Event
from seqbench.training.resume import Checkpoints
from tasks.base import Task

HEAD = "head.safetensors"  # beside the checkpoint's files
TASKS = {"sst2": "task.readout=mean", "multi30k": "task.tie=true"}


class Ours:
    """One data set, read once; each training begins anew with the weights in `folder`."""

    def __init__(self, name: str, folder: Path, *, rows: int) -> None:
        version.setbase("1.3")
        self.made, self.name, self.folder, self.rows = Compositions(own_loader()), name, folder, rows
        self.task = build_task(self.config(steps=1, seed=0, packed=False))
        self.task.data.check()
        self.task.setup()

    def config(self, *, steps: int, seed: int, packed: bool) -> RunConfig:
        """Of a run: both sides train with a fused AdamW without decay at a constant rate, gradients clipped."""
        words = [
            *("encoder=pretrained", f"encoder.path={self.folder}", "encoder.dropout=null", f"task={self.name}"),
            *(TASKS[self.name], "task.label_smoothing=0", "optimizer.lr=1e-3", "optimizer.weight_decay=0"),
            *("+optimizer.fused=true", "schedule=constant", f"seed={seed}", f"budget.steps={steps}"),
            *(f"budget.batch_size={self.rows}", "budget.eval_every=null", "budget.eval_limit=1", "budget.select=last"),
            *("trainer.clip=1.0", "trainer.progress=false", f"trainer.padding_free={str(packed).lower()}"),
        ]
        tree, names = self.made.make(words)
        return check_config(tree, names, words)

    def pair(self, config: RunConfig) -> tuple[Encoder, Task]:
        """The encoder and the task's head, with the weights in the folder; where there is no head, one is left."""
        with warnings.catch_warnings():
            # the checkpoint is of no tokeniser, its weights are random
            warnings.filterwarnings("ignore", message=".* has no tokenizer.json")
            encoder = build_encoder(config, self.task.spec)
        self.task.attach(encoder)
        if (self.folder / HEAD).is_file():
            self.task.load_state_dict(load_file(self.folder / HEAD))
        else:
            save_file(self.task.state_dict(), self.folder / HEAD)
        return encoder, self.task

    def train(self, settings: Settings, *, steps: int, seed: int, packed: bool) -> tuple[int, float]:
        """Real positions trained on after the first step, and the seconds of it."""
        config = self.config(steps=steps, seed=seed, packed=packed)
        torch.manual_seed(seed)
        encoder, task = self.pair(config)
        clock: list[float] = []

        def watch(event: Event) -> None:
            if event.kind == "step" and event.step in (1, steps):
                clock.append(settings.now())

        with tempfile.TemporaryDirectory() as folder:
            fitted = fit(
                config,
                task,
                encoder,
                checkpoints=Checkpoints(Path(folder)),
                state=None,
                progress=Progress(),
                sinks=[],
                watch=watch,
                deadline=Deadline(None),
            )
        first = fitted.feed.loader.batches()[0]
        return fitted.feed.real - int(task.lengths("train")[first].sum()), clock[1] - clock[0]
