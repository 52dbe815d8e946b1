"""The benchmark from the command line: which measurements, with what settings, and where the results go."""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from seqbench.benchmark import page
from seqbench.benchmark.base import Row, Settings
from seqbench.composition.source import suggest
from seqbench.errors import ConfigError
from seqbench.records.store import write_atomic

USAGE = """python scripts/benchmark.py [NAME ...] [key=value ...]

Measures the harness against its peers, in turns on this machine, and prints ratios with their spread. Without a name:
all measurements. The exit code is 0 whatever the ratios are.

  repeats=N       pairs of each row; default: the measurement's own
  threads=1       CPU threads of torch
  clock=wall      wall | cpu: seconds of this process alone, where the machine has other work
  seed=0          of weights and data that are drawn
  quick=false     true: tiny cases, to see that it works; the numbers mean nothing
  out=FILE        the rows as JSON, too
  write=false     true: put each measurement's table into its section of docs/performance.md
  page=FILE       of another page in its place

"""
DEFAULTS = {
    "repeats": "",
    "threads": "1",
    "clock": "wall",
    "seed": "0",
    "quick": "false",
    "out": "",
    "write": "false",
    "page": "",
}


def measurements(folder: Path = Path(__file__).parent) -> dict[str, str]:
    """Names of the modules that measure, with the first line of each: read, not imported."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "measure" for node in tree.body):
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """0; 2 for a mistake of the user's, and where a measurement lacks something that it needs."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    known = measurements()
    if {"-h", "--help"} & set(arguments):
        width = max(map(len, known), default=0)
        print(USAGE + "\n".join(f"  {name.ljust(width)}  {title}" for name, title in known.items()))
        return 0
    try:
        names, given = read(arguments, known)
        settings = settings_of(given)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    results: dict[str, list[Row]] = {}
    code = 0
    for name in names:
        try:
            results[name] = run(name, settings)
        except ConfigError as error:
            print(f"{name}: {error}", file=sys.stderr)
            code = 2
            continue
        print(f"{name}: {known[name]}\n{page.text(results[name])}\n", flush=True)
        if given["write"] == "true":
            path = Path(given["page"]) if given["page"] else page.PAGE
            command = " ".join(["python scripts/benchmark.py", name, *kept(given)])
            content = page.section(name, known[name], results[name], command=command, threads=settings.threads)
            before = path.read_text(encoding="utf-8") if path.is_file() else page.HEAD
            write_atomic(path, page.with_section(before, name, content).encode())
    if given["out"]:
        write_atomic(Path(given["out"]), (json.dumps(as_json(results), indent=2) + "\n").encode())
    return code


def read(arguments: Sequence[str], known: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Names and settings. Raises ConfigError for what is neither."""
    names, given = [], dict(DEFAULTS)
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals:
            if key not in given:
                raise ConfigError(f"{key}: no such key{suggest(key, list(given))}")
            given[key] = value
        elif argument in known:
            names.append(argument)
        else:
            raise ConfigError(f"{argument!r}: no such measurement{suggest(argument, list(known))}")
    return names or list(known), given


def settings_of(given: Mapping[str, str]) -> Settings:
    """Raises ConfigError for a value that a key does not take."""
    for key in ("quick", "write"):
        if given[key] not in ("true", "false"):
            raise ConfigError(f"{key}: {given[key]!r} is neither true nor false")
    if given["clock"] not in ("wall", "cpu"):
        raise ConfigError(f"clock: {given['clock']!r} is neither wall nor cpu")
    return Settings(
        repeats=_whole(given, "repeats", least=1) if given["repeats"] else None,
        quick=given["quick"] == "true",
        threads=_whole(given, "threads", least=1),
        seed=_whole(given, "seed", least=0),
        clock="cpu" if given["clock"] == "cpu" else "wall",
    )


def _whole(given: Mapping[str, str], key: str, *, least: int) -> int:
    if not given[key].isdecimal() or int(given[key]) < least:
        raise ConfigError(f"{key}: {given[key]!r} is no whole number from {least}")
    return int(given[key])


def run(name: str, settings: Settings) -> list[Row]:
    """The rows of a measurement, with as many threads as the settings say. Raises ConfigError for what it lacks."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        call: Callable[[Settings], list[Row]] = importlib.import_module(f"seqbench.benchmark.{name}").measure
        return call(settings)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("transformers", "accelerate"):
            raise
        raise ConfigError(f"its peer needs {error.name}: make install-dev, or pip install -e '.[dev]'") from None
    finally:
        torch.set_num_threads(before)


def as_json(results: Mapping[str, Sequence[Row]]) -> dict[str, list[dict[str, object]]]:
    """Rows by measurement, as JSON has them."""
    return {name: [asdict(row) | {"reached": row.reached} for row in rows] for name, rows in results.items()}


def kept(given: Mapping[str, str]) -> list[str]:
    """The settings that are not the usual ones, files aside."""
    return [f"{k}={v}" for k, v in given.items() if v != DEFAULTS[k] and k not in ("out", "write", "page")]
