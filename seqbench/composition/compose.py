"""Hydra's composition, for the command line and for the planning of a study alike."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from omegaconf import DictConfig

from seqbench.composition.guard import GuardedLoader
from seqbench.config import Names
from seqbench.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CONFIG_NAME = "train"


def config_loader(extra: str | None = None) -> ConfigLoader:
    """That of our application if it is running, else one over configs/ and a folder of the user's."""
    if GlobalHydra().is_initialized():
        loader: ConfigLoader = GlobalHydra.instance().config_loader()
        if isinstance(loader, GuardedLoader):
            return loader
    version.setbase("1.3")
    return own_loader(extra)


def own_loader(extra: str | None = None) -> GuardedLoader:
    """One over configs/ and a folder of the user's, whatever application is running.

    Raises ConfigError for a folder that isn't there.
    """
    find_plugins()
    setup_globals()
    search_path = create_config_search_path(str(CONFIGS))
    if extra is not None:
        if not Path(extra).is_dir():
            raise ConfigError(f"--config-dir: {extra!r} not found; it is a folder of configs, as configs/ is one")
        search_path.prepend("command-line", f"file://{Path(extra).absolute()}", SearchPathQuery(provider="schema"))
    return GuardedLoader(search_path)


def find_plugins() -> None:
    """Let Hydra look for its plugins where Python's packages are installed, and in this repository.

    It imports every module of a folder `hydra_plugins` anywhere on the path, so also one that lies beside somebody's
    config files in the working directory. Looks once in a process.
    """
    before = list(sys.path)
    here, ours = Path.cwd().resolve(), CONFIGS.parent
    sys.path[:] = [p for p in before if Path(p).resolve() != here or here == ours]
    try:
        Plugins.instance()
    finally:
        sys.path[:] = before


def compose(loader: ConfigLoader, overrides: list[str]) -> DictConfig:
    """The config of configs/train.yaml with overrides, Hydra's own part included. Raises Hydra's errors."""
    return loader.load_configuration(CONFIG_NAME, overrides, run_mode=RunMode.RUN)


def names_of(choices: Mapping[str, Any]) -> Names:
    """Which files were chosen, from `hydra.runtime.choices`. Raises ConfigError for a group without one."""
    for name, field in Names.model_fields.items():
        if field.is_required() and choices.get(name) is None:
            raise ConfigError(f"{name}: nothing is chosen; {name}=NAME, --help lists the names")
    return Names.model_validate({name: choices.get(name) for name in Names.model_fields})


def options(loader: ConfigLoader, group: str) -> list[str]:
    """Names of a group's files, those in folders below as `folder/name`."""
    names = list(loader.get_group_options(group, ObjectType.CONFIG))
    for folder in loader.get_group_options(group, ObjectType.GROUP):
        names += [f"{folder}/{name}" for name in options(loader, f"{group}/{folder}")]
    return sorted(names)


def groups(loader: ConfigLoader) -> list[str]:
    """Names of the top-level groups."""
    return sorted(loader.list_groups(""))
