"""The config of one run, typed: configs/train.yaml with every choice made, checked before data or device."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from seqbench.errors import ConfigError
from seqbench.explain import explain, join, show
from seqbench.folder import Address, Folder
from seqbench.schedules import Kind
from seqbench.schema import Node, examine, signature_of

Count = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(gt=0)]
ENDS = ("steps", "tokens", "flops", "seconds")  # what a budget can be counted in
ASIDE = ("study", "experiment", "tokenizer", "hydra")  # groups whose files are no part of a run, or change one
Share = Annotated[float, Field(ge=0, le=1)]
FOUND = {  # what no one gives: it would stand for a search that nobody made
    ("tune", "chosen"): "what the trials of a tuning find",
    ("budget", "matched"): "what budget.match solves",
}
Look = Callable[..., tuple[Node, list[str]]]  # as `examine`
ENCODER, TASK, OPTIMIZER = "encoders.base.Encoder", "tasks.base.Task", "torch.optim.optimizer.Optimizer"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Protocol(_Section):
    """What is trained."""

    train: Literal["all", "head"]


class Budget(_Section):
    """When a run ends, how batches are cut, when it is evaluated, what is held equal between encoders."""

    steps: Count | None = None
    tokens: Count | None = None
    flops: Amount | None = None
    seconds: Amount | None = None
    batch_size: Count | None
    batch_tokens: Count | None
    eval_every: Count | None
    eval_limit: Count | None
    eval_batch_tokens: Count
    patience: Count | None
    select: Literal["best", "last"]
    match: Literal["params", "flops", "latency"] | None = None
    target: Amount | None = None
    vary: Literal["width", "depth", "both"] = "width"
    count: Literal["all", "encoder", "body"] = "all"
    tolerance: Amount | None = None
    matched: Annotated[dict[str, Count], Field(min_length=1)] | None = None  # set by seqbench.match: key -> solved

    @model_validator(mode="after")
    def _with_target(self) -> Self:
        if self.match is not None and self.target is None:
            raise ValueError(f"target: null, with match {self.match}; give the number to be reached")
        if self.match is None and (self.target is not None or self.matched is not None):
            raise ValueError("match: null, with a target; say what it is of: params, flops or latency")
        return self

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        given = [f"{key} {getattr(self, key):g}" for key in ENDS if getattr(self, key) is not None]
        if not given:
            raise ValueError(f"steps: null, with {', '.join(ENDS[1:])} null, would never end; set one of them")
        if len(given) > 1:
            raise ValueError(
                f"{given[0].replace(' ', ': ')}, with {' and '.join(given[1:])}; keep one, the others null"
            )
        return self

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.batch_size is None) == (self.batch_tokens is None):
            raise ValueError(
                f"batch_size: {self.batch_size or 'null'}, with batch_tokens {self.batch_tokens or 'null'}; "
                "set one of the two and make the other null"
            )
        if self.eval_every is None and self.select == "best":
            raise ValueError("select: best, with eval_every null, would have nothing to compare; use last")
        if self.eval_every is None and self.patience is not None:
            raise ValueError(f"patience: {self.patience}, with eval_every null, would wait for nothing; use null")
        return self


class Schedule(_Section):
    """The learning rate as a share of its peak."""

    kind: Kind
    warmup: Share
    floor: Share

    @model_validator(mode="after")
    def _above_zero(self) -> Self:
        if self.kind == "exponential" and self.floor == 0:
            raise ValueError("floor: 0 can't be reached by equal factors; give a share above 0, such as 0.01")
        return self


class Dimension(_Section):
    """What a key may be in a trial: between two numbers, or one of some values."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = False
    choices: Annotated[list[float | int | str | bool | None], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log or self.whole:
                raise ValueError("choices: stand alone, without low, high, log and whole")
        elif self.low is None or self.high is None or self.low >= self.high:
            raise ValueError(f"low: {self.low}, with high {self.high}; give a smaller and a larger number, or choices")
        elif self.log and self.low <= 0:
            raise ValueError(f"low: {self.low} has no logarithm; give a number above 0, or log false")
        elif self.whole and (self.low % 1 or self.high % 1):
            raise ValueError(f"low: {self.low}, with high {self.high}, are not both whole numbers")
        return self


class Tune(_Section):
    """Trials before the run, the same for every row."""

    trials: Count
    sampler: Literal["random", "tpe"]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    space: Annotated[dict[str, Dimension], Field(min_length=1)]
    chosen: dict[str, Any] | None = None  # set by seqbench.tuning: key -> the best trial's value


class Trainer(_Section):
    """Device, precision, workers."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    devices: Count | Literal["auto"]
    nodes: Count | Literal["auto"] = 1  # records made before it was there had one; likewise the next
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    precision: Literal["32-true", "16-mixed", "bf16-mixed"]
    accumulate: Count
    clip: Annotated[float, Field(gt=0)] | None
    workers: Annotated[int, Field(ge=0)]
    threads: Count | None
    invariance_rows: Annotated[int, Field(ge=0)]
    save_every: Annotated[float, Field(gt=0)] | None
    time_limit: Annotated[float, Field(gt=0)] | None = None  # records made before it was there have none
    explosion: Annotated[float, Field(gt=1)] | None = None  # likewise
    padding_free: bool = False  # likewise
    tf32: bool = False  # likewise
    compile: Literal["default", "reduce-overhead", "max-autotune"] | None = None  # likewise
    progress: bool

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.accelerator == "cpu" and self.precision == "16-mixed":
            raise ValueError(f"precision: {self.precision} does not train on a CPU; use bf16-mixed or 32-true")
        return self


class Curves(_Section):
    """A logger that needs no more than its rhythm."""

    every: Count


class WandB(_Section):
    """Weights & Biases."""

    every: Count
    project: str
    entity: str | None
    group: str | None
    tags: list[str]
    mode: Literal["online", "offline", "disabled"] | None


class Logger(_Section):
    """Where curves are written; what is left out is not written."""

    csv: Curves | None = None
    tensorboard: Curves | None = None
    wandb: WandB | None = None


class Pretrain(_Section):
    """A run before this one, of the same encoder, with whose weights this one begins. Its own sections, as a run's.

    With a `teacher` it is of an encoder of its own, so named, and what it has learnt is what this one's task asks it.
    """

    name: str  # of its task, in its record
    teacher: str | None = None  # records made before it was there have none
    encoder: dict[str, Any]  # settings of the encoder that are other in it, such as a mask; a teacher's own, all of it
    task: dict[str, Any]
    protocol: Protocol
    budget: Budget
    optimizer: dict[str, Any]
    schedule: Schedule
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None  # None: the run's


class Names(_Section):
    """Which config files were chosen, by their names; `study` where the run belongs to one."""

    encoder: str
    task: str
    protocol: str
    budget: str
    optimizer: str
    schedule: str
    trainer: str
    logger: str
    study: str | None = None
    experiment: str | None = None
    tune: str | None = None


class RunConfig(_Section):
    """One run. Nodes (`encoder`, `task`, `optimizer`) are plain mappings that were held against their signatures."""

    encoder: Node
    task: Node
    protocol: Protocol
    budget: Budget
    optimizer: Node
    schedule: Schedule
    trainer: Trainer
    logger: Logger
    tune: Tune | None = None
    pretrain: Pretrain | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    label: str | None
    task_label: str | None = None  # records made before it was there have none
    results: Folder
    mirror: Address | None = None  # in no record: records made before it was there are as those of now
    rerun: Literal["never", "failed", "always"]
    jobs: Count | Literal["auto"]
    deterministic: bool
    allowed: list[str]
    names: Names
    overrides: list[str]
    _asked: float = PrivateAttr(default_factory=time.time)

    @property
    def asked(self) -> float:
        """When the command was given that this config is of, in seconds of the system's clock; its copies keep it."""
        return self._asked

    def asked_at(self, when: float) -> Self:
        """The same, of a command that was given then."""
        copy = self.model_copy()
        copy._asked = when
        return copy

    @model_validator(mode="after")
    def _together(self) -> Self:
        key = "batch_size" if self.budget.batch_size else "batch_tokens"
        size, parts = self.budget.batch_size or self.budget.batch_tokens or 0, self.trainer.accumulate
        if size % parts:
            raise ValueError(f"trainer.accumulate: {parts} equal parts can't be made of budget.{key}, {size}")
        if self.mirror is not None:
            from seqbench.address import is_folder

            if is_folder(self.mirror, self.results):
                raise ValueError(f"mirror: {self.mirror} is the folder of results itself; give another, or null")
        return self

    def resolved(self) -> dict[str, Any]:
        """The config as a record keeps it: plain values, without names and overrides."""
        return self.model_dump(exclude={"names", "overrides"})


def load_config(cfg: DictConfig, names: Names, overrides: list[str]) -> RunConfig:
    """A composed config, resolved and checked. Raises ConfigError with every mistake found, two written out.

    A `study` in it is left out: it is a plan of runs, not a part of one. So is a `tokenizer`: the task has it by now.
    """
    tree = resolve(cfg)
    return check_config(tree, names, overrides, allowed=tree.get("allowed"))


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """A composed config as plain values, `${...}` replaced. Raises ConfigError for `???` and for dead references."""
    try:
        tree = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "config"
        what = str(error).splitlines()[0]
        if "issing mandatory" in what:
            what = "missing; give it a value"
        elif found := re.search(r"Interpolation key '(.+)' not found", what):
            what = f"missing ({found.group(1)!r} not found); give it a value"
        raise ConfigError(f"{key}: {what}") from None
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items() if key not in ASIDE}


