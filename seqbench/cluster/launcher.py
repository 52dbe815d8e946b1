"""Cells of a sweep into the queue, and what comes of them out of it.

What is there to know is on disk and in the queue, nothing in this process: when it dies, the same command finds the
jobs of its cells (by their tickets, seqbench/cluster/batch.py), submits what has none, and waits for all.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqbench.cluster import scheduler
from seqbench.cluster.batch import FOLDER, Batch, Ticket, ticket_of
from seqbench.cluster.script import options, script
from seqbench.cluster.site import Settings, Site, read, site_path
from seqbench.errors import ConfigError, RecordError, Unwritable
from seqbench.records.store import Store, reason_of
from seqbench.report import Troubles, told
from seqbench.studies.study import Cell
from seqbench.training.standing import stands

if TYPE_CHECKING:
    from seqbench.studies.studybar import StudyBar

LOOKS = 2  # at the queue, in a row, in which a job is over, until that is believed
ONE_ARRAY = 100  # cells that any SLURM takes in one array
LOCK_PATIENCE = 60.0  # seconds for another process to submit its cells


class Slurm:
    """The launcher that `hydra/launcher=slurm` names; a sweep hands it the cells that miss a record."""

    def __init__(self, launcher: Mapping[str, Any], typed: Sequence[str]) -> None:
        self.settings: Settings
        self.site: Site
        self.settings, self.site = read(launcher, typed)

    def check(self, cells: Sequence[Cell]) -> None:
        """Raise ConfigError for what can't go to a cluster."""

    def run(self, cells: Sequence[Cell], bar: StudyBar) -> Troubles:
        """Submit what isn't in the queue, and wait. Raises ConfigError where SLURM does not answer.

        KeyboardInterrupt leaves the jobs as they are.
        """
        self.check(cells)
        troubles = Troubles()
        if not cells:
            return troubles
        root = Path(cells[0].config.results)
        with _alone(root / FOLDER):
            watched = self._in_queue(cells)
            waiting = [cell for cell in cells if cell.id not in watched and not _settled(cell)]
            print(self._announce(len(watched), len(waiting)), file=sys.stderr, flush=True)
            watched |= self._submit(root, waiting)
        if not self.settings.wait:
            for cell in cells:
                if ticket := watched.get(cell.id):
                    troubles.elsewhere[cell.id] = f"{ticket.id}; {ticket.log}"
            return troubles
        try:
            _Wait({cell.id: cell for cell in cells}, watched, bar, troubles, self.settings.poll).run()
        except KeyboardInterrupt:
            names = ",".join(sorted({ticket.batch.name for ticket in watched.values()}))
            print(f"\nthe jobs go on; the same command waits for them again; scancel --name={names} ends them")
            raise
        return troubles

    def _announce(self, there: int, new: int) -> str:
        path = site_path()
        return (
            f"slurm: {new} cells to submit, {there} in the queue already;"
            f" {self.settings.nodes} x {self.settings.tasks} processes a cell, {self.settings.at_once} cells at once;"
            f" {f'site file {path}' if path else 'no site file'}"
        )

    def _in_queue(self, cells: Sequence[Cell]) -> dict[str, Ticket]:
        """Those that a job of an earlier command still has, by id."""
        tickets = {cell.id: ticket for cell in cells if (ticket := ticket_of(cell))}
        jobs = scheduler.queue({ticket.batch.name for ticket in tickets.values()}) if tickets else {}
        live = {key for key, job in jobs.items() if not job.over}
        return {this: ticket for this, ticket in tickets.items() if ticket.key in live}

    def _submit(self, root: Path, cells: Sequence[Cell]) -> dict[str, Ticket]:
        """A job array for all; several one after the other where SLURM takes no array of that size."""
        if not cells:
            return {}
        size = scheduler.largest_array() if len(cells) > ONE_ARRAY else len(cells)
        found: dict[str, Ticket] = {}
        after: str | None = None
        for start in range(0, len(cells), size):
            some = cells[start : start + size]
            try:
                batch = Batch.make(root, some, self.settings.requeues)
                path = batch.folder / "job.sh"
                path.write_text(script(batch.folder, self.settings, self.site))
                given = options(batch.folder, batch.name, len(some), self.settings, self.site, after)
                try:
                    after = scheduler.submit(given, str(path))
                except scheduler.Unanswered:
                    batch.withdraw(some)
                    raise
                batch.submitted(after)
            except OSError as error:
                raise Unwritable(f"results: {root} cannot be written to ({reason_of(error)})") from None
            found |= {cell.id: Ticket(batch, index) for index, cell in enumerate(some)}
            print(f"slurm: job {after}, cells and logs in {batch.folder}", file=sys.stderr, flush=True)
        return found


