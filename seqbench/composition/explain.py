"""What pydantic finds, said in one line a mistake: the key, what was given, what would do."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from pydantic import ValidationError

from seqbench.composition.source import suggest
from seqbench.errors import ConfigError

_WORDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "none_required": "null",
}
SHOWN = 2  # mistakes that are written out; the rest is counted


def join(lines: list[str]) -> ConfigError:
    """Mistakes as one error of at most three lines."""
    unique = list(dict.fromkeys(lines))
    more = len(unique) - SHOWN
    tail = [f"and {more} more mistake{'s' if more > 1 else ''}"] if more > 0 else []
    return ConfigError("\n".join(unique[:SHOWN] + tail))


def explain(
    error: ValidationError, path: str, given: Any, keys_at: Callable[[list[str]], Collection[str]]
) -> list[str]:
    """The mistakes in `given`, which stands at the dotted `path` ("" for the root).

    `keys_at` gives the right keys at a place below it, [] where they are not known. What a validator of a section
    says begins with one of its keys, so it is appended to the section's own.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for item in error.errors(include_url=False):
        names, value = _walk(item["loc"], given, item["type"])
        key = ".".join([*([path] if path else []), *names])
        of_section = item["type"] == "value_error" and isinstance(value, dict)
        found.setdefault(key, []).append(("section" if of_section else item["type"], _say(item, value, names, keys_at)))
    lines = []
    for key, sayings in found.items():
        useful = [text for kind, text in sayings if kind != "part"] or [text for _, text in sayings]
        rank = {"extra_forbidden": 0, "missing": 1}.get(sayings[0][0], 2)  # a missing key may be the unknown one
        colon = "." if sayings[0][0] == "section" else ": "
        lines.append((rank, f"{key}{colon if key else ''}{_merge(useful)}"))
    return [line for _, line in sorted(lines, key=lambda pair: pair[0])]


def _walk(loc: tuple[int | str, ...], given: Any, kind: str) -> tuple[list[str], Any]:
    """The keys of an error's place, without pydantic's names for the branches of a union; and the value there."""
    names: list[str] = []
    value = given
    for i, part in enumerate(loc):
        inside = part in value if isinstance(value, dict) else isinstance(value, list) and part in range(len(value))
        if inside:
            value = value[part]
        elif not (kind == "missing" and i == len(loc) - 1):
            continue
        names.append(str(part))
    return names, value


def show(value: Any) -> str:
    """A value as a user would write it, cut where it is long."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _say(item: Any, value: Any, names: list[str], keys_at: Callable[[list[str]], Collection[str]]) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return f"no such key{suggest(names[-1], sorted(keys_at(names[:-1])))}"
    if kind == "missing":
        return "missing"
    if kind == "literal_error":
        choices = str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        near = suggest(str(value), choices)
        return f"{show(value)} is not one of {', '.join(choices)}" + (near if near.startswith(" (") else "")
    if kind == "part":
        example = "{_target_: package.module.Class, ...}"
        return f"{show(value)} is not a part; it takes a {item['msg']}, given as {example}"
    if kind in _WORDS:
        whole = isinstance(value, float) and value.is_integer() and kind.startswith("int")
        hint = f"; write {int(value)}" if whole else ""
        if kind == "string_type" and isinstance(value, int | float):
            hint = f"; quote it: '\"{show(value)}\"'"
        return f"{show(value)} is not {_WORDS[kind]}{hint}"
    if kind == "value_error":
        return str(context["error"])
    message = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return f"{show(value)} is not allowed; {message[0].lower()}{message[1:]}"


def _merge(texts: list[str]) -> str:
    """`'abc' is not a number` and `'abc' is not one of auto` in one sentence."""
    first, *others = dict.fromkeys(texts)
    for text in others:
        _, found, rest = text.partition(" is not ")
        first += f" nor {rest}" if found else f"; or {text}"
    return first
