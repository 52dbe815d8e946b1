"""How planning and boards grow with records: a table over 1,000, 10,000 and 100,000, all made up."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from seqbench.benchmark import made_up
from seqbench.benchmark.boards import board, settle
from seqbench.benchmark.planning import grid, plan
from seqbench.board.index import FOLDER

SIZES = (1_000, 10_000, 100_000)
USAGE = """python scripts/scaling.py [RECORDS ...] [folder=FOLDER]

Time and peak memory of a board and of a plan of so many runs (1000 10000 100000), as a Markdown table. Records are made
up, in a temporary folder (2.5 GiB for 100,000), or kept in FOLDER and found there the next time.
"""
HEAD = (
    "| records | first board, s (CPU s, MiB) | again, s (CPU s, MiB) | index, MiB | page, MiB "
    "| cells planned, CPU s (MiB) |\n|---|---|---|---|---|---|"
)


def main(argv: Sequence[str] | None = None) -> int:
    """0; 2 for what is neither a number nor a folder."""
    words = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(words):
        print(USAGE)
        return 0
    sizes = [int(word) for word in words if word.isdecimal()]
    kept = [word.partition("=")[2] for word in words if word.startswith("folder=") and len(word) > 7]
    if len(sizes) + len(kept) < len(words) or len(kept) > 1 or 0 in sizes:
        print(USAGE, file=sys.stderr)
        return 2
    print(HEAD, flush=True)
    for size in sizes or SIZES:
        with tempfile.TemporaryDirectory() as folder:
            print(line(size, Path(kept[0] if kept else folder)), flush=True)
    return 0


def line(records: int, folder: Path) -> str:
    """A line of the table: a board without index, one with it, a plan of as many cells."""
    shape = made_up.shape_of(records)
    results, out = folder / f"results_{shape.records}", folder / f"board_{shape.records}"
    if not results.is_dir():
        made_up.write(results, shape)
        settle()
    shutil.rmtree(results / FOLDER, ignore_errors=True)
    first, again = board(results, out), board(results, out)
    index = sum(path.stat().st_size for path in (results / FOLDER).iterdir()) / 2**20
    page = (out / "index.html").stat().st_size / 2**20
    planned = plan(grid(max(10, records // 25), 5, 5), "cpu")
    parts = (
        f"{shape.records:,} ({shape})",
        *(f"{one.wall:.1f} ({one.cpu:.1f}, {one.mib:.0f})" for one in (first, again)),
        f"{index:.0f}",
        f"{page:.1f}",
        f"{planned.cells:,}: {planned.all:.1f} ({planned.mib:.0f})",
    )
    return f"| {' | '.join(parts)} |"
