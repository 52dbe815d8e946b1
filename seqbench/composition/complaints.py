"""Errors that a user caused, in one to three lines; nothing of any other, so that it keeps its traceback."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqbench.composition.compose import CONFIGS, compose, groups, options
from seqbench.composition.signature import Unreadable, read_signature
from seqbench.composition.source import NoTarget, suggest
from seqbench.errors import ConfigError, RecordError
from seqbench.studies.grid import parse_one
from tasks.data.base import DataError


def complaint(error: BaseException, overrides: Sequence[str], loader: ConfigLoader) -> str | None:
    """What to print for an error, or None if it is not a user's. `overrides` are the command line's."""
    if isinstance(error, ConfigError | RecordError | DataError):
        return str(error)
    if isinstance(error, OverrideParseException):
        wrong = error.override
        form = "write key=value, a list as key=[a,b], a text with spaces as 'key=\"a b\"'"
        key, equals, value = (wrong or "").partition("=")
        if equals and value and value[0] not in "[{'\"" and re.fullmatch(r"[\w.@/+~-]+", key, re.ASCII):
            form = f"quote its text: '{key}=\"{value}\"'"
        return f"{wrong!r} is not a readable override; {form}" if wrong else f"an override is empty; {form}"
    if isinstance(error, MissingConfigException):
        return _missing_file(error, loader)
    if isinstance(error, yaml.YAMLError):
        mark = getattr(error, "problem_mark", None)
        where = f"{_short(mark.name)}, line {mark.line + 1}" if mark else "a config file"
        return f"{where}: not valid YAML: {getattr(error, 'problem', None) or str(error).splitlines()[0]}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _composition(str(error), error.__cause__, overrides, loader)
    if isinstance(error, ValueError | OSError) and _raised_in(error) in ("hydra", "omegaconf"):
        text = str(error).splitlines()[0]
        if "Config group override" not in text:
            return text
        known = {"", *groups(loader)}
        chosen = [o for o in overrides if o.partition("=")[0] in known]
        odd = [o for o in chosen if not isinstance(parse_one(o).value(), str | list | dict)]
        return f"{odd[0] if odd else 'defaults'}: a group of configs takes the name of one of its files"
    return None


def _missing_file(error: MissingConfigException, loader: ConfigLoader) -> str:
    group, _, name = (error.missing_cfg_file or "").partition("/")
    if not name:
        return str(error).splitlines()[0]
    found = options(loader, group)
    near = suggest(name, found)
    if not found:
        return f"{group}={name}: there is no {group} to choose yet; add configs/{group}/{name}.yaml"
    listed = "" if not near.startswith(" (") and near else f"; {group}: {', '.join(found)}"
    return f"{group}={name}: there is no such {group}{near}{listed}"


def _composition(text: str, cause: BaseException | None, overrides: Sequence[str], loader: ConfigLoader) -> str:
    if found := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(found.group(1), overrides, loader)
    if found := re.search(r"An item is already at '([^']+)'", text):
        return f"{found.group(1)}: exists already; leave the + away to change it"
    if found := re.search(r"Could not delete from config\. '?(.+?)'? does not exist", text):
        return f"{found.group(1)}: does not exist, so it can't be deleted"
    if found := re.search(r"Ambiguous value for argument '([^']+)'", text):
        key, _, value = found.group(1).partition("=")
        return f"{key}: {value} is several values; add -m to run each of them, or write a list: {key}=[{value}]"
    if found := re.search(r"Sweep parameters '([^']+)' requires --multirun", text):
        return f"{found.group(1)}: a sweep needs -m"
    if found := re.search(r"Config group '([^']+)'|group '([^']+)' does not exist", text):
        return f"{found.group(1) or found.group(2)}: there is no such group of configs"
    if found := re.search(r"Error merging override ([^=\s]+)=(.*)", text):
        return f"{found.group(1)}: {found.group(2)} has another form than the value that it would replace"
    lines = [line.strip() for line in (text or str(cause or "")).splitlines() if line.strip()]
    key = getattr(cause, "full_key", None)
    return (f"{key}: " if key else "") + ("; ".join(lines[:2]) if lines else type(cause).__name__)


def _unknown_key(key: str, overrides: Sequence[str], loader: ConfigLoader) -> str:
    """The first part of a dotted key that leads nowhere, with what stands in its place."""
    if "/" in key:
        return f"{key}: no such group of configs"
    node = _without(overrides, loader)
    parts = key.split(".")
    for i, part in enumerate(parts):
        if not isinstance(node, DictConfig):
            return f"{key}: no such key; {'.'.join(parts[:i])} is a single value"
        if part not in node:
            parent = ".".join(parts[:i])
            known = {str(name) for name in node if name != "hydra"} | (set() if i else {*groups(loader)} - {"hydra"})
            near = suggest(part, sorted(known), f"{parent}." if parent else "")
            if below := _below(node, part):  # task.data.target, for task.data.columns.target
                near = f" (did you mean {'.'.join([*parts[:i], below])}?)"
            typed = next((o for o in overrides if o.startswith(key + "=")), f"{key}=VALUE")
            if other := _in_other_reader(parent, part, node):
                return f"{key}: no such key of this reader of data; own_data@{parent}={other} has it"
            closed = near.startswith(" (") or not _may_take(node, part, f"{parent}._target_=", overrides)
            return f"{key}: no such key{near}" + ("" if closed else f"; a new key is added with +{typed}")
        if OmegaConf.is_interpolation(node, part):  # task.tokenizer, where a file of configs/tokenizer was chosen
            place = str(dict(node.items_ex(resolve=False))[part]).strip("${}")
            return f"{key}: {'.'.join(parts[: i + 1])} is taken from {place}; set {'.'.join([place, *parts[i + 1 :]])}"
        node = OmegaConf.select(node, part, throw_on_missing=False)
    typed = next((o for o in overrides if o.startswith(key + "=")), f"{key}=VALUE")
    return f"{key}: what stands there has not all of these keys; to add them write +{typed}"


def _below(node: DictConfig, part: str) -> str | None:
    """The key of that name one section down, if there is exactly one."""
    sections = OmegaConf.to_container(node, resolve=False)
    assert isinstance(sections, dict)
    found = [k for k, section in sections.items() if k != "hydra" and isinstance(section, dict) and part in section]
    return f"{found[0]!s}.{part}" if len(found) == 1 else None


def _may_take(node: DictConfig, part: str, setting: str, overrides: Sequence[str]) -> bool:
    """Whether a key could be added: to a section without a class, or to one whose class has, or may have, such an
    argument. `setting` is how an override of the class begins.
    """
    if (
        "_target_" not in node
        or OmegaConf.is_missing(node, "_target_")
        or any(o.startswith(setting) for o in overrides)
    ):
        return True
    try:
        signature = read_signature(str(node["_target_"]))
    except (NoTarget, Unreadable):
        return True
    return signature.open or part in signature.hints


def _in_other_reader(parent: str, part: str, node: DictConfig) -> str | None:
    """The other file of configs/own_data that has a key, where one of them is the reader of a task's own data."""
    if parent != "task.data":
        return None
    readers = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CONFIGS / "own_data").glob("*.yaml"))}
    if node.get("_target_") not in {reader["_target_"] for reader in readers.values()}:
        return None
    return next((name for name, reader in readers.items() if part in reader), None)


def _without(overrides: Sequence[str], loader: ConfigLoader) -> DictConfig | None:
    """The config under the same choices of files, without any other override."""
    names = groups(loader)
    try:
        return compose(loader, [o for o in overrides if o.partition("=")[0] in names and "," not in o])
    except (HydraException, OmegaConfBaseException):
        return None


def _raised_in(error: BaseException) -> str:
    """Top package of the innermost frame of a traceback."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0]


def _short(name: str) -> str:
    """A file's path from the current folder where it lies below it."""
    path = Path(str(name).strip('"'))
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
