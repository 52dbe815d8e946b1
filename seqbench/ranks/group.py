"""The processes of one run, its ranks: what they tell each other while they train."""
# W ranks

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)  # for a rank that is late: the first one may read data, or score, meanwhile


@dataclass(eq=False)
class Ranks:
    """One rank's end of the line to the others. Alone, everything is what it is here, and costs nothing.

    Numbers and objects go through gloo, on the CPU: what ranks agree on is known there, and no device is waited for.
    """

    rank: int = 0
    size: int = 1  # W
    local: int = 0
    nodes: int = 1
    device: str = "cpu"  # torch's name of the kind that gradients are on
    store: Any = None  # a torch.distributed store under which the others are found
    meet: Callable[[], None] = field(default=lambda: None, repr=False)  # called before the ranks are joined
    _group: Any = field(default=None, repr=False)

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    @property
    def first_one(self) -> bool:
        """Whether this is the one that scores, writes and speaks."""
        return self.rank == 0

    def join(self) -> None:
        """Meet the others; nothing for one alone. Call `leave` afterwards, whatever comes.

        On CUDA this rank's device is the current one from here on: NCCL takes that which is, and two ranks on one hang.
        """
        if not self.several:
            return
        self.meet()
        if self.device == "cuda":
            torch.cuda.set_device(self.local)
        backend = "cpu:gloo,cuda:nccl" if self.device == "cuda" else "gloo"
        dist.init_process_group(backend, store=self.store, rank=self.rank, world_size=self.size, timeout=PATIENCE)
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE)

    def leave(self) -> None:
        """Break off; the others' waiting for this one ends by that, with an error."""
        if self.several and dist.is_initialized():
            self._group = None
            if self.device == "cuda":
                dist.distributed_c10d._abort_process_group()
            else:
                dist.destroy_process_group()

    def table(self, values: Sequence[float]) -> list[list[float]]:
        """The numbers of each rank, in order, as all have them; the same on all."""
        if not self.several:
            return [list(values)]
        mine = torch.tensor(values, dtype=torch.float64)
        every = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(every, mine, group=self._group)
        return [row.tolist() for row in every]

    def first(self, make: Callable[[], T]) -> T:
        """What the first rank makes, on all of them; the others make nothing."""
        if not self.several:
            return make()
        given: list[Any] = [make() if self.first_one else None]
        dist.broadcast_object_list(given, src=0, group=self._group)
        return given[0]  # type: ignore[no-any-return]

    def gathered(self, value: T) -> list[T]:
        """The values of all ranks, in order, on the first one; on the others [value]."""
        if not self.several:
            return [value]
        every: list[Any] | None = [None] * self.size if self.first_one else None
        dist.gather_object(value, every, dst=0, group=self._group)
        return [value] if every is None else every

    def everywhere(self, value: T) -> list[T]:
        """The values of all ranks, in order, on each of them."""
        if not self.several:
            return [value]
        every: list[Any] = [None] * self.size
        dist.all_gather_object(every, value, group=self._group)
        return every


ALONE = Ranks()
