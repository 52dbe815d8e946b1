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
from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from seqbench.composition.explain import explain, join, show
from seqbench.composition.schema import Node, examine, signature_of
from seqbench.composition.sections import Budget, Count, Logger, Pretrain, Protocol, Schedule, Section, Trainer, Tune
from seqbench.errors import ConfigError
from seqbench.records.folder import Address, Folder

ASIDE = ("study", "experiment", "tokenizer", "hydra")  # groups whose files are no part of a run, or change one
FOUND = {  # what no one gives: it would stand for a search that nobody made
    ("tune", "chosen"): "what the trials of a tuning find",
    ("budget", "matched"): "what budget.match solves",
}
Look = Callable[..., tuple[Node, list[str]]]  # as `examine`
ENCODER, TASK, OPTIMIZER = "encoders.base.Encoder", "tasks.base.Task", "torch.optim.optimizer.Optimizer"


class Names(Section):
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


class RunConfig(Section):
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
            from seqbench.records.address import is_folder

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
            mistakes += wrong if found else [_filed(line, key, getattr(names, key, None)) for line in wrong]
    if config is None or mistakes:
        raise join(mistakes)
    return config.model_copy(update=nodes)


def _filed(line: str, key: str, name: str | None) -> str:
    """What is missing of a node, with where it belongs: in the file that was chosen for it."""
    missing = re.fullmatch(rf"{key}\.([A-Za-z_.]+): missing", line)
    if missing is None or not name:
        return line
    return f"{line}; its class needs it: write it into {key}/{name}.yaml, or give +{key}.{missing.group(1)}=VALUE"


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
    themselves would only be in its way where its constructor lacks them. A part's target (`encoder.position._target_`)
    does the same for the part.
    """
    typed = {override.lstrip("+~").partition("=")[0] for override in overrides}
    for path in sorted(
        name.removesuffix("._target_") for name in typed if name.endswith("._target_")
    ):  # outer ones first
        if path.partition(".")[0] in ("encoder", "task", "optimizer"):
            tree = _replaced(tree, path.split("."), path, tree.get("allowed"), typed)
    return tree


def _replaced(node: Any, names: list[str], path: str, allowed: Any, typed: set[str]) -> Any:
    """A node with what of it is called so made to fit its target."""
    if not isinstance(node, dict):
        return node
    if not names:
        return _fitting(node, path, allowed, typed) if "_target_" in node else node
    first, *rest = names
    return {**node, first: _replaced(node[first], rest, path, allowed, typed)} if first in node else node


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
