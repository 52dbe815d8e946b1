"""What a sweep shows of itself: lines, the bar, times."""

from __future__ import annotations

import io
import os
import threading
import time

import pytest

from seqbench.records.store import read
from seqbench.studies.studybar import StudyBar, about, spell, ticking
from seqbench.training.progress import Event
from tests.seqbench.toy_cli import BASE, Toy


# -- the bar -------------------------------------------------------------------------------------------------------
class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_line_per_cell_without_a_terminal() -> None:
    stream, clock = io.StringIO(), Clock()
    cells = [("a", "lstm x digits", 100, "digits"), ("b", "lstm x scan", 300, "scan")]
    bar = StudyBar([*cells, ("c", "majority x scan", 0, "scan")], stream=stream, clock=clock)
    bar.start("a")
    clock.now = 10
    bar.finish("a", "accuracy 0.5")
    assert bar.left() == pytest.approx(30.5)  # 300 steps at 0.1 s, and a row without steps
    bar.start("b")
    clock.now = 20
    bar.watch("b", Event(kind="step", step=150, steps=300))
    assert bar.left() == pytest.approx(10.5)  # its own pace
    clock.now = 30
    bar.tick()
    bar.finish("b", "failed: x")
    bar.start("c")
    clock.now = 31
    bar.finish("c", "accuracy 0.1")
    bar.close()
    assert stream.getvalue().splitlines() == [
        "[1/3] lstm x digits  accuracy 0.5  10 s  (about 35 s left)",
        "[2/3] lstm x scan  failed: x  20 s  (about 5 s left)",
        "[3/3] majority x scan  accuracy 0.1  1 s",
    ]


def test_time_left_over_two_lanes() -> None:
    clock = Clock()
    cells = [(this, this.upper(), steps, "x") for this, steps in zip("abcd", (100, 100, 60, 20), strict=True)]
    bar = StudyBar(cells, lanes=2, stream=io.StringIO(), clock=clock)
    bar.start("a")
    bar.start("b")
    clock.now = 10
    bar.finish("a", "done")  # 0.1 s a step
    bar.start("c")
    bar.watch("b", Event(kind="step", step=50, steps=100))  # 0.2 s a step: ten more seconds
    assert bar.left() == pytest.approx(10)  # c takes 6 s, d 2 s after it
    bar.watch("b", Event(kind="step", step=100, steps=100))
    assert bar.left() == pytest.approx(6)  # d is taken by the lane of b


def test_one_line_that_is_drawn_anew_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "79")
    stream, clock = Terminal(), Clock()
    bar = StudyBar([("a", "A", 10, "x"), ("b", "B", 10, "x")], stream=stream, clock=clock)
    bar.start("a")
    clock.now = 5
    bar.watch("a", Event(kind="step", step=5, steps=10))
    drawn = stream.getvalue().rpartition("\r\x1b[K")[2]
    assert drawn == "[0/2] #####............... 5 s, about 15 s left  A 50%"  # 5 of this one, 10 of the next
    clock.now = 6
    bar.tick()  # nothing but time has gone by
    assert "] #####............... 6 s, about " in stream.getvalue().rpartition("\r")[2]
    clock.now = 10
    bar.finish("a", "done")
    assert stream.getvalue().count("\n") == 1  # finished cells stay, the bar does not
    bar.start("b")
    bar.say("B: a warning")
    assert "\r\x1b[KB: a warning\n\r\x1b[K[1/2] " in stream.getvalue()
    monkeypatch.setenv("COLUMNS", "40")
    bar.start("b")
    drawn = stream.getvalue().rpartition("\x1b[K")[2]
    assert drawn.endswith("B 0%")
    assert len(drawn) <= 39  # a longer line would not be overwritten
    bar.close()
    assert stream.getvalue().endswith("\x1b[K")


def test_the_clock_goes_on_while_a_cell_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    bar = StudyBar([("a", "A", 10, "x")], stream=stream)
    bar.start("a")
    drawn = stream.getvalue().count("\r")
    with ticking(bar):
        end = time.monotonic() + 30
        while stream.getvalue().count("\r") == drawn and time.monotonic() < end:
            time.sleep(0.05)
    assert stream.getvalue().count("\r") > drawn
    threads = [thread.name for thread in threading.enumerate()]
    assert "study bar" not in threads


def test_times_as_people_say_them() -> None:
    assert [spell(s) for s in (0.4, 59, 61, 3599, 3600, 7500)] == [
        "0 s",
        "59 s",
        "1 min 1 s",
        "59 min 59 s",
        "1 h 0 min",
        "2 h 5 min",
    ]
    assert [about(s) for s in (0, 21, 54, 56, 150, 3569, 3590, 7520)] == [
        "about 5 s",
        "about 25 s",
        "about 55 s",
        "about 1 min",
        "about 2 min",
        "about 59 min",
        "about 1 h 0 min",
        "about 2 h 5 min",
    ]


def test_the_base_overrides_are_a_sweep_of_one(toy: Toy) -> None:
    assert toy("-m", "seed=3").code == 0
    assert read(toy.records()[0]).overrides == [*BASE, "seed=3"]
    assert not os.path.exists("multirun")


@pytest.mark.parametrize("columns", [80, 100, 60])
def test_what_runs_is_shown_with_its_seed(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    bar = StudyBar([("a", "encoder_only x dailydialog_plusplus, seed 12", 9, "k")], stream=stream, clock=Clock())
    bar.start("a")
    drawn = stream.getvalue().rpartition("\x1b[K")[2]
    assert "encoder_only x dailydialog_plusplus, seed 12 0%" in drawn
    assert len(drawn) < columns
