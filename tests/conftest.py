"""Fixtures for all tests: no network, one thread, seeded random numbers, and where the real data lies, if anywhere."""

from __future__ import annotations

import functools
import gc
import os
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SEED = int(os.environ.get("SEQBENCH_TEST_SEED", "0"))  # another seed finds tests that pass by luck
NO_CUDA = "needs CUDA; on a machine with a GPU: pytest -m cuda"
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_cache() -> Path:
    """The folder with the real data sets (SEQBENCH_DATA, or ../shared/data beside the checkout), else a skip."""
    for place in (os.environ.get("SEQBENCH_DATA"), str(ROOT.parent / "shared" / "data")):
        if place and (Path(place) / "sst2").is_dir():
            return Path(place)
    pytest.skip("needs real data: set SEQBENCH_DATA to a filled cache")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What would be done again for each of a thousand toy runs, though nothing changes: a third of all the time.

    A run calls gc.collect(), which looked through what was imported and collected (800 000 objects, 0.25 s); and it
    hashes the package that its classes lie in (the toys' is all of tests/, ten times a run).
    """
    from seqbench.records import identity

    gc.collect()
    gc.freeze()
    whole, mine = identity.content, str(ROOT / "tests")
    once = functools.cache(whole)

    def content(path: str, patterns: Sequence[str] = ("**/*",)) -> str:
        return once(path, tuple(patterns)) if path == mine else whole(path, patterns)

    identity.content = content


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Seed what is random before any fixture; skip, visibly, what is marked `cuda` where there is none."""
    import torch

    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002 -- what code and libraries draw from without a generator of their own
    torch.manual_seed(SEED)
    if item.get_closest_marker("cuda") is not None and not torch.cuda.is_available():
        pytest.skip(NO_CUDA)


@pytest.fixture(autouse=True)
def _quiet_threads() -> None:
    import torch

    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
