"""From a study file or a command line with commas to cells: the overrides of each run. Nothing is composed here."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from seqbench.composition.explain import explain, join
from seqbench.composition.guard import check_resolvers, reserved, reserved_key
from seqbench.composition.source import suggest
from seqbench.errors import ConfigError

Cell = dict[str, str]  # bare key -> the override as it is typed, `encoder.dim` -> `encoder.dim=64`
Values = dict[str, list[str]]  # bare key -> overrides of which a cell has one


class StudyFile(BaseModel):
    """configs/study/NAME.yaml: a grid of runs. Keys are those of the command line, `budget.steps`, with a value each.

    A cell's overrides, later ones first in force: `set`, `by_task` of its task, `by_encoder` of its encoder, its place
    in the grid, the command line.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    title: str
    description: str = ""
    jobs: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None  # at once; None: as in configs/train.yaml
    grid: list[dict[str, Any]]  # blocks; each the product of its lists, the study their union
    set: dict[str, Any] = {}
    by_task: dict[str, dict[str, Any]] = {}
    by_encoder: dict[str, dict[str, Any]] = {}

    @field_validator("grid")
    @classmethod
    def _blocks(cls, grid: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not grid:
            raise ValueError("grid: has no block, so there is nothing to run")
        for i, block in enumerate(grid):
            for key in ("encoder", "task"):
                if not block.get(key):
                    raise ValueError(f"grid.{i}.{key}: missing; a block names its encoders and its tasks")
        return grid


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Cells before composition."""

    cells: list[Cell]
    study: str | None = None
    title: str = ""
    description: str = ""
    dimensions: list[str] = field(default_factory=list)  # keys that vary


def read_study(name: str, content: Any, overrides: Sequence[str]) -> Grid:
    """The grid of a study file's content, with a command line on top. Raises ConfigError.

    A value on the command line for a key of the grid keeps the blocks that list it to it; one that no block lists
    goes into every block. So `task=scan` is the study's column, and `encoder=mine` a new row of it.
    """
    where = f"study/{name}.yaml"
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{where}: is empty; it needs name, title and grid")
    try:
        file = StudyFile.model_validate(content)
    except ValidationError as error:
        lines = explain(error, "", content, lambda names: [] if names else list(StudyFile.model_fields))
        raise join(
            [f"{where}: {line.removeprefix('grid: ') if line.startswith('grid: grid') else line}" for line in lines]
        ) from None
    for text in _written(file):
        check_resolvers(where, text)  # again: a file may have put it together
        if key := reserved_key(parse_one(text)):
            raise ConfigError(reserved(where, key))
    typed = parse(overrides)
    blocks = [{key: _each(key, value) for key, value in block.items()} for block in file.grid]
    listed = list(dict.fromkeys(bare(key) for block in blocks for key in block))
    blocks = _restricted([{bare(k): v for k, v in block.items()} for block in blocks], typed)
    rest = {key: values for key, values in typed.items() if key not in listed}
    fixed = {} if file.jobs is None else {"jobs": _one("jobs", file.jobs)}
    fixed |= {bare(key): _one(key, value) for key, value in file.set.items()}
    tables = {
        "task": {task: {bare(k): _one(k, v) for k, v in given.items()} for task, given in file.by_task.items()},
        "encoder": {name: {bare(k): _one(k, v) for k, v in given.items()} for name, given in file.by_encoder.items()},
    }
    for kind, table in tables.items():
        known = sorted({v.partition("=")[2] for block in file.grid for v in _each(kind, block[kind])})
        for entry in table:
            if entry not in known:
                near = suggest(entry, known)
                raise ConfigError(f"{where}: by_{kind}.{entry}: the grid has no such {kind}{near}")
    cells: list[Cell] = []
    lasts = product(rest)
    for block in blocks:
        for place in product(block):
            own = [tables[kind].get(place[kind].partition("=")[2], {}) for kind in ("task", "encoder")]
            cells += [{**fixed, **own[0], **own[1], **place, **last} for last in lasts]
    tells = ["label"] if _parts("label", blocks) else listed  # what the blocks' own names tell need not be told twice
    vary = [
        key
        for key in {**dict.fromkeys(listed), **rest}
        if any(len(b.get(key, rest.get(key, []))) > 1 for b in blocks) or (key in tells and _parts(key, blocks))
    ]
    told = set(vary) - {"encoder", "task"}  # `pretrain` tells its own keys
    vary = [key for key in vary if "." not in key or key.partition(".")[0] not in told]
    return Grid(cells=_distinct(cells), study=name, title=file.title, description=file.description, dimensions=vary)


def _parts(key: str, blocks: Sequence[Values]) -> bool:
    """Whether a value, one a block, tells apart blocks with one encoder and task."""
    return any(
        a.get(key) != b.get(key) and all(set(a[pair]) & set(b[pair]) for pair in ("encoder", "task"))
        for a, b in itertools.combinations(blocks, 2)
    )


def _written(file: StudyFile) -> Iterator[str]:
    """Every override that a study's file writes."""
    for block in file.grid:
        for key, value in block.items():
            yield from _each(key, value)
    for given in (file.set, *file.by_task.values(), *file.by_encoder.values()):
        yield from (_one(key, value) for key, value in given.items())


def read_sweep(overrides: Sequence[str]) -> Grid:
    """All combinations of what is separated by commas."""
    typed = parse(overrides)
    return Grid(cells=_distinct(product(typed)), dimensions=[key for key, values in typed.items() if len(values) > 1])


def parse(overrides: Sequence[str]) -> Values:
    """A command line by key, the last one of a key in force. Raises Hydra's errors, ConfigError for endless sweeps."""
    values: Values = {}
    for text in overrides:
        override = parse_one(text)
        key = bare(override.input_line.partition("=")[0] if override.input_line else text)
        values.pop(key, None)
        if not override.is_sweep_override():
            values[key] = [text]
        elif override.is_discrete_sweep():
            start = text.partition("=")[0]
            values[key] = [f"{start}={value}" for value in override.sweep_string_iterator()]
        else:
            raise ConfigError(f"{key}: {text.partition('=')[2]} has no end; list the values, {key}=a,b,c")
    return values


@functools.lru_cache(maxsize=65536)
def parse_one(text: str) -> Override:
    """One override, by Hydra's grammar."""
    return OverridesParser.create().parse_override(text)


def bare(key: str) -> str:
    """A key without the signs for adding and deleting."""
    return key.lstrip("+~")


def product(values: Values) -> list[Cell]:
    """All combinations, the last key running fastest."""
    return [dict(zip(values, row, strict=True)) for row in itertools.product(*values.values())]


def _restricted(blocks: list[Values], typed: Values) -> list[Values]:
    for key, given in typed.items():
        if not any(key in block for block in blocks):
            continue
        for text in given:
            if not any(text in block.get(key, []) for block in blocks):
                blocks = [{**block, key: [*block[key], text]} if key in block else block for block in blocks]
        blocks = [
            {**block, key: [v for v in given if v in block[key]]} if key in block else {**block, key: given}
            for block in blocks
        ]
        blocks = [block for block in blocks if block[key]]
    return blocks


def _distinct(cells: Iterable[Cell]) -> list[Cell]:
    return list({tuple(cell.items()): cell for cell in cells}.values())


def _each(key: str, value: Any) -> list[str]:
    return [_one(key, item) for item in value] if isinstance(value, list) else [_one(key, value)]


def _one(key: str, value: Any) -> str:
    return f"{key}={write(value)}"


def write(value: Any) -> str:
    """A plain value in Hydra's override grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{','.join(write(item) for item in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{write(item)}" for key, item in value.items()) + "}"
    text = str(value)
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_][\w./-]*|\$\{[\w.:,]+\}", text):
        return json.dumps(text, ensure_ascii=False)
    return text
