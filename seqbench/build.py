"""Config nodes become objects, and the one place where an encoder and a task are judged to fit."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
import yaml

from encoders.base import ContractError, Encoder, InputSpec, check_declared
from encoders.trivial import Trivial
from seqbench.composition.compose import CONFIGS
from seqbench.composition.nodes import compose_node
from seqbench.composition.schema import Node, forbidden, is_allowed, signature_of
from seqbench.config import ENCODER, OPTIMIZER, TASK, RunConfig
from seqbench.errors import ConfigError
from seqbench.meta import OnMeta
from seqbench.probe import probe
from tasks.base import Task
from tasks.data.base import DataError


class PairError(ConfigError):
    """An encoder and a task that cannot be together, each of them in order by itself; `short` is the bare reason.

    `instead` says who could be, where somebody reads the message: a plan of a thousand pairs does not.
    """

    def __init__(self, message: str, short: str = "", instead: Callable[[], str] = str) -> None:
        super().__init__(message)
        self.short = short or message
        self.instead = instead

    def __str__(self) -> str:
        return super().__str__() + self.instead()


def build(node: Any, path: str, allowed: Sequence[str], **runtime: Any) -> Any:
    """The object of a checked node, nested nodes first; lists and mappings of nodes are gone through.

    `runtime` holds arguments that the run gives (`spec`): each constructor gets those that it has, nested ones too.
    A ValueError of a constructor becomes a ConfigError that begins with the key, and so does a mistake in its code.
    """
    if isinstance(node, list):
        return [build(item, f"{path}.{i}", allowed, **runtime) for i, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    if "_target_" not in node:
        return {key: build(item, f"{path}.{key}", allowed, **runtime) for key, item in node.items()}
    target = locate(node["_target_"], path, allowed)
    given = {k: build(v, f"{path}.{k}", allowed, **runtime) for k, v in node.items() if k != "_target_"}
    if runtime:
        parameters = _parameters(target)
        given |= {name: value for name, value in runtime.items() if name in parameters}
    try:
        return target(**given)
    except DataError:
        raise
    except ValueError as error:
        raise ConfigError(_under(path, str(error), given)) from None
    except (TypeError, AttributeError, LookupError, NameError) as error:
        raise ConfigError(f"{path}: {node['_target_']} can't be made: {_mistake(error)}") from None


def _mistake(error: Exception) -> str:
    """An error in somebody's code in two lines: what, and where."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    text = " ".join(str(error).split())
    code = frame.f_code
    return f"{type(error).__name__}: {text[:300]}\nin {code.co_filename}, line {line}, {code.co_qualname}"


@functools.lru_cache(maxsize=1024)
def _parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(target).parameters


def locate(target: str, path: str, allowed: Sequence[str]) -> Any:
    """The class or function of a dotted name, under the allowed packages. Raises ConfigError."""
    if not is_allowed(target, allowed):
        raise ConfigError(forbidden(target, path, allowed))
    parts = target.split(".")
    for size in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:size])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
                continue
            raise ConfigError(f"{path}._target_: {target} can't be imported: {error}") from None
        except ImportError as error:
            raise ConfigError(f"{path}._target_: {target} can't be imported: {error}") from None
        for part in parts[size:]:
            found = getattr(found, part, None)
        break
    else:
        found = None
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        raise ConfigError(f"{path}._target_: {target} is neither a class nor a function")
    if not is_allowed(f"{found.__module__}.{found.__qualname__}", allowed):
        raise ConfigError(forbidden(f"{found.__module__}.{found.__qualname__}", path, allowed))
    if inspect.isabstract(found):
        raise ConfigError(f"{path}._target_: {target} is abstract; name a class that implements it")
    return found


def paths_of(target: Any) -> Collection[str]:
    """Arguments of a target that are paths, as its attribute `paths` names them; a method of that name names none."""
    named = getattr(target, "paths", ())
    return () if callable(named) else named


def build_task(config: RunConfig) -> Task:
    """The task of a run; reads nothing yet."""
    return task_of(config.task, config.allowed)


def task_of(node: Node, allowed: Sequence[str]) -> Task:
    """The task of a checked node."""
    task = build(node, "task", allowed)
    if not isinstance(task, Task):
        raise ConfigError(f"task._target_: {node['_target_']} makes a {type(task).__name__}, not a {TASK}")
    _check_metrics(task)
    return task


