"""The command of claims: run what is missing, judge, say so, write the page."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from seqbench.composition import settings as settings_of
from seqbench.errors import ConfigError, RecordError
from seqbench.records.fetch import local
from seqbench.records.folder import Place as Results
from seqbench.records.folder import is_address
from seqbench.records.published import PUBLISHED, ROOT, VERDICTS

if TYPE_CHECKING:
    from seqbench.claims.selection import Run
    from seqbench.claims.sheet import Claim
    from seqbench.claims.verdict import Judged

DEFAULTS = ROOT / "configs" / "claims.yaml"
USER_ERROR = 2
LEVEL = 0.95  # of the intervals of docs/claims.md
HELP = """python scripts/claims.py [--config-dir FOLDER] claim=NAME [key=value ...] | claims=all

Runs the study of a published system's claim (what has a record is not run again) and gives its verdict:
reproduced, not reproduced, inconclusive.

Claims with a published verdict (docs/claims.md): {judged}
Claims that have not been run yet: {others}

Keys and their defaults:

"""


class Settings(BaseModel):
    """The keys of configs/claims.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    claim: list[str] | None
    claims: Literal["all"] | None
    run: bool
    publish: bool
    results: Results
    out: str
    confidence: Annotated[float, Field(gt=0, lt=1)]

    @field_validator("claim", mode="before")
    @classmethod
    def _one(cls, claim: object) -> object:
        return [claim] if isinstance(claim, str) else claim

    @model_validator(mode="after")
    def _which(self) -> Self:
        if (self.claim is None) == (self.claims is None):
            raise ValueError("claim: which one? claim=NAME; or claims=all for the page of those that have a verdict")
        if self.run and self.claim and is_address(self.results):
            raise ValueError(f"results: {self.results} is an address, where nothing is run; add run=false to judge it")
        return self


@dataclass(frozen=True, slots=True)
class Place:
    """Where config files are."""

    config_dir: str | None

    @property
    def folders(self) -> tuple[Path, ...]:
        """Of claims: the user's own before ours."""
        from seqbench.claims.sheet import FOLDER

        return (Path(self.config_dir) / "claim", FOLDER) if self.config_dir else (FOLDER,)

    def of(self, names: Iterable[str]) -> dict[str, str | None]:
        """The user's folder for each claim whose file is there, None for ours."""
        folder = self.config_dir
        return {name: folder if folder and (self.folders[0] / f"{name}.yaml").is_file() else None for name in names}

    @property
    def arguments(self) -> list[str]:
        """As a command line has it."""
        return ["--config-dir", self.config_dir] if self.config_dir else []


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 where runs failed or are missing, 2 for a mistake."""
    from seqbench.claims import sheet

    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(arguments):
        print(_help(sheet.names()) + DEFAULTS.read_text(encoding="utf-8"))
        return 0
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a package of the user's, as for train.py
    try:
        folder, arguments = settings_of.config_dir(arguments)
        own, others = _split(arguments)
        settings = settings_of.read(Settings, DEFAULTS, own, texts=("claim", "claims", "results", "out"))
        settings = settings.model_copy(update={"results": str(local(settings.results))})
        place = Place(folder)
        return _all(settings, others, place) if settings.claims else _some(settings, others, place)
    except (ConfigError, RecordError) as error:
        print(error, file=sys.stderr)
        return USER_ERROR


def _help(names: Sequence[str]) -> str:
    """What the command does, and which claims there are; kept verdicts are read by their names alone."""
    path = PUBLISHED / VERDICTS
    published = set(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else set()
    told = {
        "judged": ", ".join(name for name in names if name in published) or "none",
        "others": ", ".join(name for name in names if name not in published) or "none",
    }
    return HELP.format(**told)


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Settings of this command, and overrides of the study."""
    from seqbench.leaderboard import split_keys

    return split_keys(arguments, Settings.model_fields)


