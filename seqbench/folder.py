"""A folder of records as a config names it: one on a disk, this machine's or a shared one."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def on_disk(text: str) -> str:
    """The folder. Raises ValueError for an address: what lies there can't be locked, and a run must be one's alone."""
    scheme, colon, _ = text.partition("://")
    if colon:
        raise ValueError(
            f"{text}: is an address ({scheme}), and records are kept on disks, where claims are locks; give a folder "
            "that all machines see, and copy it where you want it"
        )
    return text


Folder = Annotated[str, AfterValidator(on_disk)]
