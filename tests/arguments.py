"""What a class or function takes, as Python sees it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints


def arguments_of(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Its parameters; in place of `**block: Unpack[A TypedDict]` the keys of that, by keyword and without defaults."""
    found: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            found[name] = parameter
            continue
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
        keys = [key for keys in getattr(hints.get(name), "__args__", ()) for key in keys.__annotations__]
        found |= {key: inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY) for key in keys} or {name: parameter}
    return found
