"""What a config file may not do: give Hydra classes or logging, allow packages, send records away, read variables.

Hydra itself instantiates callbacks, sweeper, launcher and loggers from its part of a config, and any file of any group
can write there. So every composition of ours, in this process or a launcher's, goes through the loader of this file.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository, IConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import GroupDefault, ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from seqbench.errors import ConfigError
from seqbench.garbage import uncollected

RESERVED = ("hydra", "allowed", "mirror")
PLUGINS = {
    "sweeper": (
        "hydra_plugins.seqbench_study.StudySweeper",
        "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    ),
    "launcher": (
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "seqbench.cluster.launcher.Slurm",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    ),
}
LOGGING = (  # what Python's dictConfig may make; it takes any callable, and imports what `ext://` names
    "logging.StreamHandler",
    "logging.FileHandler",
    "logging.NullHandler",
    "logging.Formatter",
    "colorlog.ColoredFormatter",
)
PLAIN = re.compile(r"(?!(null|true|false)$)[a-z_][a-z0-9_]*", re.IGNORECASE)  # names that are texts as they stand
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
RESOLVERS = ("oc.select",)  # what `${name:...}` may call in a file; oc.env would put the environment into a record
HYDRAS = ("hydra", "now")  # in files of Hydra's groups, too
Kept = dict[tuple[str, str], ConfigResult | None]  # (where it was looked for, path) -> file
INSTALLED = ("pkg://hydra", "structured://")  # where Hydra's own files come from


class _Cache(CachingConfigRepository):
    """Hydra's cache of a composition, which does not copy all that Hydra knows first: that takes longer than the rest.

    Hydra copies because a search path that is typed changes what the repository reads from; here it gets another.
    """

    def __init__(self, delegate: IConfigRepository, kept: Kept | None = None) -> None:
        self.delegate, self.cache = delegate, {}
        self.kept = kept  # files of earlier compositions
        self.place = ""  # where files are looked for, if not where the loader itself does

    def load_config(self, config_path: str) -> ConfigResult | None:
        """A file; read once for all compositions where they are kept, a copy for each, since composing changes it."""
        if self.kept is None or f"config_path={config_path}" in self.cache:
            return super().load_config(config_path)
        key = self.place, config_path
        if key not in self.kept:
            self.kept[key] = self.delegate.load_config(config_path=config_path)
        self.cache[f"config_path={config_path}"] = copy.deepcopy(self.kept[key])
        return super().load_config(config_path)

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        self.delegate = ConfigRepository(config_search_path)
        self.place = str(config_search_path)


class GuardedLoader(ConfigLoaderImpl):
    """Hydra's loader, which refuses with a ConfigError what only the command line and configs/train.yaml may say."""

    _kept: Kept | None = None
    _loaded: list[Reach] | None = None  # files of the latest composition

    @contextlib.contextmanager
    def keeping_files(self) -> Iterator[None]:
        """Read each config file once for all compositions in the block, as they are those of one command or plan."""
        before = self._kept
        self._kept = {} if before is None else before
        try:
            yield
        finally:
            self._kept = before

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """As Hydra's. Raises ConfigError, before anything of the config is instantiated, and Hydra's errors.

        Of a sweep Hydra composes a config that is no cell's, with the default task and encoder. A key that this one
        lacks is handed on to the planning, which holds it against each cell.
        """
        self._loaded = []
        with uncollected():
            return self._load(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)

    def stands_alone(self, group: str, name: str) -> bool:
        """Whether the latest composition has under a group's name what one file gives, and nothing else reaches there.

        Then another file of the group that has no defaults of its own changes what it gives and nothing else. A file
        that is chosen besides, which the group's own brings too, is something else: the other would not bring it. So
        are choices among its own defaults, of which a typed one may be.
        """
        loaded, path = self._loaded or [], f"{group}/{name}"
        own = {path}  # and what its defaults bring, in order
        for file in loaded[::-1] + loaded:
            own |= {file.path} if file.parent in own else set()
        mine = [file for file in loaded if file.path in own]
        brought = sum(file.path == path for file in mine) == 1
        brought = brought and all(file.path == path or file.parent in own for file in mine)
        within = all(file.sections == {group} and not file.chooses for file in mine)
        others = any(group in file.sections for file in loaded if file.path not in own)
        elsewhere = any(file.place for file in loaded)  # other files than the loader's own
        return brought and within and not others and not elsewhere and not any(file.depends for file in loaded)

    def reach(self) -> tuple[Reach, ...]:
        """The files of the latest composition, in order."""
        return tuple(self._loaded or ())

    def plain_file(self, group: str, name: str) -> Any | None:
        """What a file, with its defaults, gives to its group's package, as plain values.

        None where that takes a composition: where the file's defaults choose from other groups, so that an override
        may change it; where they reach elsewhere; where there is no such file. Raises ConfigError for a file that holds
        what files may not.
        """
        path, repository = f"{group}/{name}", _Cache(self.repository, self._kept)
        before, self._loaded = self._loaded, []
        try:
            with uncollected():
                found = repository.load_config(path)
                if found is None or found.header.get("package") is not None or not PLAIN.fullmatch(name):
                    return None
                alone = [ResultDefault(config_path=path, parent=None, package=group)]
                files = self._brought(group, name, repository) if found.defaults_list else alone
                if files is None:
                    return None
                cfg = self._compose_config_from_defaults_list(defaults=files, repo=repository)
                tree = OmegaConf.to_container(cfg, resolve=False)
            depends = any(file.depends for file in self._loaded)
        finally:
            self._loaded = before
        return tree[group] if isinstance(tree, dict) and list(tree) == [group] and not depends else None

    def _brought(self, group: str, name: str, repository: _Cache) -> list[ResultDefault] | None:
        """A file of a group and its defaults, in order; None where there is a choice among them, or a mistake."""
        chosen = OverridesParser.create().parse_override(f"+{group}={name}")
        try:
            listed = create_defaults_list(
                repo=repository, config_name=None, overrides_list=[chosen], prepend_hydra=False, skip_missing=False
            )
        except ConfigCompositionException:  # which the whole composition tells with where it is
            return None
        return listed.defaults if set(listed.overrides.known_choices) == {group} else None

    def _load(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool,
        validate_sweep_overrides: bool,
    ) -> DictConfig:
        try:
            cfg = super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        except ConfigCompositionException:
            if run_mode != RunMode.MULTIRUN:
                raise
            parsed = OverridesParser.create().parse_overrides(overrides)
            groups = set(self.list_groups(""))
            kept = [o for o in parsed if o.is_hydra_override() or o.key_or_group.partition("/")[0] in groups]
            lines = [str(o.input_line) for o in kept]
            self._loaded = []
            cfg = super().load_configuration(config_name, lines, run_mode, from_shell, validate_sweep_overrides)
            cfg.hydra.overrides.task = [str(o.input_line) for o in parsed if not o.is_hydra_override()]
        self._check_choices(config_name, cfg, overrides)
        check_hydra(cfg.hydra)
        return cfg

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        parsed, repository = OverridesParser.create().parse_overrides(overrides), _Cache(self.repository, self._kept)
        self._process_config_searchpath(config_name, parsed, repository)
        return parsed, repository

    def _load_single_config(self, default: ResultDefault, repo: Any) -> ConfigResult:
        result = super()._load_single_config(default, repo)
        path = default.config_path or ""
        if self._loaded is not None:
            self._loaded.append(_reach(default, result, repo.place if isinstance(repo, _Cache) else ""))
        if default.primary or path == "hydra/config" or not isinstance(result.config, DictConfig):
            return result
        if not result.path.startswith(INSTALLED):
            known = (*RESOLVERS, *HYDRAS) if path.startswith("hydra/") else RESOLVERS
            check_resolvers(f"{path}.yaml", OmegaConf.to_container(result.config, resolve=False), known)
        parent = default.parent or ""  # of a choice, which _check_choices looks at: hydra/config
        mine = ("hydra",) if path.startswith("hydra/") and parent.startswith(("hydra/", "<root>")) else ()
        for key in RESERVED:
            if key in result.config and key not in mine:
                raise ConfigError(reserved(f"{path}.yaml", key))
        return result

    def _check_choices(self, config_name: str | None, cfg: DictConfig, overrides: list[str]) -> None:
        """Files of Hydra's groups are chosen by configs/train.yaml and by what is typed, by no other file."""
        parser = OverridesParser.create()
        typed = {override.key_or_group for override in parser.parse_overrides(overrides)}
        known = self._own_choices(config_name)
        for group, name in cfg.hydra.runtime.choices.items():
            if group.startswith("hydra/") and group not in typed and known.get(group) != name:
                raise ConfigError(f"{group}: {name} is chosen by a config file; {type_it(f'{group}={name}')}")

    def _file(self, path: str) -> ConfigResult | None:
        """A file that nobody changes."""
        if self._kept is not None and ("", path) in self._kept:
            return self._kept["", path]
        return self.repository.load_config(config_path=path)

    def _own_choices(self, config_name: str | None) -> dict[str, Any]:
        """What is chosen of Hydra's groups without any file but the primary one."""
        primary = self._file(config_name) if config_name else None
        choices: dict[str, Any] = {
            "hydra/env": "default",
            "hydra/callbacks": None,
            "hydra/job_logging": "default",
            "hydra/hydra_logging": "default",
            "hydra/hydra_help": "default",
            "hydra/help": "default",
            "hydra/sweeper": "basic",
            "hydra/launcher": "basic",
            "hydra/output": "default",
        }
        for default in (primary.defaults_list if primary else None) or ():
            group = str(getattr(default, "group", None) or "").removeprefix("/")
            if group.startswith("hydra/"):
                choices[group] = default.value  # type: ignore[attr-defined]
        return choices


