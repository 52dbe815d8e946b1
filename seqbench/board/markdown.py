"""The board as Markdown: a summary matrix, one table per task, failures and notices as lists."""

from __future__ import annotations

import re
from collections.abc import Sequence

from seqbench.board import text, words
from seqbench.board.costs import COSTS
from seqbench.board.model import Board, Cell, Column, Row


def render(board: Board) -> str:
    """The whole file."""
    parts = [f"# {escape(board.title)}", escape(words.method(board)), "## Summary", _summary(board)]
    for column in board.columns:
        facts = [column.kind, column.modality, f"{column.examples} examples" if column.examples else ""]
        parts.append(f"## {escape(column.label)}")
        parts.append(escape(", ".join(fact for fact in facts if fact)) or "No run has finished.")
        parts.append(_task(board, column))
        parts.extend(_bullets([account.line() for account in column.accounts]))
        parts.extend(_bullets([*column.notices, *(trials.line() for trials in column.trials)]))
    if board.failures:
        parts.append("## Runs that did not finish")
        parts.extend(_bullets(words.failures(board)))
    if words.left_out(board):
        parts.append("## Pairs that the plan left out")
        parts.extend(_bullets(words.left_out(board)))
    if words.legend(board):
        parts.append("## Marks")
        parts.extend(_bullets([f"{kind.sign} {kind.meaning}" for kind in words.legend(board).values()]))
        parts.extend(_bullets(words.marked(board)))
    parts.append("## Notes")
    parts.extend(_bullets([*(f"Machine {x}: {m}" for m, x in words.machines(board).items()), *board.notices]))
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(value: str) -> str:
    """Text that no Markdown reader takes for markup, on one line."""
    flat = " ".join(value.split())
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    flat = re.sub(r"([\\`*\[\]|~$])", r"\\\1", flat)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", flat)


def _summary(board: Board) -> str:
    heads = [f"{escape(c.label)} {c.metric and escape(_metric(c))}".strip() for c in board.columns]
    table = [["encoder", *heads, "mean rank ↓", "win rate, % ↑", "IQM, % ↑"]]
    for row in board.rows:
        cells = [
            _bold(_text(words.score(cell, c), cell), cell) + words.signs(cell)
            for c in board.columns
            for cell in [board.cell(row, c)]
        ]
        table.append([_name(row), *cells, words.rank(row, len(board.columns)), words.wins(row), words.iqm(row)])
    return _table(table)


def _task(board: Board, column: Column) -> str:
    letters = words.machines(board)
    table = [["encoder", escape(_metric(column)), "interval", "seeds", *(cost.header for cost in COSTS), "machine"]]
    for row, cell in board.in_column(column):
        interval = column.scale.interval(cell.low, cell.high)
        first = [
            _name(row),
            _bold(_text(words.score(cell, column, interval=False), cell), cell) + words.signs(cell),
            interval,
        ]
        lines = cell.costs or (None,)
        for i, line in enumerate(lines):
            start = [*first, words.seeds(cell)] if i == 0 else ["", "", "", f"{line.runs if line else 0}"]
            costs = [words.cost(cost.key, line.values[cost.key] if line else None) for cost in COSTS]
            table.append([*start, *costs, letters[line.machine] if line else text.DASH])
    return _table(table)


def _metric(column: Column) -> str:
    unit = f", {column.scale.unit}" if column.scale.unit else ""
    return f"{column.metric}{unit} {text.arrow(column.best)}"


def _name(row: Row) -> str:
    return f"*{escape(row.label)}*" if row.trivial else escape(row.label)


def _bold(value: str, cell: Cell) -> str:
    return f"**{value}**" if cell.tied else value


def _text(value: str, cell: Cell) -> str:
    """Numbers of our own need no escapes; words do."""
    return value if cell.mean is not None else escape(value)


def _table(rows: Sequence[Sequence[str]]) -> str:
    marks = ["---" if i == 0 else "--:" for i in range(len(rows[0]))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], marks, *rows[1:]])


def _bullets(lines: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {escape(line)}" for line in lines)] if lines else []
