"""Settings of a command that is no training: a file of defaults, and `key=value` on top."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from seqbench.errors import ConfigError

Settings = TypeVar("Settings", bound=BaseModel)


def read(model: type[Settings], defaults: Path, overrides: Sequence[str], *, texts: Collection[str] = ()) -> Settings:
    """The defaults with overrides; the keys of `texts` are taken as they are typed, though they may look like numbers.

    Raises ConfigError: no key=value, an unknown key, a wrong type or choice.
    """
    import yaml

    given: dict[str, Any] = yaml.safe_load(defaults.read_text(encoding="utf-8"))
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"{override!r} is not key=value; --help lists the keys")
        load: Callable[[str], Any] = _text if key in texts else _value
        try:
            given[key] = load(value) if value else None
        except yaml.YAMLError:
            raise ConfigError(f"{key}: {value!r} can't be read; write a list as [a,b]") from None
    try:
        return model.model_validate(given)
    except ValidationError as error:
        from seqbench.composition.explain import explain, join

        raise join(explain(error, "", given, lambda _: model.model_fields)) from None


def _text(value: str) -> Any:
    """Text, null, or a list of texts: an id such as 12345678 or 1e10 is no number."""
    import yaml

    return None if value == "null" else yaml.load(value, yaml.BaseLoader)


def _value(value: str) -> Any:
    """As YAML has it; and 1e-3, which YAML takes for text."""
    import yaml

    found = yaml.safe_load(value)
    if isinstance(found, str):
        try:
            return float(found)
        except ValueError:
            return found
    return found


def config_dir(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The folder after --config-dir, and what else there is. Raises ConfigError for a folder that isn't there."""
    folder, rest, given = None, [], iter(arguments)
    for argument in given:
        name, equals, value = argument.partition("=")
        if name not in ("--config-dir", "-cd"):
            rest.append(argument)
            continue
        folder = value if equals else next(given, "")
        if not Path(folder).is_dir() or not folder:
            raise ConfigError(f"--config-dir: {folder!r} is no folder; name the one that has your configs")
    return folder, rest
