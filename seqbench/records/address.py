"""Addresses of object stores (`s3://bucket/prefix`, `file:///folder`), and what reads and writes there: fsspec."""

from __future__ import annotations

import os
import re
from typing import Any

from seqbench.composition.source import suggest
from seqbench.errors import printable

LOCAL = ("file", "local")
EXAMPLE = "s3://bucket/prefix or file:///folder"
PASSWORD = re.compile(r"://[^/@]*:[^/@]*@")
SPECIAL = ("::", "*", "?", "[", "]")  # of chains and patterns, which fsspec would follow


def check(text: str) -> str:
    """The address, without a slash at its end. Asks nothing of the place itself.

    Raises ValueError for what is no address, names several places, holds a password, or has a protocol for which
    nothing is installed; the message says what to install.
    """
    if PASSWORD.search(text):
        raise ValueError("an address with a password in it, which records and logs would show; leave it to the driver")
    protocol, there, path = text.partition("://")
    if not there or not path.strip("/"):
        raise ValueError(f"{printable(text)} is no address; give one such as {EXAMPLE}")
    if any(sign in text for sign in SPECIAL):
        raise ValueError(f"{printable(text)} has {' or '.join(SPECIAL)} in it; give the address of one place")
    import fsspec

    try:
        fsspec.get_filesystem_class(protocol)
    except ValueError:
        near = suggest(protocol, fsspec.available_protocols())
        raise ValueError(f"{printable(text)}: no such protocol{near}; one such as {EXAMPLE}") from None
    except ImportError as error:
        raise ValueError(f"{text}: its driver is not installed here: {reason_of(error)}") from None
    return text.rstrip("/")


def opened(address: str) -> tuple[Any, str]:
    """fsspec's file system of an address, and the path of the place in it. Raises whatever the driver does."""
    import fsspec

    keys = {"auto_mkdir": True} if is_local(address) else {}
    system, root = fsspec.url_to_fs(address, **keys)
    return system, root.rstrip("/")


def is_local(address: str) -> bool:
    """Whether it is a folder of this machine."""
    return address.partition("://")[0] in LOCAL


def is_folder(address: str, folder: str) -> bool:
    """Whether an address is that very folder."""
    return is_local(address) and os.path.realpath(opened(address)[1]) == os.path.realpath(folder)


def reason_of(error: BaseException) -> str:
    """What a driver says went wrong, in one line; they raise errors of their own."""
    text = " ".join(str(error).split())
    name = "" if isinstance(error, ImportError) else type(error).__name__
    return printable(": ".join(part for part in (name, text) if part))[:200]
