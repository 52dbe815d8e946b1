"""Verdicts as they are kept: beside a user's records, and with the published ones."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from seqbench.claims.sheet import Claim
from seqbench.claims.verdict import Judged
from seqbench.errors import ConfigError
from seqbench.records import published

NAME = published.VERDICTS
LOCK = f".{NAME}"  # a folder while somebody writes
PATIENCE = 30.0  # s
PAGE = published.ROOT / "docs" / "claims.md"
BEGIN, END = "<!-- verdicts: python scripts/claims.py claim=NAME publish=true -->", "<!-- end of verdicts -->"


def read(folder: Path) -> dict[str, Judged]:
    """The verdicts that were kept in a folder last, by claim."""
    path = folder / NAME
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: Judged.model_validate_json(json.dumps(judged)) for name, judged in content.items()}
    except (ValueError, AttributeError):  # pydantic's errors are ValueErrors
        raise ConfigError(
            f"{path}: cannot be read (cut off, or of another version); delete it and judge again"
        ) from None


def write(folder: Path, verdicts: dict[str, Judged]) -> None:
    """Keep verdicts beside those of other claims, those too that other commands write at the same time."""
    from seqbench.records.store import write_atomic

    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        every = {**read(folder), **verdicts}
        content = {name: every[name].model_dump(mode="json") for name in sorted(every)}
        write_atomic(folder / NAME, (json.dumps(content, indent=1) + "\n").encode())


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder's verdicts; another command is waited for, as it needs milliseconds. Raises Claimed if it hangs."""
    from seqbench.records.claim import Claimed, claim

    until = time.monotonic() + PATIENCE
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(claim(folder / LOCK))
                break
            except Claimed:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        yield


def publish(results: Path, name: str, judged: Judged, claims: dict[str, Claim]) -> None:
    """Copy a claim's records (JSON alone), keep its verdict, write the table of all that are published."""
    from seqbench.claims.words import table
    from seqbench.records.store import write_atomic

    published.keep(results, judged.ids, published.PUBLISHED)
    write(published.PUBLISHED, {name: judged})
    with _alone(published.PUBLISHED):
        every = read(published.PUBLISHED)
        page = published.between(PAGE.read_text(encoding="utf-8"), BEGIN, END, table(claims, every), name=PAGE.name)
        write_atomic(PAGE, page.encode())