class _Wait:
    """Looks at the queue until no cell is in it."""

    def __init__(
        self, cells: Mapping[str, Cell], tickets: Mapping[str, Ticket], bar: StudyBar, troubles: Troubles, poll: float
    ) -> None:
        self.cells, self.tickets, self.bar, self.troubles, self.poll = cells, dict(tickets), bar, troubles, poll
        self.over: dict[str, int] = {}  # cell -> looks in a row in which its job was over
        self.states: dict[str, str] = {}
        self.stuck: dict[str, str] = {}  # cell -> why, as it was told

    def run(self) -> None:
        """Until the end."""
        silent = False
        while True:
            try:
                jobs = scheduler.queue({ticket.batch.name for ticket in self.tickets.values()})
                silent = False
            except scheduler.Unanswered as error:
                if not silent:
                    self.bar.say(f"slurm: {error}; asking again")
                silent = True
            else:
                for this, ticket in list(self.tickets.items()):
                    self._look(this, ticket, jobs.get(ticket.key))
            if not self.tickets:
                return
            end = time.monotonic() + self.poll
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(left, 0.5))
                self.bar.tick()

    def _look(self, this: str, ticket: Ticket, job: scheduler.Job | None) -> None:
        state = job.state if job else ""
        before = self.states.get(this)
        if job is not None and state != before:
            if state == "RUNNING":
                self.bar.start(this)
            elif before == "RUNNING" and state == "PENDING":
                self.bar.say(f"{self.cells[this].title}: queued again ({job.id})")
        self.states[this] = state
        reason = job.reason if job is not None and job.stuck else ""
        if reason and reason != self.stuck.get(this):
            how = f"scontrol release {job.id}, or scancel {job.id}" if job else ""
            self.bar.say(f"{self.cells[this].title}: waits for you: {reason} ({how})")
        self.stuck[this] = reason
        self.over[this] = self.over.get(this, 0) + 1 if job is None or job.over else 0
        if self.over[this] < LOOKS:
            return
        del self.tickets[this]
        self.bar.finish(this, settle(self.cells[this], ticket, self.troubles))


def _settled(cell: Cell) -> bool:
    """Whether a cell without a job needs none: of one that died in an earlier one, the record is written here."""
    ticket = ticket_of(cell)
    if ticket is None:
        return False
    settle(cell, ticket, Troubles())
    try:
        record = Store(cell.config.results).find(cell.id)
    except RecordError:
        return False  # run() says it
    return record is not None and cell.config.rerun != "always" and stands(record, cell.config)


def settle(cell: Cell, ticket: Ticket, troubles: Troubles) -> str:
    """What became of a cell whose job is over, in a line. One that died in it gets its record here."""
    from seqbench.cluster.lost import lost

    outcome = ticket.batch.outcome(ticket.index)
    try:
        record = Store(cell.config.results).find(cell.id)
    except RecordError as error:
        troubles.not_run[cell.id] = str(error).splitlines()[0]
        return f"not run: {troubles.not_run[cell.id]}"
    if outcome is not None and outcome.what in ("not run", "elsewhere", "stop", "bug"):
        kept = troubles.elsewhere if outcome.what == "elsewhere" else troubles.not_run
        kept[cell.id] = f"{outcome.line} ({ticket.log})"
        return f"{'running elsewhere' if outcome.what == 'elsewhere' else 'not run'}: {kept[cell.id]}"
    if outcome is None:
        if record is not None and record.ended >= ticket.batch.since:
            return told(record)
        end = scheduler.end_of(f"{ticket.batch.job}_{ticket.index}") if ticket.batch.job else None
        how = f"ended as {end.state} ({end.reason})" if end else "is not known to SLURM any more"
        troubles.not_run[cell.id] = f"{ticket.id} {how} before the cell began; {ticket.log}"
        return f"not run: {troubles.not_run[cell.id]}"
    if record is not None and record.ended >= outcome.started:
        return told(record)
    try:
        return told(lost(cell, ticket, outcome))
    except RecordError as error:
        troubles.not_run[cell.id] = str(error).splitlines()[0]
        return f"not run: {troubles.not_run[cell.id]}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While cells are looked for in the queue and submitted, no other process does that."""
    from seqbench.records.claim import Claimed, claim

    begun = time.monotonic()
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(claim(folder))
                break
            except Claimed as error:
                if time.monotonic() - begun > LOCK_PATIENCE:
                    raise ConfigError(f"{error}: it submits cells, too") from None
            time.sleep(0.5)
        yield
