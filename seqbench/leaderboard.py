"""The command that makes a board: settings from `key=value`, records from a folder, files into another."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from seqbench.composition import settings as settings_of
from seqbench.errors import ConfigError
from seqbench.garbage import uncollected
from seqbench.records.folder import Place

if TYPE_CHECKING:
    from seqbench.board.model import Board
    from seqbench.board.summary import Method

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
DEFAULTS = CONFIGS / "leaderboard.yaml"
FILES = {"html": "index.html", "markdown": "leaderboard.md", "csv": "leaderboard.csv", "latex": "leaderboard.tex"}
USER_ERROR = 2
MANY, MOST = 1000, 30_000  # runs of a board whose page is worth a process of its own, and the copies of memory it makes
HELP = """python scripts/leaderboard.py [--config-dir FOLDER] [study=NAME] [key=value ...] [--cfg]

The board of a study or, without one, of all records. What was typed for `train.py -m` beside the study, such as
budget.steps=500 or encoder=lstm,tcn, is typed here too; without a study it is the board of that sweep.

Keys and their defaults:

"""


class Settings(BaseModel):
    """The keys of configs/leaderboard.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    study: str | None
    results: Place
    out: str | None
    title: str | None
    split: Literal["train", "valid", "test"]
    formats: list[Literal["html", "markdown", "csv", "latex"]]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    draws: Annotated[int, Field(ge=100, le=100_000)]
    draws_seed: Annotated[int, Field(ge=0)]
    best_known: dict[str, float]
    wandb: bool
    wandb_project: str
    index: bool

    @field_validator("formats", mode="before")
    @classmethod
    def _one(cls, formats: Any) -> Any:
        return [formats] if isinstance(formats, str) else formats

    @property
    def method(self) -> Method:
        """How uncertainty is computed."""
        from seqbench.board.summary import Method

        return Method(confidence=self.confidence, draws=self.draws, seed=self.draws_seed)


def main(argv: Sequence[str] | None = None, *, kept: list[Any] | None = None) -> int:
    """Run the command line and return its exit code: 0, or 2 for a mistake, in at most three lines on stderr.

    What the board was made of is put into `kept`: taking ten thousand records apart takes 0.2 s, for nothing.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Read when numpy is imported: its matrices here are small, and each column has a thread of ours as it is.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if {"-h", "--help"} & set(arguments):
        print(HELP + _defaults_text())
        return 0
    try:
        folder, arguments = settings_of.config_dir(arguments)
        own, others = split_keys([argument for argument in arguments if argument != "--cfg"])
        settings = read_settings(own)
        if "--cfg" in arguments:
            print(settings.model_dump_json(indent=2))
            return 0
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # a package of the user's, as for train.py
        with uncollected():
            lines = make(settings, others, folder, kept=kept)
        for line in lines:
            print(line)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return USER_ERROR
    return 0


def split_keys(arguments: Sequence[str], fields: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Settings (of the board, or those of other `fields`), and what changes the plan: keys and groups of configs.

    Raises ConfigError for a key that is neither.
    """
    own, others = [], []
    fields = fields or Settings.model_fields
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        top = re.split(r"[.@/]", key.lstrip("+~"))[0]
        if key in fields or not equals or not key:
            own.append(argument)
        elif top in _of_runs():
            others.append(argument)
        else:
            from seqbench.composition.source import suggest

            near = suggest(key, sorted({*fields, *_of_runs()}))
            raise ConfigError(f"{key}: no such key{near}")
    return own, others


@functools.cache
def _of_runs() -> set[str]:
    """Keys and groups of a run's config."""
    import yaml

    train = yaml.safe_load((CONFIGS / "train.yaml").read_text(encoding="utf-8"))
    groups = {path.name for path in CONFIGS.iterdir() if path.is_dir()}
    return ({*train} | groups) - {"defaults", "hydra"}


def read_settings(overrides: Sequence[str]) -> Settings:
    """Defaults with overrides. Raises ConfigError: no key=value, an unknown key, a wrong type or choice."""
    return settings_of.read(Settings, DEFAULTS, overrides, texts=("study", "title"))


