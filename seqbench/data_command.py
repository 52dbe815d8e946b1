"""The pinned data sets from the command line: list, fetch, check."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tasks.data import pinned
from tasks.data.base import DataError


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 2 for data that is missing, can't be fetched or is not what its card says."""
    parser = argparse.ArgumentParser(
        prog="data.py",
        description="Pinned data sets: what there is, bring one into the cache, check one there.",
        epilog=f"The cache is {pinned.cache_folder()}; SEQBENCH_DATA names another.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="all sets, their licence, and whether they are in the cache")
    fetch = commands.add_parser("fetch", help="download what is missing, then check")
    check = commands.add_parser("check", help="compare the files in the cache with their checksums; no network")
    for command in (fetch, check):
        command.add_argument("name", metavar="NAME", help="as `list` shows it")
    given = parser.parse_args(argv)
    try:
        print(_table() if given.command == "list" else _brought(given.name, download=given.command == "fetch"))
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; whole files stay, started ones don't", file=sys.stderr)
        return 130
    return 0


def _table() -> str:
    rows = [("name", "cached", "files", "MB", "modality", "licence")]
    for name in pinned.card_names():
        card = pinned.card(name)
        size = sum(fact.size or 0 for fact in card.files) / 1e6
        cached = "generated" if card.generated else "yes" if pinned.is_cached(name) else "no"
        rows.append((name, cached, str(len(card.files)), f"{size:.1f}", card.modality, _short(card.licence)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(
        [*lines, "generated: made by code, nothing to fetch; its files are only what tests compare it with"]
    )


def _short(text: str, width: int = 60) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= width else one_line[: width - 3] + "..."


def _brought(name: str, *, download: bool) -> str:
    paths = pinned.check_files(name, download=download)
    noun = "file" if len(paths) == 1 else "files"
    return f"{name}: {len(paths)} {noun} in {pinned.cache_folder() / name}, checksums right"
