"""Files from pinned addresses: a card per set, a cache on disk, checked by sha256 before anything is read."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tasks.data.base import DataError, FileFact

CARDS = Path(__file__).parent / "cards"
CONNECTIONS = 8  # files that are fetched at the same time


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What is known of a pinned data set: `cards/<name>.yaml`.

    A set of a few files names them under `files` (name, url, sha256, size in bytes). A set of thousands says
    `listing: <file>.csv` instead, a table beside the card with the columns name, sha256, bytes (and `path`, if it is
    not the name); a file's address is then `url_prefix` + path. Both may stand in one card.
    """

    name: str
    title: str
    modality: str
    licence: str
    citation: str
    splits: dict[str, int]  # number of examples that the reader gives, counted
    files: tuple[FileFact, ...]  # all of them, those of the listing included
    listed: FileFact | None = None  # the listing itself, which stands for its files in `identity`
    generated: bool = False  # what tasks read is made by code; the files are there to compare it with
    homepage: str = ""
    notes: str = ""


@cache
def card(name: str) -> Card:
    """The card of a set. Raises DataError for an unknown name."""
    path = CARDS / f"{name}.yaml"
    if not path.is_file():
        near = get_close_matches(name, card_names(), n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        raise DataError(f"no data set {name!r}{meant}; pinned are: {', '.join(card_names())}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is ten times as fast
    content: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    files = tuple(FileFact(**file) for file in content.pop("files", []))
    listing, prefix = content.pop("listing", None), content.pop("url_prefix", None)
    if listing is not None:
        table = CARDS / listing
        listed = FileFact(name=listing, url=prefix, sha256=sha256_of(table), size=table.stat().st_size)
        return Card(name=name, files=files + _listed(table, prefix), listed=listed, **content)
    return Card(name=name, files=files, **content)


def card_names() -> list[str]:
    """Names of all pinned sets, sorted."""
    return sorted(path.stem for path in CARDS.glob("*.yaml"))


def identity(name: str, only: Collection[str] | None = None) -> list[FileFact]:
    """The facts that pin a set (of it, the files named in `only`); a listing is one fact, not thousands."""
    known = card(name)
    listed = {fact.name for fact in _listed(CARDS / known.listed.name, known.listed.url)} if known.listed else set()
    facts = [fact for fact in known.files if fact.name not in listed and (only is None or fact.name in only)]
    return facts + ([known.listed] if known.listed else [])


def cache_folder() -> Path:
    """SEQBENCH_DATA, or the platform's cache folder. Laid out <data set>/<file>; a filled one is used offline."""
    import platformdirs

    return Path(os.environ.get("SEQBENCH_DATA") or platformdirs.user_cache_path("seqbench") / "data").expanduser()


def path_of(name: str, file: str) -> Path:
    """Where a file of a set lies, or would lie."""
    return cache_folder() / name / file


def is_cached(name: str) -> bool:
    """Whether all files of a set lie in the cache; their checksums are not read."""
    return all(path_of(name, fact.name).is_file() for fact in card(name).files)


def check_files(name: str, *, download: bool = True, only: Collection[str] | None = None) -> dict[str, Path]:
    """Paths by file name, each checked; what is missing is downloaded first, where `download` allows it.

    `only` restricts it to some of the card's files. Raises DataError that names the first file that is missing,
    can't be fetched or has another checksum than the card says.
    """
    facts = [fact for fact in card(name).files if only is None or fact.name in only]
    missing = [fact for fact in facts if not path_of(name, fact.name).is_file()]
    if missing and not download:
        raise DataError(
            f"{name}: {path_of(name, missing[0].name)} is missing{_more(len(missing) - 1)};"
            f" `python scripts/data.py fetch {name}` brings it"
        )
    if missing:
        _download_all(name, missing)
    return {fact.name: _checked(name, fact) for fact in facts}


def sha256_of(path: Path) -> str:
    """Checksum of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _more(number: int) -> str:
    return f" and {number} more" if number else ""


@cache
def _listed(table: Path, prefix: str) -> tuple[FileFact, ...]:
    with table.open(encoding="utf-8", newline="") as file:
        return tuple(
            FileFact(
                name=row["name"],
                url=prefix + (row.get("path") or row["name"]),
                sha256=row["sha256"],
                size=int(row["bytes"]),
            )
            for row in csv.DictReader(file)
        )


def _checked(name: str, fact: FileFact) -> Path:
    path = path_of(name, fact.name)
    try:
        found = _sha256_cached(str(path), path.stat().st_mtime_ns, path.stat().st_size)
    except OSError as error:
        raise DataError(f"{name}: {path} can't be read ({error.strerror})") from None
    if found != fact.sha256:
        raise DataError(
            f"{name}: {path} has sha256 {found[:12]}..., the card says {fact.sha256[:12]}...;"
            f" delete it and run `python scripts/data.py fetch {name}`"
        )
    return path


@cache
def _sha256_cached(path: str, mtime_ns: int, size: int) -> str:
    return sha256_of(Path(path))


def _download_all(name: str, facts: list[FileFact]) -> None:
    from tqdm import tqdm

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        jobs = pool.map(lambda fact: _download(name, fact), facts)
        try:
            for _ in tqdm(jobs, total=len(facts), desc=f"fetch {name}", unit="file", disable=None, leave=False):
                pass  # the bar counts; a failed job raises here
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _download(name: str, fact: FileFact) -> None:
    """One file, under its own name only when it is whole and its checksum right (pooch writes beside it and moves)."""
    import pooch
    import requests

    path = path_of(name, fact.name)
    pooch.get_logger().setLevel("ERROR")  # its progress lines would stand between those of our bar
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(
            fact.url, known_hash=f"sha256:{fact.sha256}", fname=path.name, path=path.parent, progressbar=False
        )
    except (requests.RequestException, OSError, ValueError) as error:
        raise DataError(
            f"{name}: {fact.name} is not in {path.parent} and could not be fetched from {fact.url}: {_reason(error)}.\n"
            "Set SEQBENCH_DATA to a filled cache, or try again with a network."
        ) from None


def _reason(error: Exception) -> str:
    """In a few words; the libraries' own sentences repeat addresses and names of their objects."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server says {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "the server doesn't answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, ValueError) and "hash" in str(error):
        return "what comes from there has another sha256 than the card says"
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
