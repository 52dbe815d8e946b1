"""Why a pair of a board without plan has no run: asked of the code, where the pair can't be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seqbench.board.entries import Entry
from seqbench.errors import ConfigError

ALLOWED = ("encoders", "tasks", "torch.optim")  # whatever else a record may allow: it may be a stranger's


def unfit(entries: Sequence[Entry]) -> dict[tuple[str, str], str]:
    """(encoder, task) -> the reason, of pairs that no record is of and that can't be built.

    Nothing is imported but SeqBench's own classes, and torch only where there is such a pair; no data is read. Each
    encoder has been built for some task, so what goes wrong now is the pair's.
    """
    encoders: dict[str, dict[str, Any]] = {}
    tasks: dict[str, dict[str, Any]] = {}
    there = set()
    for entry in entries:
        record = entry.record
        encoders.setdefault(record.encoder.name, record.config.get("encoder", {}))
        tasks.setdefault(record.task.name, record.config.get("task", {}))
        there.add((record.encoder.name, record.task.name))
    gaps = [(e, t) for e in encoders for t in tasks if (e, t) not in there]
    reasons = {}
    for encoder, task in gaps:
        if reason := _reason(encoder, encoders[encoder], task, tasks[task]):
            reasons[encoder, task] = reason
    return reasons


def _reason(encoder: str, encoder_node: Any, task: str, task_node: Any) -> str:
    """Empty where the pair could be, or where present code can't tell."""
    import torch

    from seqbench.build import encoder_of, judge, task_of

    try:
        made = task_of(task_node, ALLOWED)
        spec = made.outline()
    except (ConfigError, KeyError, TypeError, ValueError):
        return ""  # of a package of the user's, or of other code
    try:
        with torch.device("meta"):
            built = encoder_of(encoder_node, ALLOWED, spec)
        judge(built, made, spec, encoder_name=encoder, task_name=task)
    except ConfigError as error:
        if "_target_" in str(error):
            return ""
        return str(getattr(error, "short", error)).splitlines()[0]
    except (KeyError, TypeError, ValueError):
        return ""
    return ""
