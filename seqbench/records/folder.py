"""Where records are, as a config names it: a folder on a disk, an object store that is read, one that is written."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def is_address(text: str) -> bool:
    """Whether it names a place by a protocol (`s3://bucket/prefix`), not a folder."""
    return "://" in text


def on_disk(text: str) -> str:
    """The folder. Raises ValueError for an address: what lies there can't be locked, and a run must be one's alone."""
    if is_address(text):
        raise ValueError(
            f"{text} is an address, and runs are kept on disks, where claims are locks; give a folder that all "
            f"machines see, and mirror={text} has finished records put there"
        )
    return text


def address(text: str) -> str:
    """The address of an object store. Raises ValueError for none, and where nothing here can write there."""
    from seqbench.records.address import check

    return check(text)


def place(text: str) -> str:
    """A folder, or an address that can be read. Raises ValueError."""
    return address(text) if is_address(text) else text


Folder = Annotated[str, AfterValidator(on_disk)]
Address = Annotated[str, AfterValidator(address)]
Place = Annotated[str, AfterValidator(place)]
