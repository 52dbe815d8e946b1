"""The board as one HTML file that opens from disk: no network, no library, nothing that a record says is run."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import shlex
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
import yaml

from seqbench.board import text, words
from seqbench.board.aggregates import LEVELS
from seqbench.board.costs import COSTS
from seqbench.board.curves import curve, drawn, limit_for, scored
from seqbench.board.model import Board, Cell, Column, Run
from seqbench.board.tuned import shown
from seqbench.records.fetch import address_of
from seqbench.records.folder import is_address

HERE = Path(__file__).parent
SCRIPTS = (
    "svg.js",
    "scatter.js",
    "curves.js",
    "profiles.js",
    "trials.js",
    "details.js",
    "board.js",
)  # inlined in this order
DATA = "<!-- data -->"  # nothing that a record says has a `<` of its own
DETAILED = 1000  # runs of a page that has the config and record of each; those of a larger one are linked alone
REPEATED = ("code", "environment", "data", "splits")  # the same in many records, embedded once


def render(board: Board, *, out: Path) -> str:
    """The whole file, of which `data` and `frame` can be made at once."""
    return framed(frame(board), data(board, out=out))


def framed(frame: str, data: str) -> str:
    """The page of both."""
    before, after = frame.split(DATA)
    return f"{before}{data}{after}"


def data(board: Board, *, out: Path) -> str:
    """What the page's own script draws from, as JSON; links to records are relative to `out`, the folder that the page
    will stand in, or, of records that were fetched from an address, that address.
    """
    return embed(payload(board, out=out))


def frame(board: Board) -> str:
    """The page with DATA in place of its data."""
    style = (HERE / "board.css").read_text()
    script = '"use strict";\n' + "\n".join((HERE / name).read_text() for name in SCRIPTS)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.loader = jinja2.FileSystemLoader(HERE)
    template = environment.get_template("template.html.jinja")
    return template.render(
        board=board,
        words=words,
        text=text,
        costs=COSTS,
        letters=words.machines(board),
        whiskers={column.id: _Whisker(board, column) for column in board.columns},
        families=sorted({row.family for row in board.rows if row.family}),
        modalities=sorted({column.modality for column in board.columns if column.modality}),
        numbers={row.id: i for i, row in enumerate(board.rows)},
        places={column.id: i for i, column in enumerate(board.columns)},
        sort_key=sort_key,
        curved=_curved(board),
        shown=shown,
        style=style,
        script=script,
        policy=policy(style, script),
        data=DATA,
    )


def _curved(board: Board) -> str | None:
    """The first column that has a learning curve of a score: what the figure opens on."""
    by_column: dict[str, list[Run]] = {}
    for run in board.runs:
        by_column.setdefault(run.column, []).append(run)
    there = (c.id for c in board.columns if any(scored(run.record) for run in by_column.get(c.id, ())))
    return next(there, None)


def payload(board: Board, *, out: Path) -> dict[str, Any]:
    """What the page's own script draws from."""
    parts = _Parts()
    limit = limit_for(len(board.runs))
    detailed, lines = len(board.runs) <= DETAILED, drawn(board.runs)
    where = {
        folder: address_of(Path(folder)) or os.path.relpath(folder, out).replace(os.sep, "/")
        for folder in {_within(run) for run in board.runs}
    }
    rows = {row.id: i for i, row in enumerate(board.rows)}
    columns = {column.id: i for i, column in enumerate(board.columns)}
    by_id = {column.id: column for column in board.columns}
    machines = words.machines(board)
    numbers = {machine: i for i, machine in enumerate(machines)}
    return {
        "columns": [_column(column) for column in board.columns],
        "trials": [
            {
                "row": rows[trials.row],
                "column": columns[column.id],
                "metric": trials.metric,
                "sampler": trials.sampler,
                "points": list(trials.points),
            }
            for column in board.columns
            for trials in column.trials
        ],
        "rows": [{"label": r.label, "family": r.family, "trivial": r.trivial} for r in board.rows],
        "levels": [round(float(level), 6) for level in LEVELS],
        "profiles": [
            {
                "row": rows[row.id],
                **{name: np.round(getattr(row.profile, name), 4).tolist() for name in ("share", "low", "high")},
            }
            for row in board.rows
            if row.profile is not None
        ],
        "cells": [
            {
                "row": rows[cell.row],
                "column": columns[cell.column],
                "mean": cell.mean,
                "low": cell.low,
                "high": cell.high,
                "basis": cell.basis,
                "difference": words.difference(cell, by_id[cell.column], board),
                "notes": cell.notes,
                "missing": [expected.seed for expected in cell.missing],
                "costs": [{"machine": numbers[line.machine], **line.values} for line in cell.costs],
            }
            for cell in board.cells.values()
            if cell.state != "not planned"
        ],
        "runs": [
            {
                **_run(run, rows, columns, f"{where[_within(run)]}/{run.folder.name}/record.json"),
                "curve": curve(run.record, limit) if lines is None or id(run) in lines else {},
                **(_details(run, parts) if detailed else _outline(run)),
            }
            for run in board.runs
        ],
        "thinned": lines is not None,
        "parts": parts.values,
        "split": board.split,
        "machines": [f"{letter}: {machine}" for machine, letter in machines.items()],
        "costs": [{"key": c.key, "title": c.title, "ofMachine": c.of_machine, "better": c.better} for c in COSTS],
    }


