"""torch's meta device, on which an encoder is built to see whether it can be: shapes without numbers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._device import DeviceContext, _device_constructors

Shortcut = Callable[[Sequence[Any], Mapping[str, Any]], Any]  # what a call makes there; None: torch is to say it
ELEMENTWISE = [
    *("add", "sub", "mul", "div", "pow", "__rsub__", "__rdiv__", "__rpow__"),
    *("cos", "sin", "exp", "log", "sqrt"),
]


class OnMeta(DeviceContext):
    """`torch.device("meta")` without what takes most of a construction there and changes nothing of it.

    torch.nn.init draws no number on that device; of weight norm, arange and functions of one tensor a shape is all
    there is, to which torch comes in up to a millisecond each, by way of Python. One mode and not two: each stands
    before every call of torch's, a hundred thousand of them in a large plan.
    """

    def __init__(self) -> None:
        super().__init__("meta")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        short = _shortcuts().get(func)
        if short is None:
            return func(*args, **kwargs) if kwargs else func(*args)
        made = short(args, kwargs or {})
        return super().__torch_function__(func, types, args, kwargs) if made is None else made  # type: ignore[no-untyped-call]


@functools.cache
def _shortcuts() -> Mapping[Any, Shortcut]:
    """By function of torch's, those that take a device included."""
    init = [f for f in vars(torch.nn.init).values() if inspect.isfunction(f) and f.__module__ == "torch.nn.init"]
    return {
        **dict.fromkeys(_device_constructors(), lambda args, kwargs: None),
        **dict.fromkeys(init, lambda args, kwargs: kwargs.get("tensor", args[0] if args else None)),
        **dict.fromkeys((getattr(torch.Tensor, name) for name in ELEMENTWISE), _elementwise),
        torch.norm_except_dim: _norms,
        torch.arange: _counted,
    }


def _elementwise(args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """Of one tensor of floats, that no gradient goes through, and numbers."""
    tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
    numbers = sum(type(arg) in (int, float) for arg in args)
    if kwargs or len(tensors) != 1 or len(args) != 1 + numbers:
        return None
    (x,) = tensors
    return torch.empty_like(x) if x.is_meta and x.is_floating_point() and not x.requires_grad else None


def _counted(args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """An arange of whole numbers."""
    if kwargs.keys() - {"dtype"} or not all(type(arg) is int for arg in args) or 0 in args[2:]:
        return None
    count = len(range(*args))  # 0: torch says what is wrong
    return torch.empty(count, dtype=kwargs.get("dtype") or torch.int64, device="meta") if count else None


def _norms(args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """Norms over all dimensions but one; -1: over all."""
    if kwargs or len(args) != 3 or not args[0].is_meta:
        return None
    v, _, dim = args
    if dim == -1:
        return v.new_empty(())  # type: ignore[no-any-return]
    shape = [1] * v.dim()
    shape[dim] = v.shape[dim]
    return v.new_empty(shape)  # type: ignore[no-any-return]
