"""What every format says in the same words: cells, failures, costs, and how the numbers were made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from seqbench.board import marks, text
from seqbench.board.costs import COSTS, CostLine
from seqbench.board.model import Board, Cell, Column, Row

FORMATS = {cost.key: cost.format for cost in COSTS}


def score(cell: Cell, column: Column, *, interval: bool = True) -> str:
    """`87.4 [86.1, 88.6]`, or what there is instead of a score."""
    if cell.mean is None:
        return absence(cell)
    bounds = column.scale.interval(cell.low, cell.high) if interval else ""
    some = f"({seeds(cell)} seeds)" if cell.failures else ""
    return " ".join(part for part in (column.scale.number(cell.mean), bounds, some) if part)


def absence(cell: Cell) -> str:
    """Why a cell has no score: `out of memory (3 of 3)`, `not run`, or a dash where it is not defined."""
    if cell.state == "failed":
        return failed(cell)
    return {"undefined": text.DASH, "not run": "not run", "not planned": "n/a"}.get(cell.state, "")


def failed(cell: Cell) -> str:
    """`diverged (1 of 3)`; empty if nothing failed."""
    if not cell.failures:
        return ""
    kinds = Counter(run.record.status.replace("_", " ") for run in cell.failures)
    total = len(cell.failures) + len(cell.seeds) + len(cell.missing)
    return ", ".join(f"{kind} ({count} of {total})" for kind, count in kinds.most_common())


def failures(board: Board) -> list[str]:
    """A line for each run that did not finish."""
    lines = []
    for run in board.failures:
        at = f" at step {run.record.failed_at_step}" if run.record.failed_at_step is not None else ""
        why = f": {text.one_line(run.record.reason)}" if run.record.reason else ""
        status = run.record.status.replace("_", " ")
        lines.append(f"{run.row} on {run.column}, seed {run.record.seed}: {status}{at}{why}")
    return lines


def seeds(cell: Cell) -> str:
    """How many seeds the mean is over, and of how many if some are missing."""
    total = len(cell.seeds) + len(cell.failures) + len(cell.missing)
    return f"{len(cell.seeds)}" if total == len(cell.seeds) else f"{len(cell.seeds)} of {total}"


def cost(key: str, value: float | None) -> str:
    """A cost with its unit's rounding."""
    form = FORMATS[key]
    if form == "ms":
        return text.milliseconds(value)
    if form == "s":
        return text.seconds(value)
    if form == "mib":
        return text.mebibytes(value)
    return text.size(value)


def machines(board: Board) -> dict[str, str]:
    """A short name for each machine class: A for the one with most runs, then B, ..."""
    every = dict.fromkeys([*board.machines, *(line.machine for line in cost_lines(board))])
    return {machine: _letters(i) for i, machine in enumerate(every)}


def cost_lines(board: Board) -> list[CostLine]:
    """All of them."""
    return [line for cell in board.cells.values() for line in cell.costs]


def rank(row: Row, columns: int) -> str:
    """`1.75 [1.2, 2.3]`, with what has to be known of it: tasks missing, tasks or seeds that failed."""
    return _aggregate(row.mean_rank, row.rank_interval, 1.0, 2, row.told)


def iqm(row: Row) -> str:
    """Interquartile mean in per cent of the way from the trivial row to the best known, with its interval."""
    return _aggregate(row.iqm, row.iqm_interval, 100.0, 0, ())


def _aggregate(
    value: float | None, ends: tuple[float, float] | None, factor: float, digits: int, told: Sequence[str]
) -> str:
    if value is None:
        return text.DASH
    parts = [f"{factor * value:.{digits}f}"]
    if ends is not None:
        parts.append(f"[{factor * ends[0]:.{digits}f}, {factor * ends[1]:.{digits}f}]")
    if told:
        parts.append(f"({'; '.join(told)})")
    return " ".join(parts)


def left_out(board: Board) -> list[str]:
    """A line for each pair that the plan had to leave out."""
    names = {column.id: column.label for column in board.columns}
    lines = [(cell, note) for cell in board.cells.values() if cell.state == "not planned" for note in cell.notes]
    return [f"{cell.row} on {names[cell.column]}: {text.one_line(note)}" for cell, note in lines]


def wins(row: Row) -> str:
    """Win rate in per cent, with its interval."""
    return _aggregate(row.win_rate, row.win_interval, 100.0, 0, ())


def signs(cell: Cell) -> str:
    """` ✓⊘`, or nothing."""
    return "".join(f" {mark.sign}" for mark in cell.marks)