def _within(run: Run) -> str:
    """The folder of the run's, as text: paths take ten times as long to be made and compared."""
    return os.path.dirname(run.folder) or os.curdir


def embed(value: Any) -> str:
    """JSON that can stand inside a script element whatever its strings hold."""
    try:
        content = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    except ValueError:  # NaN or an infinity, which JSON does not have
        content = json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for char in "<>&":
        content = content.replace(char, f"\\u{ord(char):04x}")
    return content


def _finite(value: Any) -> Any:
    """The value with None for what is not finite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Parts:
    """Values that many runs share, each held once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[str, int] = {}

    def number(self, value: Any, key: str | None = None) -> int:
        key = json.dumps(value, sort_keys=True) if key is None else key
        if key not in self._numbers:
            self._numbers[key] = len(self.values)
            self.values.append(value() if callable(value) else value)
        return self._numbers[key]


def _column(column: Column) -> dict[str, Any]:
    return {
        "label": column.label,
        "metric": column.metric,
        "best": column.best,
        "unit": column.scale.unit,
        "factor": column.scale.factor,
        "digits": column.scale.digits,
    }


def _run(run: Run, rows: dict[str, int], columns: dict[str, int], path: str) -> dict[str, Any]:
    return {
        "row": rows[run.row],
        "column": columns[run.column],
        "seed": run.record.seed,
        "status": run.record.status,
        "reason": run.record.reason,
        "value": run.value,
        "counted": run.counted,
        "path": path,
        "href": quote(path, safe="/:" if is_address(path) else "/"),
        "again": _again(run.record.overrides) if run.record.overrides else None,
    }


def _details(run: Run, parts: _Parts) -> dict[str, Any]:
    """The record and its config, whole."""
    record = json.loads(run.record.model_dump_json(exclude={"config", "curves"}))  # writes NaN as null
    shared = {name: parts.number(record.pop(name)) for name in REPEATED}
    config = {key: value for key, value in run.record.config.items() if key != "seed"}
    number = parts.number(lambda: _yaml(config), key="config " + json.dumps(config, sort_keys=True, default=str))
    return {"config": number, "record": record, "shared": shared}


def _outline(run: Run) -> dict[str, Any]:
    """What the table of a cell's runs shows of the record."""
    scores = {
        split: {name: {"value": score.value} for name, score in found.items()}
        for split, found in run.record.scores.items()
    }
    record = run.record
    return {"record": {"id": record.id, "best_step": record.best_step, "ended": record.ended, "scores": scores}}


def _yaml(config: dict[str, Any]) -> str:
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # the C one is ten times as fast
    return str(yaml.dump(config, Dumper=dumper, sort_keys=False, allow_unicode=True))


class _Whisker:
    """Where a score and its interval stand on a short line, in per cent of the column's range, floors aside."""

    def __init__(self, board: Board, column: Column) -> None:
        cells = [board.cell(row, column) for row in board.rows if not row.trivial]
        ends = [x for cell in cells for x in (cell.mean, cell.low, cell.high) if x is not None]
        self.low, self.high = (min(ends), max(ends)) if ends else (0.0, 1.0)

    def at(self, value: float | None) -> float | None:
        """3 to 97, beyond that cut; None for None."""
        if value is None:
            return None
        span = self.high - self.low
        share = (value - self.low) / span if span > 0 else 0.5
        return round(3 + 94 * min(1.0, max(0.0, share)), 1)

    def beyond(self, value: float | None) -> int:
        """-1 or 1 for a value left or right of the line, which a trivial row's may be."""
        span = self.high - self.low
        return 0 if value is None else int(value > self.high + 0.03 * span) - int(value < self.low - 0.03 * span)


def sort_key(cell: Cell, column: Column) -> str:
    """What a score sorts by: higher is better; empty where there is none."""
    if cell.mean is None or not math.isfinite(cell.mean):
        return ""
    return repr(cell.mean if column.best == "max" else -cell.mean)


def policy(style: str, script: str) -> str:
    """Nothing is loaded from anywhere; of inline code only ours, by its hash, so that escaping is not the only wall."""
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )


@cache
def _hash(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _again(overrides: list[str]) -> str:
    """The command that runs a cell once more, though it has a record."""
    kept = [override for override in overrides if not override.startswith(("jobs=", "rerun="))]
    return " ".join(map(_quoted, ["python", "scripts/train.py", *kept, "rerun=always"]))


_quoted = lru_cache(maxsize=4096)(shlex.quote)  # most words of a study's commands come again
