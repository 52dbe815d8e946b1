"""Errors that are for people: one or two lines, no traceback, exit code 2."""

from __future__ import annotations


def printable(text: str) -> str:
    """Without control characters: a stranger's file shall not write to the terminal what it wants."""
    return "".join(character if character.isprintable() else "?" for character in text)


class ConfigError(ValueError):
    """A config that cannot be: names the key, what was given and what would do. Raised before data or device."""


class RecordError(ValueError):
    """A record that cannot be read or written: names the file, what is wrong with it and what would do."""


class Unwritable(RecordError):
    """Nothing can be written where records go: no other run of the sweep could write there either."""
