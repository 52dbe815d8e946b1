"""The signature of a `_target_`, read from its source: keys and types are checked before torch is imported."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from seqbench.composition.hints import is_runtime, read_hint
from seqbench.composition.source import Module, NoTarget, find, read_module, resolve, split, suggest

# Ancestors that take no arguments of a config; where the search for an __init__ ends.
_PLAIN = {"object", "abc.ABC", "typing.Generic", "typing.Protocol", "torch.nn.Module", "torch.nn.modules.module.Module"}


class Unreadable(LookupError):
    """A target whose source does not say its arguments; only importing it can tell. The text is its defining name."""


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a config node of this target may hold."""

    name: str  # dotted name of the definition, re-exports followed
    hints: dict[str, Any]  # argument -> type for pydantic
    required: frozenset[str]
    open: bool = False  # True: takes **kwargs, so further keys can't be judged
    ancestors: frozenset[str] | None = (
        None  # dotted names, itself included; of a function, of the class that it returns
    )


@functools.cache
def read_signature(target: str) -> Signature:
    """The signature of a class, a function or a class's method.

    Raises NoTarget where the name leads nowhere, Unreadable where only an import could tell.
    """
    module, rest = split(target)
    found = find(module, rest[0])
    if found is None:
        if rest[0] in module.imports:
            source, original = module.imports[rest[0]]
            raise Unreadable(".".join([source, *([original] if original else []), *rest[1:]]))
        defined = [name for name, node in module.names.items() if isinstance(node, ast.ClassDef | ast.FunctionDef)]
        if module.file.name == "__init__.py":
            defined += [name for name, (_, original) in module.imports.items() if original]
        public = sorted(name for name in defined if not name.startswith("_"))
        if not public:
            raise Unreadable(target)
        raise NoTarget(f"{module.name} has no {rest[0]}{suggest(rest[0], public, module.name + '.')}")
    owner, node = found
    if isinstance(node, ast.Name | ast.Attribute):  # Mine = Other
        owner, node = resolve(owner, node)[1] or found
    if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.Constant):
        raise Unreadable(f"{owner.name}.{rest[0]}")
    if len(rest) == 2 and isinstance(node, ast.ClassDef):
        method = next((m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == rest[1]), None)
        if method is None:
            raise Unreadable(target)
        static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in method.decorator_list)
        return _of_function(owner, method, f"{owner.name}.{node.name}.{method.name}", skip=not static)
    if len(rest) > 1 or not isinstance(node, ast.ClassDef | ast.FunctionDef):
        raise NoTarget(f"{target} is neither a class nor a function")
    if isinstance(node, ast.FunctionDef):
        return _of_function(owner, node, f"{owner.name}.{node.name}", skip=False)
    return _of_class(owner, node)


def _bases(module: Module, node: ast.ClassDef) -> Iterator[tuple[str, tuple[Module, ast.AST] | None]]:
    for base in node.bases:
        yield resolve(module, base.value if isinstance(base, ast.Subscript) else base)


def _lineage(module: Module, node: ast.ClassDef) -> tuple[list[tuple[Module, ast.ClassDef]], set[str]]:
    """The class and its ancestors that have a source, nearest first; and the names of those that have none."""
    line, unknown = [(module, node)], set()
    for name, found in _bases(module, node):
        if name in _PLAIN:
            continue
        if found is None or not isinstance(found[1], ast.ClassDef):
            unknown.add(name)
            continue
        more, missing = _lineage(found[0], found[1])
        line += [item for item in more if item not in line]
        unknown |= missing
    return line, unknown


def _of_class(module: Module, node: ast.ClassDef) -> Signature:
    line, unknown = _lineage(module, node)
    name = f"{module.name}.{node.name}"
    ancestors = frozenset(f"{m.name}.{c.name}" for m, c in line)
    for owner, parent in line:
        if any(_is_dataclass(d) for d in parent.decorator_list):
            hints: dict[str, Any] = {}
            required: set[str] = set()
            for m, c in reversed(line):
                for item in c.body:
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                        if "ClassVar" in ast.unparse(item.annotation):
                            continue
                        hints[item.target.id] = read_hint(item.annotation, m)
                        required -= {item.target.id}
                        required |= set() if item.value else {item.target.id}
            return _made(name, hints, required, False, ancestors)
        init = next((m for m in parent.body if isinstance(m, ast.FunctionDef) and m.name == "__init__"), None)
        if init is not None:
            return _of_function(owner, init, name, skip=True, ancestors=ancestors)
    if unknown:
        raise Unreadable(name)
    return Signature(name=name, hints={}, required=frozenset(), ancestors=ancestors)


def _is_dataclass(node: ast.expr) -> bool:
    node = node.func if isinstance(node, ast.Call) else node
    return (node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")) == "dataclass"


def _of_function(
    module: Module, node: ast.FunctionDef, name: str, *, skip: bool, ancestors: frozenset[str] | None = None
) -> Signature:
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    without_default = len(positional) - len(arguments.defaults)
    required = {a.arg for a in positional[:without_default]}
    required |= {a.arg for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is None}
    named = [*positional[1 if skip else 0 :], *arguments.kwonlyargs]
    hints = {a.arg: read_hint(a.annotation, module) for a in named}
    if ancestors is None:
        ancestors = _returned(module, node.returns)
    shared = _unpacked(module, arguments.kwarg)
    hints |= shared or {}
    required |= set(shared or {})
    return _made(name, hints, required, arguments.kwarg is not None and shared is None, ancestors)


def _unpacked(module: Module, keywords: ast.arg | None) -> dict[str, Any] | None:
    """The keys of `**keywords: Unpack[A TypedDict]` (PEP 692), all of them required; None for any other."""
    annotation = None if keywords is None else keywords.annotation
    if not isinstance(annotation, ast.Subscript) or ast.unparse(annotation.value).rpartition(".")[2] != "Unpack":
        return None
    _, found = resolve(module, annotation.slice)
    if found is None or not isinstance(found[1], ast.ClassDef):
        return None
    return {
        item.target.id: read_hint(item.annotation, found[0])
        for item in found[1].body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }


def _returned(module: Module, annotation: ast.expr | None) -> frozenset[str] | None:
    """The class that a function says it returns, and its ancestors; None where it says none."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if not isinstance(annotation, ast.Name | ast.Attribute):
        return None
    _, found = resolve(module, annotation)
    if found is None or not isinstance(found[1], ast.ClassDef):
        return None
    line, _ = _lineage(found[0], found[1])
    return frozenset(f"{owner.name}.{parent.name}" for owner, parent in line)


def _made(
    name: str, hints: dict[str, Any], required: set[str], is_open: bool, ancestors: frozenset[str] | None
) -> Signature:
    """Without the arguments that a run gives: those annotated InputSpec."""
    hints = {key: hint for key, hint in hints.items() if not is_runtime(hint)}
    return Signature(
        name=name, hints=hints, required=frozenset(required & set(hints)), open=is_open, ancestors=ancestors
    )


def forget() -> None:
    """Read sources anew, for a process in which they change (tests)."""
    read_module.cache_clear()
    read_signature.cache_clear()
