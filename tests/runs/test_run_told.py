"""What a run tells while it runs."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from seqbench.run import run
from seqbench.training.progress import Bar, Event
from tests.seqbench.toy_config import toy_config


# -- what is told ------------------------------------------------------------------------------------------------------
def test_events(tmp_path: Path) -> None:
    events: list[Event] = []
    run(toy_config(tmp_path, {"budget.steps": 4, "budget.eval_every": 2}), watch=events.append)
    assert [(e.kind, e.step) for e in events] == [
        ("start", 0),
        ("step", 1),
        ("step", 2),
        ("valid", 2),
        ("step", 3),
        ("step", 4),
        ("valid", 4),
        ("score", 4),
        ("score", 4),
        ("end", 0),
    ]
    assert events[3].values["valid/hits"] >= 0


def test_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    bar = Bar("toy", "hits")
    for event in (
        Event(kind="start", step=3, steps=8),
        Event(kind="step", step=4, steps=8),
        Event(kind="valid", step=4, steps=8, values={"train/loss": 0.123456, "valid/hits": 0.75}),
        Event(kind="step", step=8, steps=8),
        Event(kind="end"),
    ):
        bar(event)
    assert "4/8" in shown.getvalue()
    assert "loss=0.1235, hits=0.75" in shown.getvalue()
    assert "8/8" in shown.getvalue()
    assert bar.bar is None


def test_no_words_on_a_plain_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(toy_config(tmp_path, {"budget.steps": 2, "budget.eval_every": 2}))
    out = capfd.readouterr()
    assert (out.out, out.err) == ("", "")
