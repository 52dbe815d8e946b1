"""What a reader has to know of a score beside its number, as a sign with words: verified, unsteady, out of date."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from seqbench.board.text import one_line
from seqbench.errors import RecordError
from seqbench.record import Record
from seqbench.records import verified
from seqbench.records.lineage import changes

SHOWN = 3  # files and seeds that a text names


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A sort of mark: its sign, one that LaTeX has without a package, and what both mean."""

    sign: str
    letter: str
    meaning: str


KINDS = {
    "tuned": Kind(sign="†", letter="t", meaning="tuned: its settings are the best of several trials by validation"),
    "verified": Kind(
        sign="✓", letter="v", meaning="verified: every scored run was run again, with the same scores and predictions"
    ),
    "partly": Kind(sign="(✓)", letter="p", meaning="some of the scored runs were verified, not all"),
    "refuted": Kind(sign="✗", letter="x", meaning="run again, a run did not give the same"),
    "unverifiable": Kind(sign="?", letter="u", meaning="could not be run again as it was"),
    "one_class": Kind(
        sign="≡", letter="c", meaning="predicts one class: a scored run gave every example of the split the same class"
    ),
    "moved": Kind(
        sign="≈",
        letter="m",
        meaning="a sample of the split, scored at batch size 1, at another padding or with other workers, was not "
        "predicted the same",
    ),
    "stale": Kind(
        sign="⊘",
        letter="o",
        meaning="grey: the task's code or its data has changed since (a source file that the task stands on, by its "
        "checksum in the record; a pinned file, by its card); scores made now may not compare",
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """One of KINDS on a cell."""

    kind: str
    text: str  # what was found, run by run

    @property
    def sign(self) -> str:
        """For a page and for Markdown."""
        return KINDS[self.kind].sign

    @property
    def letter(self) -> str:
        """For LaTeX."""
        return KINDS[self.kind].letter


class Verdicts:
    """What verify has said of runs, by their folder, each read once for a board."""

    def __init__(self) -> None:
        self._known: dict[str, verified.Verified | RecordError | None] = {}  # paths as text: thousands are asked for

    def __call__(self, folder: Path) -> verified.Verified | RecordError | None:
        """The verdict, or why it can't be read; None where there is none."""
        path = str(folder)
        if path not in self._known:
            try:
                self._known[path] = verified.read(folder)
            except RecordError as error:
                self._known[path] = error
        return self._known[path]


def of_cell(runs: Sequence[tuple[Record, Path]], verdicts: Verdicts, split: str) -> tuple[Mark, ...]:
    """The marks of the runs that a score over a split is the mean of, each with its folder."""
    return (*_tuned(runs), *_verification(runs, verdicts), *_one_class(runs, split), *_variance(runs), *_age(runs))


def problems(runs: Iterable[tuple[Record, Path]], verdicts: Verdicts) -> list[str]:
    """Sentences on verdicts that can't be read, and on runs of which nothing can be told."""
    told, unknown = [], 0
    for record, folder in runs:
        error = verdicts(folder)
        if isinstance(error, RecordError):
            told.append(f"{record.id}/{verified.NAME} is left out: {str(error).partition(': ')[2]}")
        unknown += not record.code.files
    if unknown:
        some = "1 run was" if unknown == 1 else f"{unknown} runs were"
        told.append(f"{some} made before records kept the checksums of source files: no age can be told of them.")
    return told


def legend(marks: Iterable[Mark]) -> dict[str, Kind]:
    """The kinds that are used, in order."""
    used = {mark.kind for mark in marks}
    return {name: kind for name, kind in KINDS.items() if name in used}


def _tuned(runs: Sequence[tuple[Record, Path]]) -> list[Mark]:
    found = sorted({len(record.tuning.trials) for record, _ in runs if record.tuning is not None})
    number = sum(record.tuning is not None for record, _ in runs)
    if not found:
        return []
    return [Mark(kind="tuned", text=f"{number} of {len(runs)} runs, by {' or '.join(map(str, found))} trials")]


def _verification(runs: Sequence[tuple[Record, Path]], verdicts: Verdicts) -> list[Mark]:
    every = [(record.seed, verdicts(folder)) for record, folder in runs]
    found = [(seed, it) for seed, it in every if isinstance(it, verified.Verified)]  # problems() tells of the others
    if not found:
        return []
    passed = [(seed, it) for seed, it in found if it.passed]
    marks = []
    for kind, verdict in (("refuted", "different"), ("unverifiable", "impossible")):
        bad = [f"seed {seed}, {_day(it.time)}: {it.reason}" for seed, it in found if it.verdict == verdict]
        if bad:
            marks.append(Mark(kind=kind, text="; ".join(_some(bad))))
    if passed:
        how = [f"seed {seed} {it.verdict.replace('_', ' ')} on {_day(it.time)}" for seed, it in passed]
        kind = "verified" if len(passed) == len(runs) else "partly"
        marks.insert(0, Mark(kind=kind, text=f"verified {len(passed)} of {len(runs)}: {', '.join(_some(how))}"))
    return marks


def _one_class(runs: Sequence[tuple[Record, Path]], split: str) -> list[Mark]:
    found = [f"seed {r.seed}: {one_line(r.one_class[split], 40)}" for r, _ in runs if split in r.one_class]
    if not found:
        return []
    return [
        Mark(kind="one_class", text=f"predicts one class, {len(found)} of {len(runs)} runs: {', '.join(_some(found))}")
    ]


def _variance(runs: Sequence[tuple[Record, Path]]) -> list[Mark]:
    found = []
    for record, _ in runs:
        for way, it in record.invariance.items():
            what = ""
            if it.verdict == "moved":
                what = f"{it.moved} of {it.rows} predictions moved, {it.flipped} of them to another answer"
                if not it.moved and it.loss_difference is not None:
                    what = f"the loss moved by {it.loss_difference:.2g}"
            elif it.verdict == "failed":
                what = f"failed: {one_line(it.reason or '')}"
            if what:
                found.append(f"seed {record.seed}, {way.replace('_', ' ')}: {what}")
    return [Mark(kind="moved", text="; ".join(_some(found)))] if found else []


def _age(runs: Sequence[tuple[Record, Path]]) -> list[Mark]:
    since: dict[str, None] = {}
    count = 0
    for record, _ in runs:
        found = changes(record)
        if found.stale:
            count += 1
            since |= dict.fromkeys([*found.data, *found.task])
    if not count:
        return []
    return [Mark(kind="stale", text=f"changed since {count} of {len(runs)} runs: {', '.join(_some(list(since)))}")]


def _day(time: str) -> str:
    return time.partition("T")[0]


def _some(texts: Sequence[str]) -> list[str]:
    more = len(texts) - SHOWN
    return [*texts[:SHOWN], *([f"{more} more"] if more > 0 else [])]
