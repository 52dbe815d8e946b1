"""The board as LaTeX tables (booktabs), to be read by a paper with \\input."""

from __future__ import annotations

from collections.abc import Sequence

from seqbench.board import text, words
from seqbench.board.costs import COSTS
from seqbench.board.model import Board, Cell, Column, Row

ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    text.DASH: "--",
    "…": r"\ldots{}",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}


def render(board: Board) -> str:
    """The whole file: a table of all tasks, then one per task."""
    head = f"% {text.one_line(board.title)}\n% In the preamble: \\usepackage{{booktabs}} \\usepackage[T1]{{fontenc}}\n"
    return head + "\n".join([_summary(board), *(_task(board, column) for column in board.columns)])


def escape(value: str) -> str:
    """Text that LaTeX prints as it is, on one line."""
    return "".join(ESCAPES.get(char, char) for char in " ".join(value.split()) if char.isprintable())


def _summary(board: Board) -> str:
    heads = [
        "Encoder",
        *(_head(column) for column in board.columns),
        r"Rank $\downarrow$",
        r"Wins $\uparrow$",
        r"IQM $\uparrow$",
    ]
    lines = []
    for row in board.rows:
        cells = [_score(board.cell(row, column), column) for column in board.columns]
        ranks = [escape(words.rank(row, len(board.columns))), escape(words.wins(row)), escape(words.iqm(row))]
        lines.append((row.trivial, [_name(row), *cells, *ranks]))
    legend = "".join(f" {kind.letter}: {kind.meaning}." for kind in words.legend(board).values())
    caption = f"{escape(board.title)}. {escape(words.method(board) + legend)}"
    return _table(heads, lines, caption=caption, label="summary")


def _task(board: Board, column: Column) -> str:
    letters = words.machines(board)
    heads = ["Encoder", _head(column), "Seeds", *(escape(cost.header) for cost in COSTS)]
    lines = []
    for row, cell in board.in_column(column):
        for i, line in enumerate(cell.costs or (None,)):
            start = [_name(row), _score(cell, column), words.seeds(cell)] if i == 0 else ["", "", ""]
            mark = f"$^{{{letters[line.machine]}}}$" if line and len(column.machines) > 1 else ""
            costs = [
                escape(words.cost(c.key, line.values[c.key] if line else None)) + (mark if c.of_machine else "")
                for c in COSTS
            ]
            lines.append((row.trivial, [*start, *costs]))
    machines = "; ".join(f"{letters[m]}: {escape(m)}" for m in column.machines)
    caption = f"{escape(column.label)}, {column.examples or 0} examples. Machine {machines or '--'}."
    caption = " ".join([caption, *(f"{escape(account.line())}." for account in column.accounts)])
    return _table(heads, lines, caption=caption, label=f"task{board.columns.index(column)}")


def _head(column: Column) -> str:
    unit = f", {column.scale.unit}" if column.scale.unit else ""
    arrow = escape(text.arrow(column.best)) if column.metric else ""
    return rf"\shortstack{{{escape(column.label)}\\{escape(column.metric + unit)} {arrow}}}"


def _name(row: Row) -> str:
    return rf"\emph{{{escape(row.label)}}}" if row.trivial else escape(row.label)


def _score(cell: Cell, column: Column) -> str:
    if cell.mean is None:
        return escape(words.absence(cell))
    number = column.scale.number(cell.mean)
    number = rf"\textbf{{{number}}}" if cell.tied else number
    if cell.marks:
        number += rf"$^{{\mathrm{{{','.join(mark.letter for mark in cell.marks)}}}}}$"
    interval = column.scale.interval(cell.low, cell.high)
    return rf"{number} {{\scriptsize {interval}}}" if interval else number


def _table(heads: Sequence[str], lines: Sequence[tuple[bool, Sequence[str]]], *, caption: str, label: str) -> str:
    body = []
    for i, (trivial, cells) in enumerate(lines):
        if trivial and i and not lines[i - 1][0]:
            body.append(r"\midrule")
        body.append(" & ".join(cells) + r" \\")
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:{label}}}",
            r"\end{table}",
            "",
        ]
    )
