"""Annotations of a constructor, read with ast, as types that pydantic checks values against."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from seqbench.composition.source import Module, find, resolve

_SIMPLE: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool, "None": None, "Any": Any, "Path": str}
_LISTS = {"list", "List", "Sequence", "Iterable", "Collection", "set", "frozenset", "MutableSequence"}
_DICTS = {"dict", "Dict", "Mapping", "MutableMapping"}
_FREE = {"Callable", "type", "Type", "object"}  # nothing that a config could be checked against


@dataclass(frozen=True)
class Part:
    """The type of an argument that is an object: a config gives it as a node with a `_target_` of its own."""

    name: str  # dotted name of the class

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def _check(self, value: Any) -> Any:
        if isinstance(value, dict) and "_target_" in value:
            return value
        raise PydanticCustomError("part", "{name}", {"name": self.name.rpartition(".")[2]})


def read_hint(node: ast.AST | None, module: Module) -> Any:
    """The type that an annotation in a module stands for; Any where it says nothing about a config.

    An object is `Annotated[Any, Part(its class)]`; unions, literals and bounds are kept.
    """
    if node is None:
        return Any
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return read_hint(ast.parse(node.value, mode="eval").body, module)
        return None if node.value is None else Any
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([read_hint(node.left, module), read_hint(node.right, module)])
    if isinstance(node, ast.Subscript):
        return _subscript(node, module)
    if isinstance(node, ast.Name | ast.Attribute):
        return _named(node, module)
    return Any


def parts_of(hint: Any) -> set[str] | None:
    """Dotted names of the classes that an object at this place may be of; None where any may stand."""
    if hint is Any:
        return None
    marks = getattr(hint, "__metadata__", ())
    found = {mark.name for mark in marks if isinstance(mark, Part)}
    if found:
        return found
    for inner in (hint.__origin__,) if marks else getattr(hint, "__args__", ()):
        deeper = parts_of(inner)
        if deeper is None:
            return None
        found |= deeper
    return found


def is_runtime(hint: Any) -> bool:
    """Whether an argument is given by the run and never by a config: an InputSpec."""
    return any(name.rpartition(".")[2] == "InputSpec" for name in parts_of(hint) or ())


def _last(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _union(hints: list[Any]) -> Any:
    return Any if any(hint is Any for hint in hints) else Union[tuple(hints)]  # noqa: UP007 -- made at run time


def _named(node: ast.Name | ast.Attribute, module: Module) -> Any:
    last = _last(node)
    if isinstance(node, ast.Name) and node.id in module.names:
        definition = module.names[node.id]
        if not isinstance(definition, ast.ClassDef | ast.FunctionDef):
            return read_hint(definition, module)  # an alias: Size = Annotated[int, Field(gt=0)]
    elif last in _SIMPLE:
        return _SIMPLE[last]
    elif last in _LISTS:
        return list[Any]
    elif last in _DICTS:
        return dict[str, Any]
    elif last == "tuple":
        return list[Any]
    elif last in _FREE:
        return Any
    name, found = resolve(module, node)
    if found is not None and isinstance(found[1], ast.ClassDef):
        return Annotated[Any, Part(name)]
    if found is not None and not isinstance(found[1], ast.FunctionDef):
        return read_hint(found[1], found[0])
    return Annotated[Any, Part(name)] if last == "InputSpec" else Any


def _subscript(node: ast.Subscript, module: Module) -> Any:
    base = _last(node.value)
    inner = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
    if base == "Literal":
        values = [value for value in (_constant(item, module) for item in inner) if value is not ...]
        return Literal[tuple(values)] if values else Any
    if base == "Annotated":
        hint = read_hint(inner[0], module)
        marks = [mark for mark in (_field(item, module) for item in inner[1:]) if mark is not None]
        return Annotated[(hint, *marks)] if marks else hint
    hints = [read_hint(item, module) for item in inner]
    if base == "Optional":
        return _union([hints[0], None])
    if base == "Union":
        return _union(hints)
    if base in _LISTS:
        return list[hints[0]]  # type: ignore[valid-type]
    if base in _DICTS:
        return dict[str, hints[1]] if len(hints) > 1 else dict[str, Any]  # type: ignore[valid-type]
    if base == "tuple":
        if len(inner) == 2 and isinstance(inner[1], ast.Constant) and inner[1].value is ...:
            return list[hints[0]]  # type: ignore[valid-type]
        return tuple[tuple(hints)]  # type: ignore[misc]
    if base in _FREE:
        return Any
    return _named(node.value, module) if isinstance(node.value, ast.Name | ast.Attribute) else Any


def _field(node: ast.AST, module: Module) -> Any:
    """The bounds of `Field(gt=0)`; what can't be read is left out."""
    if not (isinstance(node, ast.Call) and _last(node.func) == "Field"):
        return None
    given = {word.arg: _constant(word.value, module) for word in node.keywords if word.arg}
    return Field(**{key: value for key, value in given.items() if value is not ...})


def _constant(node: ast.AST, module: Module) -> Any:
    """A literal, or a top-level constant of a module by name; ... for anything else."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        found = find(module, node.id) if isinstance(node, ast.Name) else None
        return ... if found is None else _constant(found[1], found[0])
