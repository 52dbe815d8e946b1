"""The cluster as a fixture, one for all tests of this folder."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.two_nodes import TwoNodes, missing


@pytest.fixture(scope="session")
def cluster() -> Iterator[TwoNodes]:
    if why := missing():
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="sb-slurm-", dir="/tmp"))
    made = TwoNodes(folder)
    try:
        made.start()
        yield made
    except BaseException:
        print(made.told(), file=sys.stderr)
        raise
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)