def _check_metrics(task: Task) -> None:
    """Raise ConfigError for a metric that does not say what it is, or has the name of another: one would hide it."""
    names: dict[str, str] = {}
    for i, metric in enumerate(task.metrics):
        key, kind = f"task.metrics.{i}", type(metric).__name__
        name, best = getattr(metric, "name", None), getattr(metric, "best", None)
        if not isinstance(name, str) or not name:
            raise ConfigError(
                f'{key}: {kind}.name is missing\ngive the class one as a board shows it: name = "accuracy"'
            )
        if best not in ("max", "min"):
            raise ConfigError(f'{key}: {kind}.best is {best!r}\nit is "max" where more is better, else "min"')
        if name in names:
            raise ConfigError(
                f"{key}: {kind} has the name {name!r}, as {names[name]} has\n"
                "a score is known by its metric's name: give one of the two classes another, or leave it out"
            )
        names[name] = kind


def build_encoder(config: RunConfig, spec: InputSpec) -> Encoder:
    """The encoder of a run, for what its task feeds, told how to work.

    Raises ConfigError where it can't work as `trainer` says.
    """
    encoder = encoder_of(config.encoder, config.allowed, spec)
    if config.trainer.padding_free and not isinstance(encoder, Trivial):
        if not encoder.packs:
            raise ConfigError(
                f"trainer.padding_free: true, but encoder {config.names.encoder} ({type(encoder).__name__}) "
                "works on padded rows alone; use false"
            )
        encoder.packed = True
    return encoder


def encoder_of(node: Node, allowed: Sequence[str], spec: InputSpec) -> Encoder:
    """The encoder of a checked node, for what a task feeds.

    What breaks the contract is a ConfigError: at once where a fact is missing, on a real device (not meta) by probe().
    """
    encoder = build(node, "encoder", allowed, spec=spec)
    if not isinstance(encoder, Encoder):
        raise ConfigError(f"encoder._target_: {node['_target_']} makes a {type(encoder).__name__}, not an {ENCODER}")
    try:
        check_declared(encoder)
        if not torch.empty(0).is_meta and not isinstance(encoder, Trivial):
            probe(encoder, spec)
    except ContractError as error:
        raise ConfigError(f"encoder._target_: {error}") from None
    return encoder


def check_pair(config: RunConfig, task: Task) -> None:
    """Build the encoder on the meta device for the task's outline, and judge whether the two fit.

    Raises PairError for two that can't be together, ConfigError for an encoder that can't be built for this task
    (whether it is the encoder's own fault or the pair's, one task can't tell) and for an optimizer that can't be. Reads
    no data, holds no memory.
    """
    check_optimizer(config)
    spec = task.outline()
    judge(outlined(config, spec), task, spec, encoder_name=config.names.encoder, task_name=config.names.task)


def outlined(config: RunConfig, spec: InputSpec) -> Encoder:
    """The encoder on the meta device: its facts and shapes, no numbers. Raises ConfigError as build_encoder."""
    with OnMeta():
        return build_encoder(config, spec)


def is_trivial(config: RunConfig) -> bool:
    """Whether the encoder is a rule without parameters: nothing in it is trained, sized, tuned or selected."""
    target = locate(str(config.encoder["_target_"]), "encoder", config.allowed)
    return inspect.isclass(target) and issubclass(target, Trivial)


def check_selection(config: RunConfig, task: Task) -> None:
    """Raise ConfigError where something would be chosen by a validation split that is none (`independent_valid`).

    A trivial row is let be, since in it nothing is chosen. Reads no data.
    """
    if task.data.independent_valid or is_trivial(config):
        return
    found, remedies = [], []
    if config.budget.select == "best":
        found.append("budget.select: best")
        remedies.append("set budget.select=last")
    if config.budget.patience is not None:
        found.append(f"budget.patience: {config.budget.patience}")
        remedies.append("set budget.patience=null")
    if config.tune is not None:
        found.append("tune")
        remedies.append("leave tune out")
    if found:
        why = task.data.overlap or "its rows are not independent of train's"
        raise ConfigError(
            f"{', '.join(found)}: would choose by the valid split of {config.names.task}, which is no independent one "
            f"({why})\n{', '.join(remedies)}"
        )


def check_optimizer(config: RunConfig) -> None:
    """Build the optimizer over one stand-in parameter. Raises ConfigError for numbers that it refuses."""
    made = build(config.optimizer, "optimizer", config.allowed, params=[torch.zeros(1, requires_grad=True)])
    if not isinstance(made, torch.optim.Optimizer):
        raise ConfigError(
            f"optimizer._target_: {config.optimizer['_target_']} makes a {type(made).__name__}, not an {OPTIMIZER}"
        )


