"""Fixtures for all tests: no network, one thread, and where the real data lies, if anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

NO_CUDA = "needs CUDA; on a machine with a GPU: pytest -m cuda"
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_cache() -> Path:
    """The folder with the real data sets (SEQBENCH_DATA, or ../shared/data beside the checkout), else a skip."""
    for place in (os.environ.get("SEQBENCH_DATA"), str(ROOT.parent / "shared" / "data")):
        if place and (Path(place) / "sst2").is_dir():
            return Path(place)
    pytest.skip("needs real data: set SEQBENCH_DATA to a filled cache")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, visibly, what is marked `cuda` where there is none."""
    if item.get_closest_marker("cuda") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip(NO_CUDA)


@pytest.fixture(autouse=True)
def _quiet_threads() -> None:
    import torch

    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
