"""Errors that are for people: one or two lines, no traceback, exit code 2."""

from __future__ import annotations

import traceback
from collections.abc import Sequence


def place_in(error: BaseException, packages: Sequence[str]) -> str:
    """`my_package/window.py, line 34, Window.forward`: the last frame of an error in these packages; "" without one.

    The file is told from its package on, so that it says nothing of the machine.
    """
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        name = str(frame.f_globals.get("__name__", ""))
        if any(name == package or name.startswith(f"{package}.") for package in packages):
            file = frame.f_code.co_filename.replace("\\", "/").split("/")
            depth = name.count(".") + (2 if file[-1] == "__init__.py" else 1)
            found = f"{'/'.join(file[-depth:])}, line {line}, {frame.f_code.co_qualname}"
    return found


def printable(text: str) -> str:
    """Without control characters: a stranger's file shall not write to the terminal what it wants."""
    return "".join(character if character.isprintable() else "?" for character in text)


class ConfigError(ValueError):
    """A config that cannot be: names the key, what was given and what would do. Raised before data or device."""


class RecordError(ValueError):
    """A record that cannot be read or written: names the file, what is wrong with it and what would do."""


class Unwritable(RecordError):
    """Nothing can be written where records go: no other run of the sweep could write there either."""