@dataclass(frozen=True, slots=True)
class Reach:
    """A file of a composition, and where it reaches."""

    path: str
    parent: str
    package: str
    sections: frozenset[str]  # at the top of the config, where it writes
    chooses: bool  # its defaults choose from groups, which an override may change
    depends: bool  # its defaults refer to choices, or change those of other files
    place: str  # the search path, where it isn't the loader's


def _reach(default: ResultDefault, result: ConfigResult, place: str) -> Reach:
    items = result.defaults_list or ()
    package = default.package or ""
    keys = [str(key) for key in result.config] if isinstance(result.config, DictConfig) else []
    return Reach(
        path=default.config_path or "",
        parent=default.parent or "",
        package=package,
        sections=frozenset([*keys, package.partition(".")[0]]) - {""},
        chooses=any(isinstance(item, GroupDefault) for item in items),
        depends=any("${" in str(vars(item)) or (item.is_override() and not default.primary) for item in items),
        place=place,
    )


def reserved(where: str, key: str) -> str:
    """Two lines about a file that sets what it may not."""
    what, form = {
        "allowed": ("which packages may run", "allowed=[encoders,tasks,torch.optim,my_package]"),
        "mirror": ("where records are sent", "mirror=s3://bucket/prefix"),
        "hydra": ("how Hydra itself works", "hydra/launcher=submitit_slurm"),
    }[key]
    return (
        f"{where}: {key}: only the command line and configs/train.yaml say {what}\n"
        f"take it out of the file; if you trust what it names, type it yourself, as {form}"
    )


