"""A config node `{_target_: package.module.Class, ...}` held against its target's signature, before any import."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
from collections.abc import Collection, Sequence
from typing import Any, NotRequired, Required, get_type_hints

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from seqbench.composition.explain import explain, join, show
from seqbench.composition.hints import parts_of
from seqbench.composition.signature import Signature, Unreadable, read_signature
from seqbench.composition.source import NoTarget, is_there, suggest
from seqbench.errors import ConfigError

Node = dict[str, Any]


def check(
    node: Any, path: str, allowed: Sequence[str], *, kind: str | None = None, runtime: Collection[str] = ()
) -> Node:
    """The node with its values in their final types (1 for a float becomes 1.0), all nested nodes included.

    `path` is the node's dotted key, `allowed` the packages that a target may come from, `kind` the dotted name of a
    class that it must descend from, `runtime` the arguments that the run gives. Nothing is imported if the source
    says enough. Raises ConfigError with every mistake found, two of them written out.
    """
    checked, mistakes = examine(node, path, allowed, kind=kind, runtime=runtime)
    if mistakes:
        raise join(mistakes)
    return checked


def examine(
    node: Any, path: str, allowed: Sequence[str], *, kind: str | None = None, runtime: Collection[str] = ()
) -> tuple[Node, list[str]]:
    """As check(), with the mistakes as lines in place of an error."""
    mistakes: list[str] = []
    return _check(node, path, tuple(allowed), {kind} if kind else None, frozenset(runtime), mistakes), mistakes


def _keys(hints: dict[str, Any], names: list[str]) -> Collection[str]:
    return [] if names else hints


def is_allowed(name: str, allowed: Sequence[str]) -> bool:
    """Whether a dotted name stands under one of the packages; `encoders` does not cover `encoders_of_mine`."""
    return any(name == package or name.startswith(package + ".") for package in allowed)


def forbidden(target: str, path: str, allowed: Sequence[str]) -> str:
    """The sentence about a target outside the allowed packages."""
    package = target.split(".")[0]
    near = suggest(package, sorted({name.split(".")[0] for name in allowed}))
    if near.startswith(" (") and not is_there(package):  # nothing to trust: a slip of the pen
        return f"{path}._target_: {target} is not in a package that configs may use ({', '.join(allowed)}){near}"
    return (
        f"{path}._target_: {target} is not in a package that configs may use ({', '.join(allowed)}); "
        f"if you trust it: allowed=[{','.join([*allowed, package])}]"
    )


def signature_of(target: str, path: str, allowed: Sequence[str]) -> Signature:
    """The signature of an allowed target, read from its source, else by importing it. Raises ConfigError."""
    if not is_allowed(target, allowed):
        raise ConfigError(forbidden(target, path, allowed))
    try:
        signature = read_signature(target)
    except NoTarget as error:
        raise ConfigError(f"{path}._target_: {error}") from None
    except Unreadable as error:
        if not is_allowed(str(error), allowed):
            raise ConfigError(forbidden(str(error), path, allowed)) from None
        signature = _by_import(target, path)
    if not is_allowed(signature.name, allowed):
        raise ConfigError(forbidden(signature.name, path, allowed))
    return signature


def _check(
    node: Any,
    path: str,
    allowed: tuple[str, ...],
    kinds: set[str] | None,
    runtime: frozenset[str],
    mistakes: list[str],
) -> Node:
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        mistakes.append(f"{path}: {show(node)} is no node; it needs a _target_, the dotted name of a class")
        return {}
    for key in node:
        if str(key).startswith("_") and key != "_target_":
            mistakes.append(f"{path}.{key}: not allowed; a node has a _target_ and the arguments of its constructor")
            return {}
    try:
        signature = signature_of(node["_target_"], path, allowed)
    except ConfigError as error:
        mistakes.append(str(error))
        return {}
    if signature.ancestors is None:
        made = " or ".join(sorted(kind.rpartition(".")[2] for kind in kinds)) if kinds else "part"
        mistakes.append(f"{path}._target_: {node['_target_']} is a function; give the class of the {made}")
        return {}
    if kinds and not kinds & signature.ancestors:
        names = " or ".join(sorted(kind.rpartition(".")[2] for kind in kinds))
        mistakes.append(f"{path}._target_: {node['_target_']} is not {'an' if names[0] in 'AEIOU' else 'a'} {names}")
        return {}
    given = {str(key): value for key, value in node.items() if key != "_target_"}
    hints = {key: hint for key, hint in signature.hints.items() if key not in runtime}
    try:
        values = _adapter(signature.name, runtime).validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        mistakes += explain(error, path, given, functools.partial(_keys, hints))
        values = given
    except (TypeError, ValueError) as error:
        mistakes.append(f"{path}: {error}")
        return {}
    checked: Node = {"_target_": node["_target_"]}
    for key, value in values.items():
        parts = parts_of(hints[key]) if key in hints else None
        checked[key] = _nested(value, f"{path}.{key}", allowed, parts, runtime, mistakes)
    return checked


def _nested(
    value: Any,
    path: str,
    allowed: tuple[str, ...],
    kinds: set[str] | None,
    runtime: frozenset[str],
    mistakes: list[str],
) -> Any:
    if isinstance(value, dict):
        if "_target_" in value:
            return _check(value, path, allowed, kinds, runtime, mistakes)
        return {key: _nested(item, f"{path}.{key}", allowed, kinds, runtime, mistakes) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nested(item, f"{path}.{i}", allowed, kinds, runtime, mistakes) for i, item in enumerate(value)]
    return value


@functools.lru_cache(maxsize=1024)
def _adapter(name: str, runtime: frozenset[str]) -> TypeAdapter[Any]:
    """What pydantic makes of a signature. A TypedDict, for no argument's name can clash with a method then."""
    signature = _read_again(name)
    fields = {
        key: Required[hint] if key in signature.required else NotRequired[hint]
        for key, hint in signature.hints.items()
        if key not in runtime
    }
    made = TypedDict("made", fields)  # type: ignore[misc]
    made.__pydantic_config__ = ConfigDict(  # type: ignore[attr-defined]
        extra="allow" if signature.open else "forbid", allow_inf_nan=False, arbitrary_types_allowed=True
    )
    return TypeAdapter(made)