def _some(settings: Settings, others: Sequence[str], place: Place) -> int:
    from seqbench.claims import kept, sheet, words
    from seqbench.claims.verdict import check, judge

    claims = {name: sheet.read_claim(name, place.folders) for name in settings.claim or ()}
    if settings.publish and (others or place.config_dir):
        raise ConfigError(
            f"publish: not with {' '.join([*place.arguments, *others])}: published is what the claim's file says"
        )
    if settings.publish and settings.confidence != LEVEL:
        raise ConfigError(f"publish: confidence={settings.confidence:g}: what is published is at {LEVEL:g}")
    code, before = 0, kept.read(PUBLISHED)
    planned = {name: _runs(claim, settings, others, place) for name, claim in claims.items()}
    for name, claim in claims.items():
        check(claim, planned[name])
    for name, claim in claims.items():
        if settings.run:
            code = max(code, _run(claim, settings, others, place))
        judged = judge(claim, _runs(claim, settings, others, place), confidence=settings.confidence)
        if not _is_published(settings):
            kept.write(Path(settings.results), {name: judged})
        print(f"\n{claim.title}: {judged.verdict}")
        if judged.verdict == "not run" and name in before:
            print(f"  published: {before[name].verdict} (docs/claims.md)")
        for comparison, outcome in zip(claim.comparisons, judged.outcomes, strict=True):
            claimed = words.bound(comparison) or "no bound"
            told = f"{words.shown(outcome.estimate)}; {claimed}: {words.said(comparison, outcome)}"
            print(f"  {comparison.name}: {outcome.why or told}")
        for line in judged.failed:
            print(f"  {line}")
        code = max(code, int(bool(judged.failed) or judged.verdict == "not run"))
        if settings.publish:
            if judged.verdict == "not run":
                raise ConfigError(f"publish: {name} has not all its runs: {words.command(name)}")
            kept.publish(Path(settings.results), name, judged, _every(place))
    _write(_known(settings), settings, place)
    return code


def _is_published(settings: Settings) -> bool:
    """Whether the records are the published ones: without predictions they give other intervals than those kept."""
    return Path(settings.results).resolve() == PUBLISHED.resolve()


def _known(settings: Settings) -> dict[str, Judged]:
    """Verdicts of the user's own records before published ones; a claim that was only begun has none of its own."""
    from seqbench.claims import kept

    known, own = kept.read(PUBLISHED), kept.read(Path(settings.results))
    return known | {name: judged for name, judged in own.items() if judged.verdict != "not run" or name not in known}


def _all(settings: Settings, others: Sequence[str], place: Place) -> int:
    """The page of what is known."""
    if others:
        raise ConfigError(f"claims: all takes no {others[0]}; it shows verdicts, and runs nothing")
    verdicts = _known(settings)
    if not verdicts:
        raise ConfigError("claims: none has a verdict yet; python scripts/claims.py claim=NAME runs one")
    _write(verdicts, settings, place)
    return 0


def _write(verdicts: Mapping[str, Judged], settings: Settings, place: Place) -> None:
    """Write the page, and say where it is."""
    from seqbench.claims.page import write

    claims = _every(place)
    print(write(claims, verdicts, Path(settings.out), places=place.of(claims)))


def _every(place: Place) -> dict[str, Claim]:
    from seqbench.claims import sheet

    return {name: sheet.read_claim(name, place.folders) for name in sheet.names(place.folders)}


def _run(claim: Claim, settings: Settings, others: Sequence[str], place: Place) -> int:
    from seqbench import cli

    return cli.main([*place.arguments, "-m", f"study={claim.study}", f"results={settings.results}", *others])


def _runs(claim: Claim, settings: Settings, others: Sequence[str], place: Place) -> list[Run]:
    """The cells of a claim's study, with the records that are there."""
    from seqbench.board.entries import Entry
    from seqbench.claims.selection import Run
    from seqbench.composition.compose import own_loader
    from seqbench.records.store import Store
    from seqbench.studies.study import plan

    store = Store(settings.results)
    runs = []
    for cell in plan(claim.study, others, loader=own_loader(place.config_dir)).cells:
        record = store.find(cell.id)
        entry = None if record is None else Entry(record=record, folder=store.folder(cell.id))
        runs.append(Run(cell=cell, config=cell.config.model_dump(), entry=entry))
    return runs
