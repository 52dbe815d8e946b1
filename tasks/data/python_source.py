"""The source of the running Python's standard library: which files, in which split, with which fingerprint."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
import tokenize
from functools import cache
from pathlib import Path

from tasks.data.base import DataError, FileFact

VALID, TEST = 0.1, 0.1  # shares of the modules
LEFT_OUT = frozenset({"test", "tests", "idlelib", "lib2to3", "turtledemo", "encodings", "pydoc_data", "ensurepip"})


def split_of(module: str) -> str:
    """Split of a top-level module, by the sha256 of its name: a package stays together."""
    share = int.from_bytes(hashlib.sha256(module.encode()).digest()[:8]) / 2**64
    return "test" if share < TEST else "valid" if share < TEST + VALID else "train"


@cache
def files() -> dict[str, list[Path]]:
    """Files of each split, modules in the order of the sha256 of their names, a module's files by path.

    Tests, generated tables and programs are left out. Raises DataError where Python came without its source.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    modules = [name for name in sys.stdlib_module_names - LEFT_OUT if not name.startswith("_sysconfigdata")]
    found: dict[str, list[Path]] = {"train": [], "valid": [], "test": []}
    for name in sorted(modules, key=lambda name: hashlib.sha256(name.encode()).digest()):
        file, folder = root / f"{name}.py", root / name
        inside = sorted(p for p in folder.rglob("*.py") if not LEFT_OUT & set(p.relative_to(root).parts))
        found[split_of(name)] += [file] * file.is_file() + inside
    if not all(found.values()):
        raise DataError(f"python_code: this Python has no source of its standard library in {root}")
    return found


def modules(split: str) -> list[list[Path]]:
    """The same files by top-level module."""
    root = Path(sysconfig.get_paths()["stdlib"])
    by_name: dict[str, list[Path]] = {}
    for path in files()[split]:
        by_name.setdefault(path.relative_to(root).parts[0].removesuffix(".py"), []).append(path)
    return list(by_name.values())


@cache
def fingerprint() -> FileFact:
    """sha256 over names and bytes of all those files: another Python, other data."""
    root, digest, size = Path(sysconfig.get_paths()["stdlib"]), hashlib.sha256(), 0
    for path in sorted(path for paths in files().values() for path in paths):
        content = path.read_bytes()
        size += len(content)
        digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    version = ".".join(map(str, sys.version_info[:3]))
    return FileFact(
        name=f"standard library of Python {version}",
        url="generated:python_code",
        sha256=digest.hexdigest(),
        size=size,
    )


def text_of(path: Path) -> str:
    """A file's text, in the encoding that it declares."""
    with tokenize.open(path) as file:
        return file.read()
