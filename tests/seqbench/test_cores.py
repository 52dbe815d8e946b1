"""Work forked to other processes: its order, what comes back, and what happens where nothing does."""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable

import pytest

from seqbench import cores
from seqbench.cores import at_once, shares, workers
from seqbench.errors import ConfigError

HERE = os.getpid()


def pid(number: int) -> tuple[int, int]:
    return number, os.getpid()


def test_each_share_but_the_first_has_a_process_of_its_own() -> None:
    found = at_once([functools.partial(pid, number) for number in range(3)])
    assert [number for number, _ in found] == [0, 1, 2]
    assert found[0][1] == HERE
    assert len({process for _, process in found}) == 3
    assert at_once([]) == []


def dies() -> int:
    if os.getpid() != HERE:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1


def not_sent() -> Callable[[], int]:
    return lambda: 2  # cannot be pickled


def test_work_that_does_not_come_back_is_done_here() -> None:
    first, second, third = at_once([lambda: 0, dies, not_sent])
    assert (first, second) == (0, 1)
    assert third() == 2


def test_an_error_is_raised_here_as_by_one_process(capfd: pytest.CaptureFixture[str]) -> None:
    def wrong() -> None:
        raise ConfigError("encoder.dim: 0; give 1 or more")

    with pytest.raises(ConfigError, match=r"^encoder.dim: 0; give 1 or more$"):
        at_once([lambda: None, wrong])
    assert capfd.readouterr().err == ""


def test_an_error_of_ones_own_share_leaves_no_process() -> None:
    def wrong() -> None:
        raise ConfigError("mine")

    with pytest.raises(ConfigError, match="mine"):
        at_once([wrong, threading.Event().wait])  # a child that never comes back is stopped


def test_shares_are_runs_of_all_items_in_order() -> None:
    assert [list(share) for share in shares(range(7), 3)] == [[0, 1], [2, 3], [4, 5, 6]]
    assert [list(share) for share in shares("", 1)] == [[]]


def test_processes_are_one_a_core_and_none_beside_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "cores", lambda: 4)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    assert [workers(parts) for parts in (0, 1, 3, 100)] == [1, 1, 3, 4]
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert workers(100) == 1
