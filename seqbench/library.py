"""SeqBench as a library: an encoder or a task by the name of its config, in Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from encoders.base import Encoder, InputSpec
from seqbench.build import encoder_of, task_of
from seqbench.composition.nodes import compose_node
from seqbench.composition.schema import Node, check
from seqbench.config import ENCODER, TASK, resolve
from tasks.base import Task

ALLOWED = ("encoders", "tasks")  # what files of configs/ name; a class of one's own is called without a config


def load_encoder(name: str, spec: InputSpec, /, **changes: Any) -> Encoder:
    """The encoder of `configs/encoder/NAME.yaml` for what a task feeds: `load_encoder("lstm", spec, dim=64)`.

    A mapping changes keys of a part (`layer={"placement": "post"}`); with a `_target_` it takes the part's place.
    Weights are drawn from torch's global generator. Raises ConfigError as the command line does: no such encoder, no
    such key, a value out of bounds, what the spec rules out.
    """
    node = check(_complete("encoder", name, changes), "encoder", ALLOWED, kind=ENCODER, runtime=("spec",))
    return encoder_of(node, ALLOWED, spec)


def load_task(name: str, /, **changes: Any) -> Task:
    """The task of `configs/task/NAME.yaml`, with changes as in load_encoder: `load_task("digits", max_length=32)`.

    Reads no data: `task.data.check()` and `task.setup()` do. Raises ConfigError.
    """
    node = check(_complete("task", name, changes), "task", ALLOWED, kind=TASK)
    return task_of(node, ALLOWED)


def _complete(group: str, name: str, changes: Mapping[str, Any]) -> Node:
    """The composed node. Raises ConfigError where a value is still missing."""
    node: Node = resolve(OmegaConf.create({group: compose_node(group, name, changes=changes)}))[group]
    return node
