"""The one LightningModule: whatever task, whatever encoder."""
# B batch

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Self

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from encoders.base import Encoder
from seqbench.training.optimizers import parameter_groups
from tasks.base import Batch, Task


class Module(pl.LightningModule):
    """A task with its encoder, an optimizer and a schedule.

    With `train="head"` the encoder is frozen and stays in evaluation mode (a probe). With `accumulate` a step's loss
    is the mean over all items of its batches, so a batch weighs as many items as it has (and so do the encoder's
    auxiliary losses, which are means over a batch). So it is with several ranks, which have parts of each batch:
    `exchange` tells the items of each one's; gradients, which Lightning averages over ranks, are those of the whole.
    `weighs` tells of the batch under way whether it counts. Raises ValueError where nothing is left to train.
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        task: Task,
        train: Literal["all", "head"],
        optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        factor: Callable[[int], float],
        accumulate: int,
        compiled: str | None = None,
        exchange: Callable[[int], list[int]] | None = None,
        weighs: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__()
        self.exchange, self.weighs = exchange, weighs
        self.compiled = compiled  # torch.compile's mode, of training steps alone: scores are those of the plain encoder
        self.encoder, self.task = encoder, task
        self.frozen = train == "head"
        self.optimizer, self.factor = optimizer, factor
        self.accumulate = accumulate
        self._program: Callable[..., Any] | None = None
        self.shares: list[float] = []  # of the batches of this step: items, in those of the first one
        self.unit = 1.0
        self.losses: list[tuple[Tensor, int]] = []  # detached, of the batches since somebody last emptied it
        if self.frozen:
            encoder.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise ValueError(f"protocol.train: {train} leaves {type(task).__name__} no parameter to train; use all")
        self.train()

    def train(self, mode: bool = True) -> Self:
        """As every module's, except that a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        """As every module's, without looking whether the name of a hook is a parameter: Lightning sets 30 a step."""
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """As every module's; on the CPU a batch is where it should be."""
        return batch if device.type == "cpu" else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def training_step(self, batch: Batch) -> Tensor:
        """Loss of a batch, (), times its share in the step where several make one."""
        with self._as_compiled():
            output = self.task(self.encoder, batch)
        items = output.items if self.weighs() else 0
        self.losses.append((output.loss.detach(), items))
        loss: Tensor = output.loss
        everyone = [items] if self.exchange is None else self.exchange(items)
        mean = sum(everyone) / len(everyone)
        if self.accumulate == 1:
            return loss if self.exchange is None else loss * (items / max(mean, 1e-9))
        if len(self.shares) in (0, self.accumulate):
            self.shares, self.unit = [], max(1.0, mean)
        self.shares.append(mean / self.unit)  # near 1: half-precision gradients keep their size
        return loss * (items / self.unit)

    @contextmanager
    def _as_compiled(self) -> Iterator[None]:
        """The encoder's forward pass compiled, once; its parameters and their names stay what they are."""
        if self.compiled is None:
            yield
            return
        if self._program is None:
            self._program = torch.compile(self.encoder._call_impl, mode=self.compiled)
        self.encoder._compiled_call_impl = self._program
        try:
            yield
        finally:
            self.encoder._compiled_call_impl = None

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Make the sum of gradients a mean over items: Lightning has divided it by the number of batches."""
        total = sum(self.shares)
        if self.accumulate == 1 or total in (0, self.accumulate):
            return
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(self.accumulate / total)

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule, the latter stepped with the former."""
        optimizer = self.optimizer(parameter_groups(self))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, self.factor), "interval": "step"},
        }