def title(cell: Cell) -> str:
    """What hovering over a score says: what its interval is over, notes, what failed, marks."""
    reasons = [
        f"seed {run.record.seed} {run.record.status.replace('_', ' ')}: {text.one_line(run.record.reason or '')}"
        for run in cell.failures
    ]
    return ". ".join(part for part in (cell.basis, *cell.notes, *reasons, *(mark.text for mark in cell.marks)) if part)


def legend(board: Board) -> dict[str, marks.Kind]:
    """The marks that the board has, and what they mean."""
    return marks.legend(mark for cell in board.cells.values() for mark in cell.marks)


def marked(board: Board) -> list[str]:
    """A line for each mark, for formats where nothing can be hovered over."""
    names = {column.id: column.label for column in board.columns}
    cells = [cell for cell in board.cells.values() if cell.marks]
    return [f"{mark.sign} {cell.row} on {names[cell.column]}: {mark.text}" for cell in cells for mark in cell.marks]


def method(board: Board) -> str:
    """How to read the numbers."""
    level = f"{100 * board.confidence:g} %"
    alone = "Where two rows have one seed each, this is about these two trained models, not their encoders: another "
    alone = f"{alone}seed may turn it. " if _one_seed(board) else ""
    return (
        f"Scores are means over seeds on the {board.split} split; {level} intervals are over seeds and examples "
        "together, by their variance components, and where there is one seed over its examples alone. "
        f"Bold: the best of a task and every row that could not be told from it, if only since nothing is known of "
        f"its error, paired on examples{_corrected(board)}. {_beside(board)}{alone}"
        "Mean rank and win rate are over the tasks where a row has a place, among all rows but the trivial ones; their "
        "intervals are over new seeds and examples of the same tasks, and too narrow for a row's true rank where rows "
        "are close, more so with one seed a row. "
        "IQM: interquartile mean of the runs' scores, in per cent of the way from the trivial row to the best of the "
        "board or the best known. Runs that failed are not averaged into scores: "
        f"a cell without any other ranks last, and in the IQM each counts as 0.{_columns(board)}"
    )


def _columns(board: Board) -> str:
    """Why a task is there more than once, where one is."""
    if max(Counter(column.task for column in board.columns).values(), default=0) < 2:
        return ""
    return (
        " A task is its data, its metrics and its decoding together, so runs that differ in one of them (greedy search "
        "and beams) are scores of different tasks: columns, not rows."
    )


def _corrected(board: Board) -> str:
    """The level of comparisons, and what they are corrected for."""
    level = f", at {100 - 100 * board.confidence:g} %"
    if board.comparisons == 0:
        return "; so far no two rows of a task can be compared"
    if board.comparisons == 1:
        return f"{level} (one comparison, so without a correction)"
    over = f"the {board.comparisons} comparisons of the board (all pairs of rows of a task)"
    return f"{level} after Holm's correction over {over}"


def _beside(board: Board) -> str:
    """Why a tie and the interval of a difference may disagree: two rules, of which the tie's is the more careful."""
    if board.comparisons == 0:
        return ""
    corrected = " and uncorrected" if board.comparisons > 1 else ""
    return (
        f"The interval of a bold row's difference from the best is for that one difference{corrected}, and narrower "
        "than what a tie goes by, so it may leave out 0: that alone is no proof that the row is worse. "
    )


def difference(cell: Cell, column: Column, board: Board) -> str:
    """`Less the best row: -1.2 % (95 % interval [-3.0, 0.6], ...)`; nothing where there is none."""
    if cell.difference is None:
        return ""
    unit = f" {column.scale.unit}" if column.scale.unit else ""
    ends = column.scale.interval(*(cell.difference_interval or (None, None)))
    level = f"{100 * board.confidence:g} % interval"
    told = f"{level} {ends}, not corrected for the number of comparisons" if ends else f"no {level}"
    return f"Less the best row: {column.scale.number(cell.difference, signed=True)}{unit} ({told})."


def _one_seed(board: Board) -> bool:
    """Whether some task compares two rows of one seed each."""
    counts = Counter(cell.column for cell in board.cells.values() if cell.mean is not None and len(cell.seeds) == 1)
    return any(count > 1 for count in counts.values())


def _letters(number: int) -> str:
    """A to Z, then AA, AB, ..."""
    first, second = divmod(number, 26)
    return (chr(64 + first) if first else "") + chr(65 + second)
