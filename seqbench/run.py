"""One run, from its config to its record: the one that is there, or a new one."""

from __future__ import annotations

import contextlib
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from seqbench import pretraining
from seqbench.build import build_task, check_pair, check_selection
from seqbench.config import RunConfig
from seqbench.errors import RecordError
from seqbench.garbage import uncollected
from seqbench.matching.match import matched
from seqbench.ranks.place import placed
from seqbench.record import Record
from seqbench.records.claim import claim
from seqbench.records.identity import run_id
from seqbench.records.labels import as_asked
from seqbench.records.store import Store
from seqbench.training.progress import Watch, ignore
from seqbench.training.standing import UNDONE, stands, was_killed
from seqbench.tuning import check, is_tuned, tuned, without_floors


@dataclass(frozen=True, slots=True)
class Outcome:
    """A record, whether it was there already, and what stands against its being in `mirror`, in a line."""

    record: Record
    skipped: bool
    unmirrored: str | None = None


def run(
    config: RunConfig,
    *,
    watch: Watch | None = None,
    jobs: int = 1,
    trial: bool = False,
    note: str = "",
    again: bool = False,
) -> Outcome:
    """Make the record of a run, or return the one that is there. `watch` hears what happens; without, a bar may show.

    `jobs` is how many runs this machine has at once, which the record says beside the costs. A `trial` of a tuning
    ends with its validation score: its test split is not read, and it leaves neither weights nor predictions. The
    `note` stands in the lines or the bar that show it, such as `trial 1 of 20`. `again`: the command that asks for it
    may have been at it before (a job that was queued again), so what was made and begun since then counts.

    Raises ConfigError, DataError, RecordError (Claimed among them) for what is the user's to mend; no record is
    written then. What goes wrong in training is a record's status. An interrupt is a status, too, and is raised
    again as KeyboardInterrupt; the same command then goes on from the last checkpoint.

    As a rank of several that a launcher has started: the first one does this, the others do their part of it and then
    return, or raise, the same.
    """
    if placed() is None:
        return _mirrored(config, _run(config, watch=watch, jobs=jobs, trial=trial, note=note, again=again))
    from seqbench.ranks.crew import is_follower, leading

    if is_follower():
        from seqbench.ranks.follower import follow

        outcome = follow()
        if isinstance(outcome, BaseException):
            raise outcome
        assert isinstance(outcome, Outcome)
        return outcome
    with leading() as said:
        try:
            made = _run(config, watch=watch, jobs=jobs, trial=trial, note=note, again=again)
            said[0] = outcome = _mirrored(config, made)
        except BaseException as error:
            said[0] = error
            raise
    return outcome


def _run(config: RunConfig, *, watch: Watch | None, jobs: int, trial: bool, note: str, again: bool) -> Outcome:
    with uncollected():  # torch
        task = build_task(config)
    check_pair(config, task)
    check_selection(config, task)
    config = matched(without_floors(config), withhold=trial)
    check(config)
    pretraining.check(config, task)
    store = Store(config.results)
    this = run_id(config, task)
    known = _known(store, this, config)
    done = known is not None and stands(known, config, made=store.written(this) if trial or again else None)
    if known is not None and done and as_asked(known, config) is known:
        if known.status == "finished":
            tidy(store.folder(this))
        return Outcome(known, skipped=True)
    with uncollected():  # Lightning takes seconds: after all that is said without it
        from seqbench.machine import check_machine
        from seqbench.training.attempt import Attempt

    if not done:
        store.check_writable()
        check_machine(config)
        task.data.check()
    with claim(store.folder(this)) as before:
        if before:
            print(f"{store.folder(this)}: {before} died in this run; it is taken over", file=sys.stderr)
        known = _known(store, this, config)  # again: another process may have finished it in the meantime
        if known is not None and stands(known, config, made=store.written(this) if trial or again else None):
            return Outcome(_asked_for(known, config, store), skipped=True)
        cut = known is None or known.status in UNDONE or was_killed(known)
        tuning = None
        if is_tuned(config):
            config, tuning = tuned(
                config,
                lambda one, which: run(one, watch=watch, jobs=jobs, trial=True, note=which, again=again).record,
                watch or ignore,
            )
        trains = None if trial else pretraining.trainer_of(config)
        first = pretraining.made(
            trains or pretraining.before(config),
            lambda one: (
                run(one, watch=watch, jobs=jobs, note="training" if trains else "pretraining", again=again).record
            ),
            watch or ignore,
        )
        attempt = Attempt(
            config,
            task,
            this,
            store,
            known=known,
            watch=watch,
            jobs=jobs,
            tuning=tuning,
            first=first,
            trained=trains is not None,
            withhold=trial,
            note=note,
        )
        begun = again and attempt.checkpoints.begun() >= config.asked
        return Outcome(attempt.run(afresh=not begun and (config.rerun == "always" or not cut)), skipped=False)


def _mirrored(config: RunConfig, outcome: Outcome) -> Outcome:
    """The outcome, its record and those that it leans on put into the mirror; what fails is said, and loses nothing."""
    if config.mirror is None:
        return outcome
    from seqbench.records.mirror import bring

    line = bring(Path(config.results), [*outcome.record.parents, outcome.record.id], config.mirror)
    if line:
        print(line, file=sys.stderr)
    return replace(outcome, unmirrored=line)


def _known(store: Store, run_id: str, config: RunConfig) -> Record | None:
    """The record that there is. One that is damaged is made anew where that is asked for; else RecordError."""
    try:
        return store.find(run_id)
    except RecordError:
        if config.rerun == "always":
            return None
        raise


def _asked_for(record: Record, config: RunConfig, store: Store) -> Record:
    """The record, with the study among those that asked for it and its labels as they are asked for now."""
    asked = as_asked(record, config)
    if asked is not record:
        store.write(asked)
    return asked


def tidy(folder: Path) -> None:
    """Remove what a process has left that was killed after it had written its record; a folder in use is let be."""
    left = [*folder.glob(".*.tmp"), *folder.glob("checkpoints")]
    if not left:
        return
    with contextlib.suppress(RecordError), claim(folder):
        for path in left:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
