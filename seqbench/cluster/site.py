"""What a cell's job asks of the cluster: the launcher's config, the user's site file, what is typed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import platformdirs
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from seqbench.composition.explain import explain, join
from seqbench.errors import ConfigError

VARIABLE = "SEQBENCH_SITE"
PREFIX = "hydra.launcher"
Name = Annotated[str, Field(pattern=r"\A[\w.,:@+=&|*()\[\]-]+\z")]  # a word of sbatch's, nothing for a shell
Line = Annotated[str, Field(pattern=r"\A[^\n]*\z")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Site(_Part):
    """The site file's own keys: the only ones that name commands. No config file can set them, nor can a command line.

    Beside them it may have any key of `Settings`.
    """

    options: list[Line] = []  # further options of sbatch, a word each: "--mail-type=FAIL"
    before: list[Line] = []  # lines of bash before a cell: modules, an environment
    command: list[Line] = []  # in front of the interpreter, a word each: a container's
    python: Line | None = None  # the interpreter; None: the one that submits


class Settings(_Part):
    """configs/hydra/launcher/slurm.yaml: numbers, and names that go to sbatch as they are."""

    partition: Name | None
    account: Name | None
    qos: Name | None
    constraint: Name | None
    memory: Annotated[int, Field(gt=0)] | None
    nodes: Annotated[int, Field(gt=0)]
    tasks: Annotated[int, Field(gt=0)]
    cpus: Annotated[int, Field(gt=0)]
    gpus: Annotated[int, Field(ge=0)] | Name | None
    minutes: Annotated[int, Field(gt=0)]
    warning: Annotated[int, Field(gt=0, le=65535)]
    requeues: Annotated[int, Field(ge=0)]
    at_once: Annotated[int, Field(gt=0)]
    wait: bool
    poll: Annotated[float, Field(gt=0)]

    @property
    def ranks(self) -> int:
        """Processes of a cell."""
        return self.nodes * self.tasks


def site_path() -> Path | None:
    """The file that SEQBENCH_SITE names, else the user's `seqbench/site.yaml`, if there is one.

    Raises ConfigError where the variable names none.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not Path(named).is_file():
            raise ConfigError(f"{VARIABLE}: {named} is no file; docs/cluster.md says what it holds")
        return Path(named)
    path = platformdirs.user_config_path("seqbench") / "site.yaml"
    return path if path.is_file() else None


def read(launcher: Mapping[str, Any], typed: Sequence[str]) -> tuple[Settings, Site]:
    """Settings and site: what is `typed` (`hydra.launcher.minutes=20`) beats the site file, which beats `launcher`.

    Raises ConfigError for a key or a value that can't be, with the file's name.
    """
    given = {str(key): value for key, value in launcher.items() if key != "_target_"}
    _model(Settings, given, PREFIX, known=list(Settings.model_fields))
    words = {text.lstrip("+").partition("=")[0] for text in typed}
    path, own = site_path(), {}
    if path is not None:
        try:
            content = yaml.safe_load(path.read_text()) or {}
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from None
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: is no mapping of keys to values; docs/cluster.md shows one")
        own = {key: value for key, value in content.items() if key in Site.model_fields}
        rest = {str(key): value for key, value in content.items() if key not in own}
        _model(Settings, {**given, **rest}, str(path), known=[*Settings.model_fields, *Site.model_fields])
        given |= {key: value for key, value in rest.items() if f"{PREFIX}.{key}" not in words}
    site: Site = _model(Site, own, str(path), known=list(Site.model_fields))
    settings: Settings = _model(Settings, given, PREFIX, known=list(Settings.model_fields))
    if settings.warning >= settings.minutes * 60:
        raise ConfigError(
            f"{PREFIX}.warning: {settings.warning} seconds are not less than the {settings.minutes} minutes of a job"
        )
    return settings, site


def _model(kind: Any, content: Mapping[str, Any], where: str, *, known: list[str]) -> Any:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        lines = explain(error, "", dict(content), lambda names: [] if names else known)
        raise join([f"{where}: {line}" for line in lines]) from None
