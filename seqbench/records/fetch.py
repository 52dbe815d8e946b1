"""Records of an object store in a folder of this machine: what its listing says is new is fetched, the rest is there.

The folder looks like one of results, without weights. Nothing in a listing decides where a file is written: folders are
ids, files have three names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqbench.errors import ConfigError
from seqbench.records import verified
from seqbench.records.address import opened, reason_of
from seqbench.records.folder import is_address
from seqbench.records.store import ID, NAME, write_atomic

ABOUT = ".mirror"  # a folder beside the records: their address, and what was fetched
PREDICTIONS = "predictions.parquet"
FILES = (NAME, PREDICTIONS, verified.NAME)
# What a listing says of a file's content besides its size, by the names that stores have for it.
MARKS = ("ETag", "etag", "md5Hash", "checksum", "LastModified", "last_modified", "updated", "mtime", "created", "ino")
TOGETHER = 256  # files that are fetched at once


def local(place: str) -> Path:
    """The folder of records that a place is, or that it was fetched into. Raises ConfigError."""
    return fetched(place, cache()) if is_address(place) else Path(place)


def cache() -> Path:
    """Where what was fetched lies, a folder for each address; may be deleted at any time."""
    import platformdirs

    return platformdirs.user_cache_path("seqbench") / "mirrors"


def address_of(results: Path) -> str | None:
    """The address that a folder of records was fetched from; None for any other."""
    with contextlib.suppress(OSError):
        return (results / ABOUT / "address").read_text(encoding="utf-8")
    return None


def fetched(address: str, cache: Path) -> Path:
    """The folder with the records of an address as they are now. Raises ConfigError where it can't be read.

    Fetched is what has another size or mark than last time; a record that is gone there goes here, too.
    """
    folder = cache / hashlib.sha256(address.encode()).hexdigest()[:16]
    try:
        (folder / ABOUT).mkdir(parents=True, exist_ok=True)
        write_atomic(folder / ABOUT / "address", address.encode())
        system, root = opened(address)
        system.invalidate_cache()
        listed = _whole(system.find(root, detail=True), system._strip_protocol(root))
        _fetch(system, listed, folder)
    except Exception as error:  # a driver's own, of any kind
        raise ConfigError(f"results: {address} cannot be read ({reason_of(error)})") from None
    for path in folder.iterdir():
        if ID.fullmatch(path.name) and f"{path.name}/{NAME}" not in listed:
            shutil.rmtree(path, ignore_errors=True)
    return folder


def _whole(found: Mapping[str, Mapping[str, Any]], root: str) -> dict[str, Mapping[str, Any]]:
    """What a listing says of files of records that have a record.json, by `<id>/<name>`; all else is let be."""
    listed = {}
    for path, said in found.items():
        this, _, name = path.removeprefix(root).lstrip("/").partition("/")
        if ID.fullmatch(this) and name in FILES:
            listed[f"{this}/{name}"] = {**said, "name": path}
    return {name: said for name, said in listed.items() if f"{name[:16]}/{NAME}" in listed}


def _fetch(system: Any, listed: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Bring the folder up to date with a listing. What was fetched is noted, also where the rest fails."""
    path = folder / ABOUT / "fetched.json"
    known: dict[str, list[Any]] = {}
    with contextlib.suppress(OSError, ValueError):  # it is only a cache
        known = dict(json.loads(path.read_bytes()))
    now = {name: [_mark(said), _written(folder / name)] for name, said in listed.items()}
    new = [name for name, state in now.items() if state[1] is None or known.get(name) != state]
    gone = known.keys() - now.keys()
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    if new:
        _say(new, listed)
    kept = {name: now[name] for name in now.keys() - set(new)}
    try:
        for start in range(0, len(new), TOGETHER):
            some = new[start : start + TOGETHER]
            for this in {name[:16] for name in some}:
                (folder / this).mkdir(exist_ok=True)
            aside = [folder / f"{name[:16]}/.{name[17:]}.{os.getpid()}.tmp" for name in some]
            try:
                system.get([listed[name]["name"] for name in some], [str(place) for place in aside])
                for name, place in zip(some, aside, strict=True):
                    place.replace(folder / name)
                    kept[name] = [now[name][0], _written(folder / name)]
            finally:
                for place in aside:
                    place.unlink(missing_ok=True)
    finally:
        if new or gone:
            write_atomic(path, json.dumps(kept).encode())


def _say(new: Sequence[str], listed: Mapping[str, Any]) -> None:
    some, all_ = (len({name[:16] for name in names}) for names in (new, listed))
    print(f"fetching {some:,} of {all_:,} records", file=sys.stderr, flush=True)


def _mark(said: Mapping[str, Any]) -> str:
    """What tells a file's content from that of another under its name: size and whatever mark the store has."""
    return " ".join(str(said[key]) for key in ("size", *MARKS) if said.get(key) is not None)


def _written(path: Path) -> int | None:
    """When a file here was written, ns: another process may have fetched it since; None where there is none."""
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns
    return None
