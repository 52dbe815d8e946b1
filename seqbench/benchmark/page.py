"""The table of a measurement, on a terminal and as its section of docs/performance.md."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from seqbench.benchmark.base import Row

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
HEAD = """# Performance
What SeqBench costs beside its peers, measured by `python scripts/benchmark.py`: ours and the peer's alternate within
one run. A ratio is the median of ours / peer over the pairs, in brackets their 10 % and 90 % quantiles. Each section
says where and by what it was made; `python scripts/benchmark.py NAME write=true` makes it anew.
"""
COLUMNS = ("what", "ours", "peer", "ratio", "goal", "", "repeats")


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, in the order of COLUMNS."""
    judged = {True: "reached", False: "missed", None: ""}[row.reached]
    sign = "at most" if row.better == "lower" else "at least"
    unit = f" {row.unit}" if row.ratio is None else ""
    return (
        row.what + (f" ({row.note})" if row.note else ""),
        f"{number(row.ours)} {row.unit}",
        "" if row.peer is None else f"{number(row.peer)} {row.unit}",
        "" if row.ratio is None else f"{row.ratio:.3f} ({row.low:.3f} to {row.high:.3f})",
        "" if row.goal is None else f"{sign} {row.goal:g}{unit}",
        judged,
        str(row.repeats),
    )


def number(value: float) -> str:
    """Four digits that count, without an exponent."""
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    digits = max(0, 4 - whole)
    return f"{value:,.{digits}f}"


def text(rows: Sequence[Row]) -> str:
    """For a terminal."""
    lines = [COLUMNS, *(cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def section(name: str, title: str, rows: Sequence[Row], *, command: str, threads: int) -> str:
    """Markdown: what is measured, the table, and what it was made with."""
    from seqbench.records import provenance

    code = provenance.code()
    commit = "no commit" if code.commit is None else code.commit[:12] + (" with changes" if code.dirty else "")
    versions = ", ".join(f"{package} {version}" for package, version in _versions().items())
    table = [f"| {' | '.join(COLUMNS)} |", "|---|--:|--:|--:|--:|---|--:|"]
    table += [f"| {' | '.join(cells(row))} |" for row in rows]
    where = f"{provenance.machine_class('cpu', 1, threads)}; {platform.platform(aliased=True, terse=True)}"
    return "\n".join([f"## {name}", title, "", *table, "", f"`{command}`, commit {commit}; {where}; {versions}", ""])


def with_section(page: str, name: str, content: str) -> str:
    """The page with the section of one measurement made anew, at its place, or last; the others as they were."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, found, rest = page.partition(begin)
    if not found:
        return f"{page.rstrip()}\n\n{begin}{content}{end}"
    _, closed, after = rest.partition(end)
    if not closed:
        raise ValueError(f"the section {name} begins and does not end: put {end.strip()!r} behind it")
    return f"{before}{begin}{content}{end}{after}"


def _versions() -> dict[str, str]:
    from importlib import metadata

    found = {"python": platform.python_version()}
    for name in ("torch", "pytorch-lightning", "transformers"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
