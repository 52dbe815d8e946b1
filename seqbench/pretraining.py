"""A run that has weights of another: the run before it, made where it is missing, and what is taken over.

Two kinds: a run that `pretrain` describes, with whose encoder this one begins, or which its task asks as a teacher; and
the one that trains for all runs that differ from it in nothing but what no training reads (test_only, of data sets and
encoders): these take encoder and head as they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqbench.composition.explain import join
from seqbench.config import RunConfig, check_config
from seqbench.errors import ConfigError, RecordError
from seqbench.record import Record
from seqbench.records.claim import Claimed
from seqbench.records.store import AGAIN, Store
from seqbench.training.progress import Event, Watch

if TYPE_CHECKING:
    from torch import Tensor

    from encoders.base import Encoder
    from tasks.base import Task

POLL = 2.0  # seconds between looks at a run that another process is at
SHOWN = 3  # weights that a message names
SECTIONS = ("task", "protocol", "budget", "optimizer", "schedule")


def before(config: RunConfig) -> RunConfig | None:
    """The run that `pretrain` describes, an ordinary one; None where there is none.

    It has the run's encoder (with `pretrain.encoder` on top), trainer and, where none is given, seed. Raises
    ConfigError, each line with the key in front.
    """
    stage = config.pretrain
    if stage is None:
        return None
    tree = config.resolved()
    sections = tree["pretrain"]
    unknown = [key for key in stage.encoder if key not in config.encoder]
    if stage.teacher is None and unknown:
        raise ConfigError(f"pretrain.encoder.{unknown[0]}: encoder {config.names.encoder} has no {unknown[0]}")
    tree |= {key: sections[key] for key in SECTIONS}
    tree |= {
        "encoder": stage.encoder if stage.teacher is not None else {**config.encoder, **stage.encoder},
        "seed": config.seed if stage.seed is None else stage.seed,
        "pretrain": None,
        "tune": None,
        "label": None,
        "task_label": None,
        "rerun": "failed" if config.rerun == "failed" else "never",  # one that failed fails this one again
        "logger": {},
    }
    if stage.budget.match is not None:
        raise ConfigError("pretrain.budget.match: the encoder has the size of the run's; leave it out")
    named = {"task": stage.name, "encoder": stage.teacher or config.names.encoder}
    names = config.names.model_copy(update={**named, "study": None, "experiment": None, "tune": None})
    try:
        return check_config(tree, names, [], allowed=config.allowed, found=True)
    except ConfigError as error:
        raise join([f"pretrain: {line}" for line in str(error).splitlines()]) from None


def trainer_of(config: RunConfig) -> RunConfig | None:
    """The run that trains the weights that this one only tests; None where it trains its own.

    Which it does, too, where it is tuned or on several devices: to the same weights, but where validation chooses among
    them (select: best, patience), which in it reads what an encoder's test_only says.
    """
    trainer = config.trainer
    if config.tune is not None or (trainer.devices, trainer.nodes) != (1, 1):
        return None
    trained = {part: _trained_on(getattr(config, part), part, config.allowed) for part in ("task", "encoder")}
    if all(node == getattr(config, part) for part, node in trained.items()):
        return None
    tree = config.resolved() | trained | {"label": None, "task_label": None, "logger": {}}
    tree["rerun"] = "failed" if config.rerun == "failed" else "never"
    names = config.names.model_copy(update={"study": None, "experiment": None})
    return check_config(tree, names, [], allowed=config.allowed, found=True)


def _trained_on(node: Any, path: str, allowed: list[str]) -> Any:
    """A node in which what no training reads has the values of the run that trains."""
    if isinstance(node, list):
        return [_trained_on(item, path, allowed) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: _trained_on(value, path, allowed) for key, value in node.items()}
    if "_target_" in node:
        from seqbench.build import locate

        found |= getattr(locate(node["_target_"], path, allowed), "test_only", {})
    return found


def check(config: RunConfig, task: Task) -> None:
    """Raise ConfigError where the run before this one, of this task, cannot be. Reads no data."""
    from seqbench.build import build_task, check_pair, check_selection

    first = before(config)
    _check_teacher(config, task)
    if first is None:
        return
    try:
        first_task = build_task(first)
        check_pair(first, first_task)
        check_selection(first, first_task)
    except ConfigError as error:
        raise ConfigError(f"pretrain: {error}") from None


def _check_teacher(config: RunConfig, task: Task) -> None:
    """Raise ConfigError for a teacher that nobody learns from, and for none where one is needed."""
    given = config.pretrain is not None and config.pretrain.teacher is not None
    if given and not getattr(task, "has_teacher", False):
        raise ConfigError(
            f"pretrain.teacher: {config.names.task} learns from none; tasks.distillation.Distillation does"
        )
    if getattr(task, "needs_teacher", False) and not given:
        raise ConfigError(
            f"task.alpha: {config.names.task} learns from a teacher then; give one by pretrain, or alpha 0"
        )
    if given and (config.trainer.devices, config.trainer.nodes) != (1, 1):
        raise ConfigError("trainer.devices: a run with pretrain.teacher is of one device; use 1")


def made(first: RunConfig | None, run: Callable[[RunConfig], Record], watch: Watch) -> Record | None:
    """The record of the run before another: found, or made by `run`; where another process is at it, waited for.

    Raises RecordError for a damaged one: this run's `rerun` does not make that anew.
    """
    while first is not None:
        try:
            return run(first)
        except Claimed:  # a RecordError, too
            watch(Event(kind="score"))  # where somebody wants this process to end, it does so here
            time.sleep(POLL)
        except RecordError as error:
            if AGAIN not in str(error):
                raise
            told = str(error).replace(AGAIN, "delete its folder, and it is made anew")
            raise RecordError(f"pretrain: {told}") from None
    return None


def check_finished(record: Record) -> None:
    """Raise for a run before this one without weights: TimedOut where it goes on next time, so this one waits.

    Else RuntimeError.
    """
    if record.status == "finished":
        return
    from seqbench.training.health import TimedOut
    from seqbench.training.standing import UNDONE

    kind = TimedOut if record.status in UNDONE else RuntimeError
    reason = (record.reason or "").removesuffix("; the same command goes on")  # which this one's ends with
    raise kind(f"pretrain: the run before this one, {record.id}, is {record.status}: {reason}")


def take_all(encoder: Encoder, task: Task, record: Record, results: Path) -> None:
    """Give an encoder and a task's head the weights of the run that trained them.

    Raises what `take_over` does.
    """
    take_over(encoder, record, results)
    task.load_state_dict(weights(record, results, of="task."))


def take_over(encoder: Encoder, record: Record, results: Path) -> None:
    """Give an encoder the weights of the run before it, all of them, or as it says what it takes (Encoder.inherited).

    Raises what `check_finished` does, and ConfigError for weights that are not there, are not the ones of the record,
    or are of an encoder of other sizes.
    """
    check_finished(record)
    theirs = encoder.inherited(weights(record, results))
    ours = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in theirs.items()}
    differ = [
        f"{name}: {_shape(shapes.get(name))} in run {record.id}, {_shape(ours.get(name))} here"
        for name in dict.fromkeys([*ours, *shapes])
        if ours.get(name) != shapes.get(name)
    ]
    if differ:
        more = f"\nand {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
        hint = "one tokenizer for both (tasks.tokenizers.FittedOn), one max_length, the same blocks"
        raise ConfigError(
            f"pretrain: its encoder's weights don't fit, which takes {hint}\n{'; '.join(differ[:SHOWN])}{more}"
        )
    encoder.load_state_dict(theirs)


def teach(task: Task, config: RunConfig, record: Record, results: Path) -> None:
    """Give a task the encoder of the run before, with its head and its weights, to learn from.

    Raises what `take_over` does, and ConfigError where the two have no vocabulary in common.
    """
    from seqbench.build import build_encoder, build_task
    from seqbench.randomness import isolated

    check_finished(record)
    first = before(config)
    assert first is not None
    with isolated(first.seed):
        theirs = build_task(first)
        theirs.setup()
        encoder = build_encoder(first, theirs.spec)
        theirs.attach(encoder)
    take_over(encoder, record, results)
    theirs.load_state_dict(weights(record, results, of="task."))
    try:
        task.learn_from(encoder, theirs)  # type: ignore[operator]
    except ValueError as error:
        raise ConfigError(str(error)) from None


def weights(record: Record, results: Path, of: str = "encoder.") -> dict[str, Tensor]:
    """The encoder's (`task.`: the head's) weights of a finished run, as tested. Raises ConfigError, see `take_over`."""
    import hashlib

    import safetensors.torch

    again = f"make it anew: delete {Store(results).folder(record.id)}"
    if record.checkpoint is None:
        raise ConfigError(f"pretrain: run {record.id} left no weights; {again}")
    path = Store(results).folder(record.id) / record.checkpoint.path
    try:
        content = path.read_bytes()
    except OSError:
        raise ConfigError(f"pretrain: {path} is missing; {again}") from None
    if hashlib.sha256(content).hexdigest() != record.checkpoint.sha256:
        raise ConfigError(f"pretrain: {path} is not the file of its record (its sha256 differs); {again}")
    every = safetensors.torch.load(content)
    return {name.removeprefix(of): value for name, value in every.items() if name.startswith(of)}


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else "x".join(map(str, shape)) or "a number"
