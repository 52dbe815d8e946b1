"""Which parameters are decayed: matrices are; biases, norms, embeddings and what a module exempts are not."""

from __future__ import annotations

from typing import Any

from torch import nn


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Trained parameters as two groups: with the optimizer's weight decay, and with none.

    Without: whatever has fewer than two axes longer than one (biases, gains of norms, a class token), tables of
    `nn.Embedding`, and parameters that a module names in `without_decay` (encoders/base.py). A parameter that is
    shared stands in one group, once; an empty group is left out. Order is that of `module.named_parameters()`, so it
    is the same in every process.
    """
    exempt = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    exempt |= {id(getattr(part, name)) for part in module.modules() for name in getattr(part, "without_decay", ())}
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for parameter in module.parameters():
        if not parameter.requires_grad:
            continue
        vector = sum(size > 1 for size in parameter.shape) < 2
        (kept if vector or id(parameter) in exempt else decayed).append(parameter)
    groups: list[dict[str, Any]] = []
    if decayed:
        groups.append({"params": decayed})
    if kept:
        groups.append({"params": kept, "weight_decay": 0.0})
    return groups