def check_resolvers(where: str, node: Any, known: tuple[str, ...] = RESOLVERS) -> None:
    """Raise ConfigError for a text that calls a resolver which isn't `known`, before anything is resolved.

    `node` is plain: a mapping, a list or a text, with all that is in it.
    """
    for path, _, value in _leaves({"": node}, ""):
        if isinstance(value, str) and (call := called(value, known)):
            key = path.strip(".")
            raise ConfigError(
                f"{where}: {f'{key}: ' if key else ''}{call} calls a resolver, which files may not (it could read "
                "secrets of the environment into a record)\n"
                "write the value itself, or a reference such as ${encoder.dim}; if you need it, type it: key='${...}'"
            )


def called(text: str, known: tuple[str, ...] = RESOLVERS) -> str | None:
    """The first `${name:` in a text that isn't known, also where the name is put together of references; else None."""
    while (shorter := re.sub(r"\$\{[^:${}]*\}", "?", text)) != text:  # references, from within; "?" is in no name
        text = shorter
    for found in re.finditer(r"\$\{\s*([^:${}]*?)\s*(?:[:${}]|$)", text):
        if found[1] not in known or not found[0].endswith(":"):
            return found[0][:60]
    return None


def type_it(text: str) -> str:
    """The advice for what only the command line may say."""
    return f"if you trust it, type it yourself: {text}"


def reserved_key(override: Override) -> str | None:
    """The reserved key that an override sets, or something below it, or where it puts a file; else None."""
    for place in (override.key_or_group, override.package or ""):
        for key in RESERVED:
            if place.removeprefix("_global_.").lstrip("/").replace("/", ".").split(".")[0] == key:
                return key
    return None


def check_hydra(node: DictConfig) -> None:
    """Raise ConfigError for a class in Hydra's part of a config that isn't one of those that we know."""
    tree = OmegaConf.to_container(node, resolve=False)
    assert isinstance(tree, dict)
    if tree.get("callbacks"):
        raise ConfigError("hydra.callbacks: not allowed; Hydra would run them unchecked")
    for path, key, value in _leaves(tree, "hydra"):
        if key == "_target_":
            kind = path.removeprefix("hydra.").removesuffix("._target_")
            if value not in PLUGINS.get(kind, ()):
                names = [name.rpartition(".")[2] for name in PLUGINS.get(kind, ())]
                choice = f"; it takes {', '.join(names)}" if names else ""
                raise ConfigError(f"{path}: {value} is not allowed{choice}")
        elif path.startswith(("hydra.job_logging.", "hydra.hydra_logging.")):
            text = str(value)
            if key in ("()", "class", "factory") and text not in LOGGING:
                raise ConfigError(f"{path}: {text} is not allowed; it takes {', '.join(LOGGING)}")
            if ("ext://" in text and text not in STREAMS) or "cfg://" in text:
                raise ConfigError(f"{path}: {text} is not allowed; it takes {' or '.join(STREAMS)}")


def _leaves(node: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(value, dict | list) and value:
            yield from _leaves(value, f"{path}.{key}")
        if not isinstance(value, dict | list) or key in ("_target_", "()", "class"):
            yield f"{path}.{key}", str(key), value
