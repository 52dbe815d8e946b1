"""Signals: raised where they come, at release() where they have to wait, and never lost in what Python ignores."""

from __future__ import annotations

import contextlib
import signal
import sys
import weakref
from collections.abc import Callable, Generator, Iterator

import pytest

from seqbench import process
from seqbench.process import Stopped


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Handlers and hook are put back."""

    def now() -> list[object]:
        return [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.unraisablehook]

    before = now()
    yield
    assert now() == before


class Dying:
    """Gets signals when it is removed, by a call deep in there, and notes how far its destructor comes."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers
        self.told: list[str] = []

    def __del__(self) -> None:
        self._close()
        self.told.append("ended")

    def _close(self) -> None:
        for number in self.numbers:
            signal.raise_signal(number)


def in_destructor() -> list[str]:
    thing = Dying(signal.SIGTERM, signal.SIGINT)
    told = thing.told
    del thing
    return told


def in_callback() -> list[str]:
    thing = Dying()
    callback = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
    told = thing.told
    del thing
    assert callback() is None
    return told


def in_generator() -> list[str]:
    told = ["ended"]

    def generate() -> Generator[int]:
        try:
            yield 1
        finally:
            signal.raise_signal(signal.SIGTERM)
            told.append("not reached")

    assert next(generate()) == 1
    return told


def stopped(work: Callable[[], object]) -> tuple[str, list[str]]:
    """What was raised, and what signals() has said of it."""
    came: list[str] = []
    try:
        with untouched(), process.signals() as came:
            work()
    except Stopped as error:
        return error.args[0], came
    return "nothing", came


@pytest.mark.parametrize("lose", [in_destructor, in_callback, in_generator])
def test_a_signal_where_exceptions_are_ignored_is_raised_at_the_next_release(lose: Callable[[], list[str]]) -> None:
    """And warns of nothing: pytest makes errors of what is ignored."""

    def work() -> None:
        assert lose() == ["ended"]
        assert (process.held(), process.noted()) == (False, "SIGTERM")
        process.hold()
        process.release()
        pytest.fail("the signal is lost")

    assert stopped(work) == ("SIGTERM", ["SIGTERM"])


@pytest.mark.parametrize("lose", [in_destructor, in_callback, in_generator])
def test_a_second_signal_after_a_lost_one_is_raised_where_it_comes(lose: Callable[[], list[str]]) -> None:
    def work() -> None:
        lose()
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the signal is lost")

    assert stopped(work) == ("SIGINT", ["SIGTERM"])


def test_without_another_release_the_end_tells_of_it() -> None:
    assert stopped(in_destructor) == ("nothing", ["SIGTERM"])


def test_what_is_held_stays_so_after_a_lost_signal() -> None:
    def work() -> None:
        process.hold()
        signal.raise_signal(signal.SIGINT)
        in_callback()  # a second one doesn't wait, and Python ignores what it raises
        assert process.held()
        process.hold(firmly=True)
        in_callback()
        signal.raise_signal(signal.SIGTERM)
        process.release()
        pytest.fail("the signal is lost")

    assert stopped(work) == ("SIGINT", ["SIGINT"])


def test_other_exceptions_that_are_ignored_are_still_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))

    class Broken:
        def __del__(self) -> None:
            raise ZeroDivisionError

    with untouched(), process.signals() as came:
        thing = Broken()
        del thing
    assert (told, came) == ([ZeroDivisionError], [])
