"""Batches on their way to the device: from pinned memory, on a stream of their own, while the step before is worked on.

A copy from ordinary memory keeps the process waiting, and one on the stream of the step waits for that. So a batch is
copied to pinned memory and from there on a side stream; what works on it waits for its own copy alone (an event), and
the allocator is told that its memory is in use on that stream, too (`Tensor.record_stream`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor


class Carrier:
    """Brings batches to one device; on the CPU they are there, and all else is the same."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        make: Any = torch.cuda.Stream
        self.stream = make(device) if device.type == "cuda" else None

    def send(self, batch: Any) -> tuple[Any, Any]:
        """A batch that is on its way, and the event after which it is there (None: it is)."""
        if self.stream is None:
            return batch, None
        with torch.cuda.stream(self.stream):
            sent = changed(batch, Tensor.pin_memory).to(self.device, non_blocking=True)
            return sent, self.stream.record_event()

    def receive(self, sent: tuple[Any, Any]) -> Any:
        """The batch, for the current stream, which waits for it; the process does not."""
        batch, event = sent
        if event is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(event)
            for tensor in tensors(batch):
                tensor.record_stream(stream)
        return batch


def carrier(device: torch.device) -> Carrier | None:
    """The carrier for a training's device; None where batches need none, and are taken one by one."""
    return Carrier(device) if device.type == "cuda" else None


def changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same with each tensor changed: in dataclasses, dicts, lists and tuples, however deep; all else as it is."""
    if isinstance(value, Tensor):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: changed(getattr(value, f.name), change) for f in fields(value) if f.init})
    if type(value) is dict:
        return {key: changed(item, change) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(changed(item, change) for item in value)
    return value


def tensors(value: Any) -> Iterator[Tensor]:
    """Each tensor that `changed` would change."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors(getattr(value, field.name))
    elif type(value) in (dict, list, tuple):
        for item in value.values() if type(value) is dict else value:
            yield from tensors(item)
