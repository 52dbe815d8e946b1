"""The nouns of a board, as plain data: what every output format is written from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from seqbench.board.accounting import Account
from seqbench.board.aggregates import Profile
from seqbench.board.costs import CostLine
from seqbench.board.entries import Expected
from seqbench.board.marks import Mark
from seqbench.board.text import Scale
from seqbench.board.tuned import Trials
from seqbench.record import Record

State = Literal["scored", "undefined", "failed", "not run", "not planned"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A task, in one version, over one set of examples."""

    id: str
    label: str
    task: str  # config file name
    kind: str
    modality: str
    metric: str  # headline; "" where no run has finished
    best: Literal["max", "min"]
    scale: Scale
    examples: int | None  # scored in the split
    machines: tuple[str, ...]  # machine classes that its costs come from
    notices: tuple[str, ...]
    accounts: tuple[Account, ...] = ()  # what became of each split's examples
    trials: tuple[Trials, ...] = ()  # of its tuned rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """An encoder in one set-up."""

    id: str
    label: str
    encoder: str  # config file name
    family: str
    trivial: bool
    mean_rank: float | None  # among the rows that are no floor
    win_rate: float | None
    tasks: int  # columns with a score
    rank_interval: tuple[float, float] | None = None
    win_interval: tuple[float, float] | None = None
    iqm: float | None = None  # interquartile mean of scores between the trivial row (0) and the best known (1)
    iqm_interval: tuple[float, float] | None = None
    iqm_tasks: int = 0  # columns that enter it
    partial: bool = False  # has no place in some columns, so its rank is not that of rows that have
    told: tuple[str, ...] = ()  # what to know of its rank: tasks missing, tasks and seeds failed
    profile: Profile | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One record on the board."""

    record: Record
    folder: Path
    row: str
    column: str
    value: float | None  # headline over the board's split
    counted: bool  # whether it is in the cell's mean


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A row in a column."""

    row: str
    column: str
    state: State
    mean: float | None = None  # over seeds
    low: float | None = None
    high: float | None = None
    basis: str = ""  # what the interval is over
    best: bool = False  # the best mean of its column
    tied: bool = False  # the best, or not told from it, be it that nothing is known of the error
    p: float | None = None  # of no difference to the best, corrected for all comparisons of the board
    difference: float | None = None  # mean less that of the best; None for the best
    difference_interval: tuple[float, float] | None = None  # at the board's confidence, not corrected for their number
    places: tuple[int, int] | None = None  # first and last that it may truly have in its column, floors included
    seeds: tuple[int, ...] = ()
    examples: int | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)  # mean over seeds of every metric
    costs: tuple[CostLine, ...] = ()
    failures: tuple[Run, ...] = ()
    missing: tuple[Expected, ...] = ()
    notes: tuple[str, ...] = ()
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Board:
    """Rows x columns, and what a reader has to know of how they were made."""

    title: str
    split: str
    confidence: float
    comparisons: int  # pairs of rows, in all columns, that p-values are corrected for
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]  # best mean rank first, floors last
    cells: dict[tuple[str, str], Cell]  # (row, column)
    runs: tuple[Run, ...]
    machines: tuple[str, ...]  # most runs first
    notices: tuple[str, ...]

    def cell(self, row: Row, column: Column) -> Cell:
        """The cell, which is there for each pair."""
        return self.cells[row.id, column.id]

    def in_order(self) -> Iterator[tuple[Column, Row, Cell]]:
        """Column by column: best first, then floors, then what has no score; not what was never planned."""
        for column in self.columns:
            yield from ((column, row, cell) for row, cell in self.in_column(column))

    def in_column(self, column: Column) -> list[tuple[Row, Cell]]:
        """The same of one column."""
        sign = -1.0 if column.best == "max" else 1.0
        found = [(row, self.cell(row, column)) for row in self.rows]
        found.sort(key=lambda pair: _place(pair, sign))
        return [(row, cell) for row, cell in found if cell.state != "not planned"]

    @cached_property
    def failures(self) -> tuple[Run, ...]:
        """Runs that did not finish."""
        return tuple(run for run in self.runs if run.record.status != "finished")

    @cached_property
    def missing(self) -> tuple[Expected, ...]:
        """Cells of the plan that have no record."""
        return tuple(expected for cell in self.cells.values() for expected in cell.missing)


def _place(pair: tuple[Row, Cell], sign: float) -> tuple[bool, bool, float, str]:
    row, cell = pair
    return cell.mean is None, row.trivial, sign * cell.mean if cell.mean is not None else 0.0, row.label
