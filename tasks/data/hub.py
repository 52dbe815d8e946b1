"""Data sets of the Hugging Face hub at a pinned revision, or local folders of the same layout, by named columns."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tasks.data.base import DataError, Example, FileFact
from tasks.data.columns import Columns
from tasks.data.pinned import sha256_of
from tasks.data.shares import OwnData

COMMIT = re.compile(r"[0-9a-f]{40}")


class Hub(OwnData):
    """`datasets.load_dataset(path, name, revision=revision, split=...)`; a set's own code is never run.

    A hub name needs `revision`, a commit's 40 hexadecimal digits: a branch or tag can move. A local folder needs none;
    its files are hashed. `train`, `valid` and `test` are the set's own names of its splits; `valid` and `test` may be
    null: see OwnData for the shares. Class numbers become the class names that the set has for them.
    """

    paths: ClassVar[frozenset[str]] = frozenset({"path"})

    def __init__(
        self,
        *,
        path: str,
        name: str | None,
        revision: str | None,
        train: str,
        valid: str | None,
        test: str | None,
        columns: dict[str, str | list[str] | dict[str, str]],
        source_type: Literal["text", "words"],
        target_type: Literal["text", "words", "number"],
        valid_share: Annotated[float, Field(ge=0, lt=1)],
        test_share: Annotated[float, Field(ge=0, lt=1)],
        split_seed: int,
    ) -> None:
        places = {"train": train, "valid": valid, "test": test}
        super().__init__(places=places, valid_share=valid_share, test_share=test_share, split_seed=split_seed)
        self.path, self.name, self.revision = path, name, revision
        self.columns = Columns.of(columns, source_type, target_type)
        self.streams = self.columns.declared

    @property
    def folder(self) -> Path | None:
        """The local folder, if `path` is one; a hub name otherwise."""
        place = Path(self.path)
        return place if place.is_dir() else None

    def identity(self) -> list[FileFact]:
        """A folder's files. For a hub set, one fact: its commit determines the bytes, so that name and commit are
        hashed in place of files that aren't here yet.
        """
        self._check_revision()
        if self.folder is not None:
            files = sorted(p for p in self.folder.rglob("*") if p.is_file() and not p.name.startswith("."))
            names = [p.relative_to(self.folder).as_posix() for p in files]
            return [
                FileFact(name=name, url=f"file:{name}", sha256=sha256_of(p), size=p.stat().st_size)
                for name, p in zip(names, files, strict=True)
            ]
        pin = json.dumps([self.path, self.name, self.revision])
        url = f"https://huggingface.co/datasets/{self.path}/tree/{self.revision}"
        return [FileFact(name=self.path, url=url, sha256=hashlib.sha256(pin.encode()).hexdigest())]

    def check(self) -> None:
        """The set is there (or is fetched) and its splits have the columns."""
        for split, place in self.places.items():
            if place is not None:
                self.columns.check(self._open(place).column_names, f"{self.path}, split {place} (task.data.{split})")

    def load(self, split: str, place: str) -> list[Example]:
        """All rows of one of the set's splits."""
        table = self._open(place)
        self.columns.check(table.column_names, f"{self.path}, split {place} (task.data.{split})")
        names = {name: _class_names(table.features[name]) for name in self.columns.names}
        content = table[:]
        examples = []
        for i in range(len(table)):
            row = {name: _named(content[name][i], names[name]) for name in self.columns.names}
            examples.append(self.columns.example(row, f"{self.path}, split {place}, row {i}", i))
        return examples

    def _check_revision(self) -> None:
        if self.folder is None and not COMMIT.fullmatch(self.revision or ""):
            if Path(self.path).is_absolute() or self.path.startswith("."):
                raise DataError(f"task.data.path: {self.path} is no folder")
            raise DataError(
                f"task.data.revision: {self.revision}; the hub set {self.path!r} needs the 40 digits of a commit"
                " (on its page under Files, History), since a branch can move"
            )

    def _open(self, place: str) -> Any:
        self._check_revision()
        import datasets

        was_on = datasets.utils.is_progress_bar_enabled()
        datasets.disable_progress_bars()
        try:
            return datasets.load_dataset(self.path, self.name, revision=self._revision(), split=place)
        except Exception as error:  # of many kinds and modules; each is about what the user named
            raise DataError(self._explain(error)) from None
        finally:
            if was_on:
                datasets.enable_progress_bars()

    def _revision(self) -> str | None:
        return None if self.folder is not None else self.revision

    def _explain(self, error: Exception) -> str:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if isinstance(error, ConnectionError) or "Offline" in str(error) or "offline" in str(error):
            return (
                f"task.data.path: {self.path!r} can't be reached (no network, or HF_HUB_OFFLINE is set) and isn't in"
                " the cache; a local folder works offline"
            )
        return f"task.data: {self.path!r} can't be loaded: {reason:.200}"


def _class_names(feature: Any) -> list[str] | None:
    """Names of a feature that holds class numbers, alone or in a list."""
    inner = getattr(feature, "feature", feature)
    return getattr(inner, "names", None)


def _named(value: Any, names: list[str] | None) -> Any:
    if names is None or value is None:
        return value
    if isinstance(value, (list, tuple)):
        return [_named(item, names) for item in value]
    return names[value] if 0 <= value < len(names) else None
