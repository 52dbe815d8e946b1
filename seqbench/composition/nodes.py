"""One node of a config, an encoder's or a task's, composed from the files that the command line reads."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from seqbench.composition.complaints import complaint
from seqbench.composition.compose import groups, own_loader
from seqbench.composition.schema import Node
from seqbench.errors import ConfigError

MISSING = "???"
_LOCK = threading.Lock()  # Hydra's version base belongs to the whole process


def compose_node(
    group: str,
    name: str,
    overrides: Sequence[str] = (),
    *,
    changes: Mapping[str, Any] | None = None,
    config_dir: str | None = None,
) -> Node:
    """What `encoder=lstm` puts at `encoder`, as plain values: a file of configs/ with its defaults.

    `overrides` are written as on the command line (`encoder.dim=64`, `own_data@task.data=hub`). `changes` are values
    by the node's own keys; a mapping is merged into the one that it meets, unless it has a `_target_`: then it takes
    its place. `config_dir` is a folder of the user's, as `--config-dir`. What no file knows stays `???`.

    Files are read anew at each call, which takes 5 to 15 ms. A Hydra application that is running is left as it is.
    Raises ConfigError: no such group, file or key, an override that can't be read.
    """
    chosen = f"{group}={name}"
    with _LOCK, _version_base("1.3"):
        loader = own_loader(config_dir)
        if group not in groups(loader):
            raise ConfigError(f"{group}: there is no such group of configs; use encoder or task")
        try:
            cfg = _compose(loader, [f"+{chosen}", *overrides])
            tree: Any = OmegaConf.to_container(cfg)
            if changes:
                tree = {**tree, group: merged(tree[group], changes)}
            tree = OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
        except Exception as error:
            text = complaint(error, [chosen, *overrides], loader)
            if text is None:
                raise
            raise ConfigError(text) from None
    node: Node = tree[group]
    return node


def merged(node: Mapping[str, Any], changes: Mapping[str, Any]) -> Node:
    """A node with changes, as `compose_node` takes them."""
    result = dict(node)
    for key, new in changes.items():
        old = result.get(key)
        fits = isinstance(old, Mapping) and isinstance(new, Mapping) and "_target_" not in new
        result[key] = merged(old, new) if fits else new  # type: ignore[arg-type]
    return result


def missing_keys(node: Any, path: str = "") -> list[str]:
    """Dotted keys of a node that wait for a value."""
    if node == MISSING:
        return [path]
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [found for key, value in items for found in missing_keys(value, f"{path}.{key}" if path else str(key))]


def _compose(loader: ConfigLoaderImpl, overrides: list[str]) -> DictConfig:
    """As `loader.load_configuration(None, overrides)`, without Hydra's own part, which takes most of the time."""
    repository = CachingConfigRepository(loader.repository)
    parsed = OverridesParser.create().parse_overrides(overrides)
    loader.validate_sweep_overrides_legal(overrides=parsed, run_mode=RunMode.RUN, from_shell=True)
    defaults = create_defaults_list(
        repo=repository, config_name=None, overrides_list=parsed, prepend_hydra=False, skip_missing=False
    )
    cfg = loader._compose_config_from_defaults_list(defaults=defaults.defaults, repo=repository)
    OmegaConf.set_struct(cfg, True)
    ConfigLoaderImpl._apply_overrides_to_config(defaults.config_overrides, cfg)
    return cfg


@contextmanager
def _version_base(base: str) -> Iterator[None]:
    """Hydra's behaviour of a version, then again that of the application that is running, if any."""
    before = version.VersionBase.instance().getbase()
    version.setbase(base)
    try:
        yield
    finally:
        version.VersionBase.instance().version_base = before
