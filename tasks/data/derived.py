"""A data set made of another one: what the two have in common."""

from __future__ import annotations

from tasks.data.base import DataSet, FileFact


class Derived(DataSet):
    """Examples of another data set, some of them changed or left out: with its files, its version and its promises."""

    def __init__(self, data: DataSet) -> None:
        self.data = data
        self.version = data.version  # type: ignore[misc]  # of the examples, which are its own
        self.overlap, self.independent_valid = data.overlap, data.independent_valid  # type: ignore[misc]
        self.modality, self.streams, self.graph = data.modality, data.streams, data.graph

    def identity(self) -> list[FileFact]:
        """The files of the other one."""
        return self.data.identity()

    def check(self) -> None:
        """As the other one."""
        self.data.check()
