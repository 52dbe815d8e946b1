"""What ends the waiting for a rank that is gone, where NCCL would not; its calls are stood in for, on the CPU."""

from __future__ import annotations

import gc
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from seqbench.ranks import alarm, crew, follower
from seqbench.ranks.alarm import Alarm, break_off, is_broken_off
from seqbench.ranks.crew import Orders, summoned
from seqbench.ranks.group import Ranks
from seqbench.ranks.place import Place
from tests.seqbench.toy_config import toy_config

SECOND = Place(rank=1, size=2, local=1, nodes=1, address="127.0.0.1", port=1)


@pytest.fixture
def aborted(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when a process group, which is said to be there, is aborted."""
    event = threading.Event()
    monkeypatch.setattr(dist, "is_initialized", lambda: not event.is_set())
    monkeypatch.setattr(dist.distributed_c10d, "_abort_process_group", event.set)
    monkeypatch.setattr(alarm, "TICK", 0.01)
    monkeypatch.setattr(alarm, "GRACE", 0.01)
    return event


def test_trouble_ends_the_waiting(aborted: threading.Event) -> None:
    trouble: list[str] = []
    with Alarm(lambda: trouble, device="cuda") as watch:
        assert not aborted.wait(0.1)
        trouble.append("rank 1 is gone")
        assert aborted.wait(10)
    assert watch.rung


def test_who_ends_in_time_is_not_broken_off(aborted: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm, "GRACE", 60.0)
    looked = threading.Event()
    with Alarm(lambda: looked.set() or True, device="cuda") as watch:  # type: ignore[func-returns-value]
        assert looked.wait(10)
    assert not watch.rung
    assert not aborted.is_set()


def test_gloo_needs_none(aborted: threading.Event) -> None:
    before = threading.active_count()
    with Alarm(lambda: True, device="cpu") as watch:
        assert threading.active_count() == before
        assert not aborted.wait(0.1)
    assert not watch.rung


def test_the_first_rank_tells_and_who_finds_no_store_knows() -> None:
    here: Any = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    there: Any = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", here.port, is_master=False, timeout=timedelta(seconds=2), wait_for_workers=False
    )
    first, second = (dist.PrefixStore("attempt/0", store) for store in (here, there))  # type: ignore[attr-defined]
    assert not is_broken_off(second)
    break_off(first)
    assert is_broken_off(second)
    other = dist.PrefixStore("attempt/1", there)  # type: ignore[attr-defined]
    assert not is_broken_off(other)  # the next attempt is another
    del first, here
    gc.collect()
    assert is_broken_off(other)
    break_off(other)  # is no error


@pytest.mark.parametrize("error", [ValueError("a mistake"), KeyboardInterrupt()])
def test_a_failure_of_the_first_rank_is_told_to_the_others(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(rank=0, size=2, local=0, nodes=1, address="127.0.0.1", port=1)
    orders = Orders(dist.HashStore())  # type: ignore[attr-defined]
    monkeypatch.setattr(crew, "placed", lambda: place)
    monkeypatch.setattr(crew, "_led", crew._Led(place, orders))
    config = toy_config(tmp_path, {"trainer.devices": 2})
    with summoned(config, withhold=False):
        pass
    assert not is_broken_off(orders.part(0))
    with pytest.raises(type(error)), summoned(config, withhold=False):
        raise error
    assert is_broken_off(orders.part(1))


def test_a_follower_that_was_broken_off_reports_no_failure_of_its_own(
    aborted: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = dist.HashStore()  # type: ignore[attr-defined]

    def waits(*_: object) -> None:
        break_off(store)
        assert aborted.wait(10)
        time.sleep(0.05)
        raise ValueError("Default process group has not been initialized")

    monkeypatch.setattr("seqbench.training.facts.device_of", lambda config: "cuda")
    monkeypatch.setattr(follower, "_work", waits)
    follower._serve(SECOND, toy_config(tmp_path), False, store)
    assert aborted.is_set()
    assert not store.check(["failure"])


def test_a_rank_takes_its_device_before_it_meets_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: said.append(device))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **_: said.append(backend))
    monkeypatch.setattr(dist, "new_group", lambda **_: None)
    Ranks(rank=5, size=8, local=3, device="cuda").join()
    assert said == [3, "cpu:gloo,cuda:nccl"]
    said.clear()
    Ranks(rank=5, size=8, local=3).join()
    assert said == ["gloo"]