def check_config(
    tree: Mapping[str, Any],
    names: Names,
    overrides: list[str],
    *,
    allowed: Any = None,
    found: bool = False,
    look: Look = examine,
) -> RunConfig:
    """As load_config, of plain values, of which nothing is trusted: they may be a stranger's record.

    `allowed` are the packages that a `_target_` may come from, as the user has allowed them; None: those of
    configs/train.yaml. What the values themselves say is allowed does not count. Nothing is imported for a target
    outside of them.

    `found` is of values that are a record's or a checked config's: what was tuned or solved may stand in them. Anyone
    else's are refused where they hold it. `look` is what examines a node: planning has one that remembers.
    """
    allowed = default_allowed() if allowed is None else allowed
    tree = {**tree, "allowed": allowed}
    tree = renamed(forget_replaced(tree, overrides), overrides)
    mistakes = [] if found else _given(tree)
    config: RunConfig | None = None
    given = {**tree, "names": names, "overrides": overrides}
    try:
        config = RunConfig.model_validate(given)
    except ValidationError as error:
        refused = tuple(line.partition(" ")[0] for line in mistakes)
        mistakes += [line for line in explain(error, "", given, _keys_at) if not (refused and line.startswith(refused))]
    nodes: dict[str, Node] = {}
    if isinstance(allowed, list) and all(isinstance(package, str) and package for package in allowed):
        for key, kind in (("encoder", ENCODER), ("task", TASK), ("optimizer", OPTIMIZER)):
            if key not in tree:
                continue
            runtime = ("params",) if key == "optimizer" else ()
            mistakes = [line for line in mistakes if not line.startswith(f"{key}: ")]
            nodes[key], wrong = look(tree[key], key, allowed, kind=kind, runtime=runtime)
            mistakes += wrong
    if config is None or mistakes:
        raise join(mistakes)
    return config.model_copy(update=nodes)


