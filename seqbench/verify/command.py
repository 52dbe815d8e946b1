"""The command that verifies: records chosen by id, path or study, each run again, told in lines or as JSON."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from seqbench.composition.settings import read as read_settings_of
from seqbench.config import default_allowed
from seqbench.errors import ConfigError, RecordError, printable
from seqbench.record import Record
from seqbench.records import verified as verdicts
from seqbench.records.claim import holder
from seqbench.records.fetch import local
from seqbench.records.folder import Place
from seqbench.records.published import PUBLISHED, VERDICTS
from seqbench.records.store import ID, NAME, read, reason_of
from seqbench.verify.details import FACTS

if TYPE_CHECKING:
    from seqbench.records.verified import Verified

DEFAULTS = Path(__file__).resolve().parents[2] / "configs" / "verify.yaml"
USER_ERROR, NOT_VERIFIED, INTERRUPTED = 2, 1, 130
COMPARABLE = ("finished", "diverged")


class Settings(BaseModel):
    """The keys of configs/verify.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    run: str | list[str] | None
    study: str | None
    results: Place
    allowed: list[Annotated[str, Field(min_length=1)]] | None
    tolerance: Annotated[float, Field(ge=0)]
    trials: Literal["chosen", "all", "none"]
    data: str | list[str] | None

    @property
    def places(self) -> list[Path]:
        """Where files of own data are looked for."""
        given = [self.data] if isinstance(self.data, str) else self.data or []
        return [Path(place).expanduser() for place in given]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """A record to verify, or why it can't be read."""

    path: Path
    record: Record | None
    damage: str | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 every record was verified; 1 one was not; 2 the user's mistake, in at most three lines on stderr, or a run that
    another process is at; 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(arguments):
        print(f"python scripts/verify.py run=ID [key=value ...] [--json]\n\nKeys and their defaults:\n\n{_defaults()}")
        return 0
    as_json = "--json" in arguments
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a package of the user's, beside their results
    try:
        settings = read_settings([argument for argument in arguments if argument != "--json"])
        chosen, left = choose(settings)
        return _verify_all(chosen, left, settings, as_json=as_json)
    except (ConfigError, RecordError) as error:
        print(error, file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted; verdicts so far are written", file=sys.stderr)
        return INTERRUPTED


def read_settings(overrides: Sequence[str]) -> Settings:
    """Defaults with overrides. Raises ConfigError: no key=value, an unknown key, a wrong type."""
    settings = read_settings_of(
        Settings, DEFAULTS, overrides, texts=("run", "study", "results", "allowed", "data", "trials")
    )
    if settings.run is None:
        raise ConfigError("run: which one? run=ID of a run, run=PATH of a record, or run=all")
    return settings


# -- which records -----------------------------------------------------------------------------------------------------
def choose(settings: Settings) -> tuple[list[Chosen], int]:
    """Records asked for, each once, and how many of `all` were left out since they did not finish.

    Raises ConfigError where a name leads to nothing.
    """
    asked = [settings.run] if isinstance(settings.run, str) else list(settings.run or ())
    results = local(settings.results)
    found: dict[Path, Chosen] = {}
    left = 0
    for name in asked:
        if name == "all":
            every = _in_folder(results)
            if not every:
                raise ConfigError(f"results: no record under {settings.results}; give another folder: results=FOLDER")
        else:
            every = _named(name, results)
        if settings.study is not None:
            every = [c for c in every if c.record is not None and settings.study in c.record.studies]
            if not every:
                raise ConfigError(f"study: no record of the study {settings.study} under {settings.results}")
        many = len(every) > 1 or name == "all"
        for one in every:
            if many and one.record is not None and one.record.status not in COMPARABLE:
                left += 1
            else:
                found.setdefault(one.path.resolve(), one)
    return list(found.values()), left


def _named(name: str, results: Path) -> list[Chosen]:
    path = Path(name).expanduser()
    if path.is_file():
        return [_chosen(path)]
    if (path / NAME).is_file():
        return [_chosen(path / NAME)]
    if path.is_dir() and (inside := _in_folder(path)):
        return inside
    if re.fullmatch(r"[0-9a-f]+", name):
        for folder in (results, PUBLISHED):  # one's own before those that came with the code
            matching = sorted(folder.glob(f"{name}*/{NAME}"))
            if len(matching) == 1:
                return [_chosen(matching[0])]
            if matching:
                raise ConfigError(
                    f"run: {name} is the beginning of {len(matching)} ids under {folder}; write more of it"
                )
        if ID.fullmatch(name) and (by := holder(results / name)):
            raise ConfigError(f"run: {by} works on {name}, which has no record yet; wait for it, then verify")
    raise ConfigError(f"run: {name} is neither the id of a record under {results} nor the path of one")


def _in_folder(folder: Path) -> list[Chosen]:
    """Records in folders of their own, and bare JSON files."""
    others = (verdicts.NAME, VERDICTS)
    flat = [path for path in sorted(folder.glob("*.json")) if not path.name.endswith(others)]
    return [_chosen(path) for path in [*sorted(folder.glob(f"*/{NAME}")), *flat]]


def _chosen(path: Path) -> Chosen:
    try:
        record = read(path)
    except RecordError as error:
        return Chosen(path=path, record=None, damage=str(error))
    if not ID.fullmatch(record.id):
        return Chosen(path=path, record=None, damage=f"{path}: {record.id[:40]!r} is no id")
    named = path.resolve().parent.name if path.name == NAME else path.stem
    if ID.fullmatch(named) and named != record.id:
        damage = f"{path}: is the record of {record.id}, in a place of another name (swapped?)"
        return Chosen(path=path, record=None, damage=damage)
    return Chosen(path=path, record=record)


# -- each of them ------------------------------------------------------------------------------------------------------
def _verify_all(chosen: list[Chosen], left: int, settings: Settings, *, as_json: bool) -> int:
    seconds = sum(one.record.cost.wall_seconds or 0 for one in chosen if one.record)
    if len(chosen) > 1 and not as_json:
        print(f"{len(chosen)} runs, which took {_duration(seconds)} when they were recorded", flush=True)
    allowed = default_allowed() if settings.allowed is None else settings.allowed
    outcomes, failed, busy = [], 0, 0
    for one in chosen:
        if one.record is not None and one.path.name == NAME and (by := holder(one.path.parent)):
            busy += 1
            print(printable(f"{one.path.parent}: {by} works on this run; wait for it, then verify"), file=sys.stderr)
            continue
        if one.record is None:
            failed += 1
            outcomes.append({"path": str(one.path), "verdict": "impossible", "reason": one.damage})
            if not as_json:
                print(printable(f"impossible: {one.damage}"), flush=True)
            continue
        from seqbench.verify.judge import verify  # torch, after all that is said without it

        outcome = verify(
            one.path,
            one.record,
            allowed=allowed,
            tolerance=settings.tolerance,
            trials=settings.trials,
            data=settings.places,
        )
        note = _keep(one.path, outcome)
        failed += not outcome.passed
        outcomes.append({"path": str(one.path), **outcome.model_dump()})
        if not as_json:
            print(told(one.record, outcome), flush=True)
        if note:
            print(note, file=sys.stderr)
    if as_json:
        passed = not failed and not busy
        print(json.dumps({"passed": passed, "left_out": left, "runs": outcomes}, indent=2, allow_nan=False))
    elif len(chosen) > 1 or left:
        rest = f"; {left} left out, which did not finish" if left else ""
        rest += f"; {busy} not looked at, which are being worked on" if busy else ""
        print(f"{len(chosen) - failed - busy} of {len(chosen)} verified{rest}")
    return NOT_VERIFIED if failed else USER_ERROR if busy else 0


def told(record: Record, outcome: Verified) -> str:
    """A verdict for a terminal: one line, and what differs under it where that matters."""
    title = f"{record.id} {record.encoder.label} x {record.task.name}, seed {record.seed}"
    lines = [f"{title}: {outcome.verdict.replace('_', ' ')}: {outcome.reason}"]
    if outcome.verdict != "identical":
        lines += [f"  {line}" for line in outcome.differences]
    elif len(outcome.differences) == 1:
        lines.append(f"  although {outcome.differences[0]}")
    elif outcome.differences:
        lines.append(f"  although {len(outcome.differences)} things differ: {outcome.differences[0]}, ... (--json)")
    if outcome.verdict == "different" and all(line.startswith(FACTS) for line in outcome.differences):
        lines.append("  nothing is known to differ in code, data or environment: the record was edited, or a run is")
        lines.append("  not a function of its config and seed")
    return "\n".join(printable(line) for line in lines)


def _keep(path: Path, outcome: Verified) -> str | None:
    """Write the verdict beside the record; a line where it could not be.

    'impossible' does not replace a verdict that stands: it says nothing about the numbers.
    """
    name = verdicts.NAME if path.name == NAME else f"{path.stem}.{verdicts.NAME}"
    try:
        if outcome.verdict == "impossible":
            try:
                before = verdicts.read(path.parent, name=name, of=path.name)
            except RecordError:
                before = None
            if before is not None and before.verdict != "impossible":
                return None
        verdicts.write(path.parent, outcome, name=name)
    except OSError as error:
        return f"{path.parent}: the verdict could not be written there ({reason_of(error)})"
    return None


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _defaults() -> str:
    return DEFAULTS.read_text(encoding="utf-8")