def make(
    settings: Settings,
    overrides: Sequence[str] = (),
    config_dir: str | None = None,
    *,
    kept: list[Any] | None = None,
) -> list[str]:
    """Make the board and say, a line each, what was written. Raises ConfigError where there is nothing to show.

    `overrides` are those of `train.py -m`, beside the study; `config_dir` is a folder of the user's configs; `kept` is
    that of main.
    """
    from seqbench.board import study
    from seqbench.board.table import build
    from seqbench.records.fetch import local

    asked = study.Asked(study=settings.study, overrides=tuple(overrides), config_dir=config_dir)
    out = Path(settings.out or f"reports/{settings.study or ('sweep' if overrides else 'all')}")
    found = study.gather(local(settings.results), asked, out=out, split=settings.split, index=settings.index)
    plan = found.plan
    if not found.entries and plan is None:
        what = f"no record of the study {settings.study}" if settings.study else "no record"
        run = f"python scripts/train.py -m study={settings.study}" if settings.study else "python scripts/train.py"
        raise ConfigError(f"results: {what} under {settings.results}; run one with {run}, or give another folder")
    board = build(
        title=settings.title or (plan and plan.title) or settings.study or "All records",
        entries=found.entries,
        expected=plan.cells if plan else None,
        left_out=found.left_out,
        split=settings.split,
        method=settings.method,
        known=settings.best_known,
        notices=found.notices,
    )
    if kept is not None:
        kept += [found, board]
    lines = _write(board, settings, out)
    if found.others:
        lines.append(found.others)
    elif plan and not found.entries:
        lines.append(f"Nothing of it has run yet: {asked.run}")
    return lines


def _write(board: Board, settings: Settings, out: Path) -> list[str]:
    from seqbench.board import csv_table, latex, markdown, page
    from seqbench.cores import at_once, workers
    from seqbench.records.store import reason_of, write_atomic

    formats = list(dict.fromkeys(settings.formats))
    tables = {"markdown": markdown.render, "csv": csv_table.render, "latex": latex.render}

    def drawn() -> list[str]:
        return [page.data(board, out=out)] if "html" in formats else []

    def read() -> list[str]:
        return [page.frame(board) if name == "html" else tables[name](board) for name in formats]

    works = [drawn, read]
    several = len(board.runs) <= MOST and workers(len(board.runs) // MANY) > 1
    data, texts = at_once(works) if several else [work() for work in works]
    lines = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in zip(formats, texts, strict=True):
            whole = page.framed(text, data[0]) if name == "html" else text
            write_atomic(out / FILES[name], whole.encode())
            lines.append(str(out / FILES[name]))
    except OSError as error:
        raise ConfigError(f"out: {out} cannot be written to ({reason_of(error)}); choose another: out=FOLDER") from None
    if settings.wandb:
        from seqbench.board import wandb_table

        lines += wandb_table.log(board, project=settings.wandb_project)
    lines.append(_counts(board))
    return lines


def _counts(board: Board) -> str:
    """`2 runs, 1 cell with a score, 1 interrupted, 2 records left out (see the board)`: what is there, what is not."""
    from seqbench.board.collect import LEFT_OUT

    scored = sum(cell.state == "scored" for cell in board.cells.values())
    stopped = sum(run.record.status == "interrupted" for run in board.failures)
    failed, missing = len(board.failures) - stopped, len(board.missing)
    out = sum(notice.startswith(LEFT_OUT) for notice in board.notices)
    said = [f"{_some(len(board.runs), 'run')}, {_some(scored, 'cell')} with a score"]
    said += [f"{number} {what}" for number, what in ((failed, "failed"), (stopped, "interrupted")) if number]
    said += [f"{missing} not run"] if missing else []
    said += [f"{_some(out, 'record')} left out (see the board)"] if out else []
    return ", ".join(said)


def _some(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _defaults_text() -> str:
    return DEFAULTS.read_text(encoding="utf-8")
