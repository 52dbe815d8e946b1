"""Published figures beside ours: lines of configs/calibration.yaml, run, measured, written into docs/calibration.md."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from seqbench.composition.source import suggest
from seqbench.errors import ConfigError, RecordError
from seqbench.records import published

LINES = published.ROOT / "configs" / "calibration.yaml"
PAGE = published.ROOT / "docs" / "calibration.md"
PUBLISHED = published.PUBLISHED
FIGURES = "calibration.json"
BEGIN, END = "<!-- figures: python scripts/calibration.py publish -->", "<!-- end of figures -->"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Line(_Part):
    """A figure that a plain model is to reach: what is run, what is published, when it counts as reached."""

    task: str
    model: str
    run: list[str] = Field(description="overrides of scripts/train.py")
    seeds: list[int]
    metric: str
    name: str = Field(description="of the metric, as the field writes it")
    scale: Literal["1", "%"]
    digits: Annotated[int, Field(ge=0)]
    published: float | None = Field(default=None, description="on the scale of `scale`")
    within: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    source: str
    looked_up: bool = Field(description="False: the published figure is quoted from memory")
    note: str | None = None

    @model_validator(mode="after")
    def _one_goal(self) -> Self:
        goals = [
            self.within is not None and self.published is not None,
            self.at_least is not None,
            self.at_most is not None,
        ]
        if sum(goals) != 1:
            raise ValueError("give one of at_least, at_most, and within with published")
        return self

    def reached(self, value: float) -> bool:
        """Whether a figure, on the scale of `scale`, is the published one as far as the line asks."""
        if self.at_least is not None:
            return value >= self.at_least
        if self.at_most is not None:
            return value <= self.at_most
        assert self.published is not None
        assert self.within is not None
        return abs(value - self.published) <= self.within

    def overrides(self) -> list[str]:
        """What is typed after `python scripts/train.py -m`, seeds included."""
        return [*self.run, f"seed={','.join(map(str, self.seeds))}"]


class Figure(_Part):
    """What came of a line. Values are those of the metric, not scaled."""

    mean: float
    low: float | None
    high: float | None
    basis: str = Field(description="what the interval is over")
    ids: list[str] = Field(description="of the runs, in order of seed")


def read_lines(path: Path = LINES) -> dict[str, Line]:
    """The lines by name. Raises ConfigError for one that is no line."""
    import yaml

    lines = {}
    for name, content in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        try:
            lines[str(name)] = Line.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(f"{path.name}: {name}.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return lines


def measure(line: Line, results: Path) -> Figure | None:
    """The figure of a line from the records of its runs; None where one is missing or has not finished."""
    from seqbench.board.entries import Entry
    from seqbench.board.table import build
    from seqbench.leaderboard import read_settings
    from seqbench.records.store import Store
    from seqbench.studies.study import plan_sweep

    store = Store(results)
    ids = [cell.id for cell in plan_sweep(line.overrides()).cells]
    records = [store.find(this) for this in ids]
    found = [record for record in records if record is not None and record.status == "finished"]
    if len(found) < len(ids):
        return None
    entries = [Entry(record=record, folder=store.folder(record.id)) for record in found]
    board = build(title="", entries=entries, expected=None, split="test", method=read_settings([]).method)
    (cell,) = board.cells.values()
    if board.columns[0].metric != line.metric or cell.mean is None:
        raise ConfigError(f"{line.task}: its metric is {board.columns[0].metric}, the line says {line.metric}")
    return Figure(mean=cell.mean, low=cell.low, high=cell.high, basis=cell.basis, ids=ids)


def publish(results: Path, names: Sequence[str], into: Path, page: Path) -> list[str]:
    """Copy the records of lines (JSON alone), keep their figures, write the table; a sentence for each line.

    Lines whose runs are not all there keep the figure that they had.
    """
    from seqbench.records.store import write_atomic

    lines, figures = read_lines(), read_figures(into)
    told = []
    for name in names or lines:
        figure = measure(lines[name], results)
        if figure is None:
            told.append(f"{name}: not all runs are there: python scripts/calibration.py run {name}")
            continue
        figures[name] = figure
        published.keep(results, figure.ids, into)
        told.append(f"{name}: {shown(lines[name], figure)}")
    kept = {name: figures[name].model_dump() for name in lines if name in figures}
    into.mkdir(parents=True, exist_ok=True)
    write_atomic(into / FIGURES, (json.dumps(kept, indent=2) + "\n").encode())
    write_atomic(page, with_table(page.read_text(encoding="utf-8"), lines, figures).encode())
    return told


def read_figures(folder: Path) -> dict[str, Figure]:
    """The figures that were published last, by line."""
    path = folder / FIGURES
    if not path.is_file():
        return {}
    return {name: Figure.model_validate(figure) for name, figure in json.loads(path.read_text()).items()}


def with_table(page: str, lines: dict[str, Line], figures: dict[str, Figure]) -> str:
    """The page with the table between its two marks made anew. Raises ConfigError where it has no marks."""
    return published.between(page, BEGIN, END, table(lines, figures), name=PAGE.name)


def table(lines: dict[str, Line], figures: dict[str, Figure]) -> str:
    """The lines as a Markdown table, then their notes."""
    rows = ["| line | task | model | figure | published | here (95 % interval) | seeds | |", f"|{'---|' * 8}"]
    for name, line in lines.items():
        figure = figures.get(name)
        ours = "not run" if figure is None else shown(line, figure)
        seeds = "" if figure is None else str(len(figure.ids))
        mark = "" if figure is None else ("reached" if line.reached(_scaled(line, figure.mean)) else "missed")
        source = line.source if line.looked_up else f"{line.source}; from memory"
        cells = (name, line.task, line.model, line.name, f"{_goal(line)} ({source})", ours, seeds, mark)
        rows.append(f"| {' | '.join(cells)} |")
    notes = [f"- {name}: {line.note}" for name, line in lines.items() if line.note]
    return "\n".join([*rows, "", *notes, ""])


def shown(line: Line, figure: Figure) -> str:
    """`0.3740 (0.3712 to 0.3768)`."""
    mean = f"{_scaled(line, figure.mean):.{line.digits}f}"
    if figure.low is None or figure.high is None:
        return mean
    low, high = (f"{_scaled(line, value):.{line.digits}f}" for value in (figure.low, figure.high))
    return f"{mean} ({low} to {high})"


def _scaled(line: Line, value: float) -> float:
    return 100 * value if line.scale == "%" else value


def _goal(line: Line) -> str:
    unit = " %" if line.scale == "%" else ""
    if line.within is not None:
        return f"{line.published:g}{unit} within {line.within:g}"
    goal = f"at least {line.at_least:g}{unit}" if line.at_least is not None else f"at most {line.at_most:g}{unit}"
    return goal if line.published is None else f"{line.published:g}{unit}; {goal}"


def main(argv: Sequence[str] | None = None) -> int:
    """0; 1 where runs failed or are missing; 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(prog="calibration.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, does in (("run", "train what is missing of the lines"), ("publish", "records and table from the runs")):
        command = commands.add_parser(name, help=does)
        command.add_argument("line", nargs="*", help="names of configs/calibration.yaml; none: all of them")
        command.add_argument("--results", default="results", help="folder of records")
        if name == "run":
            command.add_argument(
                "--set", nargs="+", default=[], metavar="KEY=VALUE", help="for a trial: further overrides"
            )
    commands.add_parser("list", help="the lines, and the figure of each")
    given = parser.parse_args(argv)
    try:
        lines = read_lines()
        for name in getattr(given, "line", []):
            if name not in lines:
                raise ConfigError(f"line: {name!r} is not one of configs/calibration.yaml{suggest(name, list(lines))}")
        if given.command == "run":
            return _run([lines[name] for name in given.line or lines], [f"results={given.results}", *given.set])
        if given.command == "publish":
            told = publish(Path(given.results), given.line, PUBLISHED, PAGE)
            print("\n".join(told))
            return int(any("not all runs" in text for text in told))
        figures = read_figures(PUBLISHED)
        width = max(map(len, lines))
        for name, line in lines.items():
            print(f"{name.ljust(width)}  {shown(line, figures[name]) if name in figures else 'not run'}")
    except (ConfigError, RecordError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _run(lines: Sequence[Line], more: Sequence[str]) -> int:
    from seqbench import cli

    code = 0
    for line in lines:
        print(f"{line.task}, {line.model}: {' '.join(line.overrides())}", file=sys.stderr)
        code = max(code, cli.main(["-m", *line.overrides(), "trainer.threads=1", *more]))
    return code
