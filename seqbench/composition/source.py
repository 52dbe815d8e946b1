"""Python sources read with ast: which file a dotted name leads to and what is defined there. Nothing is imported."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path


class NoTarget(LookupError):
    """A dotted name that leads to nothing; the text says where it stops and what is near."""


@dataclass(eq=False)
class Module:
    """One parsed source file: its top-level names, and where each comes from."""

    name: str
    file: Path
    names: dict[str, ast.AST] = field(default_factory=dict)
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)  # alias -> (module, name or None)


def suggest(name: str, names: list[str], prefix: str = "") -> str:
    """` (did you mean x?)`, or the whole list where nothing is near and it is short, or nothing."""
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f" (did you mean {prefix}{near[0]}?)"
    return f"; there is {', '.join(names)}" if names and len(names) <= 12 else ""


# -- files -----------------------------------------------------------------------------------------------------------
def split(target: str) -> tuple[Module, list[str]]:
    """The longest part of a dotted name that is a module, parsed, and what follows it."""
    parts = target.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise NoTarget(f"{target} is not a dotted name of a class, package.module.Class")
    for size in range(len(parts) - 1, 0, -1):
        module = read_module(".".join(parts[:size]))
        if module is not None:
            if len(parts) - size > 1 and parts[size] not in module.names and parts[size] not in module.imports:
                break
            return module, parts[size:]
    size = next((n for n in range(len(parts) - 1, 0, -1) if _places(".".join(parts[:n]))), 0)
    if size == 0:
        near = suggest(parts[0], _here())
        near = near if near.startswith(" (") else ""  # not all that lies in the current directory
        raise NoTarget(f"there is no package {parts[0]} on Python's path or in the current directory{near}")
    parent = ".".join(parts[:size])
    raise NoTarget(f"there is no module {parent}.{parts[size]}{suggest(parts[size], _inside(parent), parent + '.')}")


@functools.cache
def read_module(name: str) -> Module | None:
    """A module's parsed source; None where there is none (a folder without __init__, a compiled module)."""
    file = next((f for f in _places(name) if f.suffix == ".py"), None)
    if file is None:
        return None
    module = Module(name, file)
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise NoTarget(f"{file.name} of {name} is not valid Python: {error}") from None
    for node in _statements(tree.body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            module.names[node.name] = node
        elif isinstance(node, ast.Assign):
            module.names |= {t.id: node.value for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            module.names[node.target.id] = node.value
        elif isinstance(node, ast.Import):
            for alias in node.names:
                module.imports[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0],
                    None,
                )
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            module.imports |= {alias.asname or alias.name: (base, alias.name) for alias in node.names}
    return module


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Top-level statements, those under `if` and `try` included."""
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from _statements([*node.body, *node.orelse])
        else:
            yield node


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.name.split(".")
    up = node.level - (module.file.name == "__init__.py")
    return ".".join([*package[: len(package) - up], *([node.module] if node.module else [])])


def is_there(package: str) -> bool:
    """Whether Python, or the current directory, has a package of that name."""
    return bool(_places(package)) or package in _here()


def _places(name: str) -> list[Path]:
    """Files or folders of a module. Only the top package is looked up by Python, which imports nothing."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    places = [Path(spec.origin)] if spec.origin and spec.origin not in ("built-in", "frozen", "namespace") else []
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    places = places or folders
    for part in rest:
        places, folders = [], [folder / part for folder in folders]
        for folder in folders:
            files = [folder / "__init__.py", folder.with_name(part + ".py"), folder]
            places += [f for f in files if f.exists()][:1]
    return places


def _here() -> list[str]:
    """Names that a package in the current directory may have, and SeqBench's own."""
    found = {f.stem for f in Path.cwd().glob("*.py")} | {f.parent.name for f in Path.cwd().glob("*/*.py")}
    return sorted(found | {"encoders", "tasks"})


def _inside(package: str) -> list[str]:
    """Names of the modules and packages in a package."""
    names = set()
    for place in _places(package):
        folder = place.parent if place.name == "__init__.py" else place
        if folder.is_dir():
            names |= {f.stem for f in folder.glob("*.py")} | {f.name for f in folder.iterdir() if f.is_dir()}
    return sorted(name for name in names if not name.startswith(("_", ".")))


# -- names -----------------------------------------------------------------------------------------------------------
def find(module: Module, name: str, depth: int = 0) -> tuple[Module, ast.AST] | None:
    """Where a top-level name of a module is defined, imports followed; None for what isn't in any source."""
    if name in module.names:
        return module, module.names[name]
    if name not in module.imports or depth > 20:
        return None
    source, original = module.imports[name]
    if original is None:
        return None
    other = read_module(source)
    return None if other is None else find(other, original, depth + 1)


def resolve(module: Module, node: ast.AST) -> tuple[str, tuple[Module, ast.AST] | None]:
    """The dotted name that an expression `a` or `a.b.c` stands for, and its definition if a source has it."""
    if isinstance(node, ast.Name):
        found = find(module, node.id)
        if found is not None and isinstance(found[1], ast.ClassDef | ast.FunctionDef):
            return f"{found[0].name}.{found[1].name}", found
        if found is not None:
            return f"{found[0].name}.{node.id}", found
        if node.id in module.imports:
            source, original = module.imports[node.id]
            return (f"{source}.{original}" if original else source), None
        return node.id, None
    if isinstance(node, ast.Attribute):
        owner, _ = resolve(module, node.value)
        other = read_module(owner)
        found = find(other, node.attr) if other is not None else None
        if found is not None and isinstance(found[1], ast.ClassDef | ast.FunctionDef):
            return f"{found[0].name}.{found[1].name}", found
        return f"{owner}.{node.attr}", found
    return "", None