def judge(encoder: Encoder, task: Task, spec: InputSpec, *, encoder_name: str, task_name: str) -> None:
    """Raise PairError with one line if the pair does not fit."""
    if isinstance(encoder, Trivial):
        if encoder.rule not in task.rules:
            known = f"it has {', '.join(sorted(task.rules))}" if task.rules else "it has none"
            raise PairError(
                f"task {task_name} has no trivial rule {encoder.rule}; {known}", f"has no rule {encoder.rule}"
            )
        return
    if not isinstance(encoder, task.needs):
        kind = task.needs.__name__
        raise PairError(
            f"task {task_name} needs a {kind}; encoder {encoder_name} is not one",
            f"needs a {kind}",
            functools.partial(_others, task.needs),
        )
    if task.needs_causal and not encoder.causal:
        raise PairError(
            f"task {task_name} needs a causal encoder; {encoder_name} is not: its states would see what they predict",
            "needs a causal encoder",
        )
    if task.needs_all_positions and encoder.num_states(spec.max_length) != spec.max_length:
        raise PairError(
            f"task {task_name} needs a state for each position; encoder {encoder_name} merges {spec.max_length} "
            f"positions into {encoder.num_states(spec.max_length)} states",
            "needs a state for each position",
        )
    if spec.grid is not None and not spec.grid.across(encoder.num_states(spec.max_length)):
        raise PairError(
            f"task {task_name} needs q x q states for each square of an image; encoder {encoder_name} merges "
            f"{spec.max_length} squares into {encoder.num_states(spec.max_length)} states",
            "needs q x q states for each square",
        )
    fed = set(spec.streams)
    if fed - encoder.reads:
        raise PairError(
            f"task {task_name} feeds {_words('stream', fed - encoder.reads)}, which encoder {encoder_name} doesn't read"
        )
    if encoder.requires - fed:
        raise PairError(
            f"encoder {encoder_name} needs {_words('stream', encoder.requires - fed)}, which task {task_name} "
            "doesn't feed"
        )
    try:
        task.check_encoder(encoder)
    except ValueError as error:
        raise PairError(f"{encoder_name} x {task_name}: {error}", str(error)) from None


@functools.lru_cache
def encoders_that(kind: type[Encoder]) -> tuple[str, ...]:
    """Names of the configs whose encoder descends from a class, trivial ones left out; found without importing them."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    names = []
    for file in sorted((CONFIGS / "encoder").glob("*.yaml")):
        try:
            own = yaml.safe_load(file.read_text(encoding="utf-8"))
            node = compose_node("encoder", file.stem) if "defaults" in own else own  # a composition is slow
            target = node.get("_target_", "")
            ancestors = signature_of(target, "encoder", ["encoders"]).ancestors or frozenset()
        except ConfigError:
            continue  # of a package of the user's, or broken: not ours to recommend
        if name in ancestors and "encoders.trivial.Trivial" not in ancestors:
            names.append(file.stem)
    return tuple(names)


def _others(kind: type[Encoder]) -> str:
    return _listed(f"; {kind.__name__.lower()}s: ", encoders_that(kind))


def _words(noun: str, names: set[str] | frozenset[str]) -> str:
    return f"{noun}{'s' if len(names) > 1 else ''} {', '.join(sorted(names))}"


def _listed(before: str, names: Sequence[str]) -> str:
    return before + ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else ""


# What torch's optimizers call their arguments when they refuse one.
_CALLED = {
    "learning rate": "lr",
    "epsilon": "eps",
    "beta": "betas",
    "weight_decay": "weight_decay",
    "momentum": "momentum",
}


def _under(path: str, message: str, given: dict[str, Any]) -> str:
    """A constructor's message with the path in front: `heads: 3 ...` -> `encoder.heads: 3 ...`."""
    if message.startswith((path + ".", path + ":")):
        return message
    called = re.match(r"Invalid (learning rate|epsilon|beta|weight_decay|momentum)", message)
    if called and _CALLED[called.group(1)] in given:
        return f"{path}.{_CALLED[called.group(1)]}: {message[0].lower()}{message[1:]}"
    first = re.match(r"[A-Za-z_]\w*(?=[.:])", message)
    return f"{path}.{message}" if first and first.group() in given else f"{path}: {message}"