def _given(tree: Mapping[str, Any]) -> list[str]:
    """A mistake for each value that only SeqBench finds."""
    return [
        f"{section}.{key}: {show(tree[section][key])} can't be given, for it is {what}; leave it out"
        for (section, key), what in FOUND.items()
        if isinstance(tree.get(section), Mapping) and tree[section].get(key) is not None
    ]


@functools.cache
def _train_yaml() -> dict[str, Any]:
    tree = OmegaConf.to_container(OmegaConf.load(Path(__file__).resolve().parents[1] / "configs" / "train.yaml"))
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def default_allowed() -> list[str]:
    """The packages that configs/train.yaml allows."""
    return list(_train_yaml()["allowed"])


def _keys_at(names: list[str]) -> list[str]:
    """The keys of a section, [] for what is no section."""
    model: Any = RunConfig
    for name in names:
        options = [model.model_fields[name].annotation] if name in model.model_fields else []
        options += list(getattr(options[0], "__args__", ())) if options else []
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
        if model is None:
            return []
    return [key for key in model.model_fields if names or key not in ("names", "overrides")]


def forget_replaced(tree: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Without what a file gave to a target that the command line replaced.

    `encoder._target_=my_package.Mine` names another class, so the keys of the file's class that were not typed
    themselves would only be in its way where its constructor lacks them.
    """
    typed = {override.lstrip("+~").partition("=")[0] for override in overrides}
    for key in ("encoder", "task", "optimizer"):
        if f"{key}._target_" in typed and isinstance(tree.get(key), dict):
            tree[key] = _fitting(tree[key], key, tree.get("allowed"), typed)
    return tree


def renamed(tree: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """With the names that the run before has of files chosen for it in place of those of its own file.

    `task@pretrain.task=wikitext2` is a task of that name, unless `pretrain.name` was typed, too.
    """
    typed = {name.lstrip("+~"): value for name, _, value in (override.partition("=") for override in overrides)}
    stage = tree.get("pretrain")
    for chosen, name in (("task@pretrain.task", "name"), ("encoder@pretrain.encoder", "teacher")):
        if isinstance(stage, dict) and chosen in typed and stage.get(name) and f"pretrain.{name}" not in typed:
            stage = {**stage, name: typed[chosen]}
    return {**tree, "pretrain": stage} if "pretrain" in tree else tree


def _fitting(node: Node, path: str, allowed: Any, typed: set[str]) -> Node:
    try:
        signature = signature_of(str(node["_target_"]), path, allowed)
    except (ConfigError, TypeError):
        return node  # check() says what is wrong
    if signature.open:
        return node
    return {
        key: value
        for key, value in node.items()
        if key == "_target_" or key in signature.hints or any(f"{t}.".startswith(f"{path}.{key}.") for t in typed)
    }
