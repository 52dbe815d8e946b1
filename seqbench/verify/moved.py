"""Own data that lies elsewhere than when it was recorded: found by the checksums in the record."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from seqbench.build import locate, paths_of
from seqbench.config import RunConfig
from seqbench.record import DataFile
from tasks.data.base import SPLITS
from tasks.data.pinned import sha256_of


def found(config: RunConfig, files: Sequence[DataFile], places: Sequence[Path]) -> RunConfig:
    """The config with paths to `files` as they lie now; as it is where nothing of its data is a path.

    The data's class names its arguments that are paths (`paths`): of splits files, in the order of the record's; any
    other is a folder of them. A path that is there stays, unless `places` are given, files or folders, which then must
    have each file. Raises LookupError, for people, with the checksum that a missing file must have.
    """
    data = config.task.get("data")
    named: Collection[str] = ()
    if isinstance(data, dict) and "_target_" in data:
        named = paths_of(locate(data["_target_"], "task.data", config.allowed))
    data = data or {}
    given = {key: value for key, value in data.items() if key in named and isinstance(value, str)}
    own = bool(files) and all(file.url.startswith("file:") for file in files)
    if places and not (given and own):
        raise LookupError("data: the record's data set reads no files of yours, so there is nothing to find in it")
    if not given or not own or (not places and all(Path(value).expanduser().exists() for value in given.values())):
        return config
    if not set(given) <= set(SPLITS):
        changed = {key: _folder(key, value, files, places) for key, value in given.items()}
    elif len(given) != len(files):
        return config  # edited: the checksums will tell
    else:
        here = {sha256_of(path): path for path in _files(places)}
        pairs = list(zip(given.items(), files, strict=True))
        changed = {key: _file(key, value, file, places, here) for (key, value), file in pairs}
    return config.model_copy(update={"task": config.task | {"data": data | changed}})


def _file(key: str, value: str, file: DataFile, places: Sequence[Path], here: dict[str, Path]) -> str:
    if file.sha256 in here:
        return str(here[file.sha256])
    if not places and Path(value).expanduser().exists():
        return value
    raise LookupError(
        f"task.data.{key}: {_missing(value, places)}; data=PATH says where {file.name} lies now, itself or its folder; "
        f"it must have the sha256 {file.sha256}"
    )


def _folder(key: str, value: str, files: Sequence[DataFile], places: Sequence[Path]) -> str:
    for place in places:
        if all((place / file.name).is_file() for file in files):
            return str(place)
    more = f" (and {len(files) - 1} more files)" if len(files) > 1 else ""
    raise LookupError(
        f"task.data.{key}: {_missing(value, places)}; data=FOLDER says where it lies now; it must have {files[0].name} "
        f"with the sha256 {files[0].sha256}{more}"
    )


def _missing(value: str, places: Sequence[Path]) -> str:
    return f"it is not in {', '.join(map(str, places))}" if places else f"{value} is not there"


def _files(places: Sequence[Path]) -> Iterator[Path]:
    """The files themselves, and those right in the folders."""
    for place in places:
        if not place.exists():
            raise LookupError(f"data: {place} is not there")
        yield from sorted(p for p in place.iterdir() if p.is_file()) if place.is_dir() else [place]