_imported: dict[str, Signature] = {}


def _read_again(name: str) -> Signature:
    return _imported[name] if name in _imported else read_signature(name)


def _by_import(target: str, path: str) -> Signature:
    """The signature of a target that its source does not show (a class made by a function), by importing it."""
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{path}._target_: {target} can't be imported: {error}") from None
    if not callable(found):
        raise ConfigError(f"{path}._target_: {target} is neither a class nor a function")
    function = found.__init__ if inspect.isclass(found) else found
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        hints = {}
    try:
        every = inspect.signature(found).parameters.values()
    except ValueError:
        raise ConfigError(f"{path}._target_: {target} does not say which arguments it takes") from None
    parameters = [p for p in every if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    taken = {p.name: _plain(hints.get(p.name, Any)) for p in parameters}
    taken = {key: hint for key, hint in taken.items() if getattr(hint, "__name__", "") != "InputSpec"}
    signature = Signature(
        name=f"{found.__module__}.{found.__qualname__}",
        hints=taken,
        required=frozenset(p.name for p in parameters if p.default is p.empty and p.name in taken),
        open=any(p.kind == p.VAR_KEYWORD for p in every),
        ancestors=frozenset(f"{c.__module__}.{c.__qualname__}" for c in found.__mro__)
        if inspect.isclass(found)
        else None,
    )
    _imported[signature.name] = signature
    return signature


def _plain(hint: Any) -> Any:
    """A type that pydantic can check, else Any: parts are nodes here, not objects."""
    if getattr(hint, "__name__", "") == "InputSpec":
        return hint
    try:
        TypeAdapter(hint)
    except PydanticSchemaGenerationError:
        return Any
    return hint
