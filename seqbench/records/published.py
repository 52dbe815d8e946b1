"""What is committed of runs: records without the files beside them, figures made of them, tables in documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seqbench.errors import ConfigError
from seqbench.record import Record

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "results" / "published"
VERDICTS = "claims.json"  # of claims, beside the records that they are about


def keep(results: Path, ids: Sequence[str], into: Path) -> None:
    """Copy records (JSON alone) into a folder, with those of the runs before them.

    Raises ConfigError for one that isn't there.
    """
    from seqbench.records.store import Store

    for this in ids:
        record = Store(results).find(this)
        if record is None:
            raise ConfigError(f"results: {results} has no record {this}")
        Store(into).write(portable(record))
        keep(results, record.parents, into)


def portable(record: Record) -> Record:
    """A record without the files beside it and without the folder that it was made in, which is this machine's."""
    changes = {
        "predictions": None,
        "checkpoint": None,
        "config": record.config | {"results": "results"},
        "overrides": [text for text in record.overrides if not text.startswith("results=")],
    }
    return record.model_copy(update=changes)


def between(page: str, begin: str, end: str, content: str, *, name: str) -> str:
    """The page with what stands between its two marks replaced. Raises ConfigError where it has no marks."""
    before, first, rest = page.partition(begin)
    _, last, after = rest.partition(end)
    if not first or not last:
        raise ConfigError(f"{name}: has no place for the figures; it is between {begin} and {end}")
    return f"{before}{begin}\n{content}{end}{after}"
