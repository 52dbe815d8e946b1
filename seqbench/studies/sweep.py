"""The cells of a plan, run here, one by one or several at once, or handed to a launcher; a failure stops none."""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader

from seqbench.errors import ConfigError, RecordError, Unwritable
from seqbench.ranks.place import placed
from seqbench.record import Record
from seqbench.records.claim import Claimed
from seqbench.records.labels import as_asked
from seqbench.records.store import Store
from seqbench.report import Troubles, headline, told
from seqbench.studies.indexing import Leaving
from seqbench.studies.jobs import lanes
from seqbench.studies.study import Cell, Plan, plan_sweep
from seqbench.studies.studybar import StudyBar, ticking
from seqbench.training.standing import stands
from tasks.data.base import DataError

if TYPE_CHECKING:
    from seqbench.cluster.launcher import Slurm

Launch = Callable[[list[list[str]]], Any]
STEPS = 1000  # those of a cell whose budget does not say


def sweep(overrides: Sequence[str], *, loader: ConfigLoader, launch: Launch | Slurm | None) -> int:
    """Plan, run what is missing, print a table. 0 if all cells are finished, and put into `mirror`; 1 if not.

    A cell that another process works on is no failure: the table says so, and 0 stays 0.

    Raises what planning raises, before anything runs; and RecordError where nothing can be written.

    As a rank of several that a launcher has started: the first one does this, the others do their part of each cell.
    """
    if placed() is not None:
        from seqbench.ranks.crew import is_follower, leading
        from seqbench.ranks.follower import follow

        if is_follower():
            return int(follow())
        with leading() as said:
            said[0] = 1
            said[0] = code = _sweep(overrides, loader=loader, launch=launch)
        return code
    return _sweep(overrides, loader=loader, launch=launch)


def _sweep(overrides: Sequence[str], *, loader: ConfigLoader, launch: Launch | Slurm | None) -> int:
    plan = plan_sweep(overrides, loader=loader)
    missing = [cell for cell in plan.cells if not _stands(cell)]
    leaving = Leaving({cell.id: Path(cell.config.results) for cell in missing})
    print(announce(plan, len(plan.cells) - len(missing)), file=sys.stderr)
    for out in plan.left_out:
        print(f"  {out.encoder} x {out.task}: {out.reason}", file=sys.stderr)
    if launch is not None and not callable(launch):
        troubles = _on_cluster(missing, launch, leaving)
    else:
        troubles = _here(missing, leaving) if launch is None else _elsewhere(plan, missing, launch)
    records = {cell.id: _found(cell, troubles) for cell in plan.cells}
    print(table(plan, records, troubles))
    for line in tracebacks(plan, records):
        print(line)
    done = all(_done(record) or this in troubles.elsewhere for this, record in records.items())
    code = 0 if _mirrored(plan, records) and done else 1
    leaving.rest()
    return code


def _mirrored(plan: Plan, records: dict[str, Record | None]) -> bool:
    """Put what a mirror lacks: of runs that were there before, of those that died. False where that failed, said."""
    places: dict[tuple[str, str], list[str]] = {}
    for cell in plan.cells:
        if cell.config.mirror is not None and (record := records[cell.id]) is not None:
            places.setdefault((cell.config.results, cell.config.mirror), []).extend([*record.parents, cell.id])
    if not places:
        return True
    from seqbench.records.mirror import bring

    lines = [line for (results, mirror), ids in places.items() if (line := bring(Path(results), ids, mirror))]
    for line in lines:
        print(line, file=sys.stderr)
    return not lines


def _found(cell: Cell, troubles: Troubles) -> Record | None:
    """A cell's record; one that can't be read is the cell's trouble, and no other's."""
    try:
        return Store(cell.config.results).find(cell.id)
    except RecordError as error:
        troubles.not_run[cell.id] = str(error).splitlines()[0]
        return None


def _done(record: Record | None) -> bool:
    return record is not None and record.status == "finished"


def announce(plan: Plan, done: int) -> str:
    """`study quickstart: 25 cells, 3 have a record, 22 to run; 5 pairs left out`."""
    name = f"study {plan.study}" if plan.study else "sweep"
    out = f"; {len(plan.left_out)} pair{'s' if len(plan.left_out) > 1 else ''} left out:" if plan.left_out else ""
    return f"{name}: {len(plan.cells)} cells, {done} have a record, {len(plan.cells) - done} to run{out}"


def _stands(cell: Cell) -> bool:
    """Whether nothing is left to do for a cell, its study's name and its labels in the record included."""
    if cell.config.rerun == "always":
        return False
    try:
        record = Store(cell.config.results).find(cell.id)
    except RecordError:
        return False  # run() says it
    return record is not None and as_asked(record, cell.config) is record and stands(record, cell.config)


def _here(cells: list[Cell], leaving: Leaving) -> Troubles:
    """Run cells on this machine: in this process, or where `jobs` says so in several at once, the longest first.

    Longest first, by steps, so that no lane works on a long cell at the end while the others have nothing to do.
    """
    jobs = lanes([cell.config for cell in cells])
    if jobs > 1:
        cells = sorted(cells, key=_weight, reverse=True)  # stable: cells of equal weight stay in the grid's order
    seeds = len({cell.config.seed for cell in cells}) > 1
    titles = [(cell.id, _title(cell, seeds), _weight(cell), cell.names.task) for cell in cells]
    bar = StudyBar(titles, lanes=jobs, ended=leaving.ended)
    try:
        if jobs == 1:
            return _one_by_one(cells, bar)
        from seqbench.studies.pool import Pool  # with torch, as seqbench.run

        return Pool(cells, jobs=jobs, bar=bar).run()
    finally:
        bar.close()


def _one_by_one(cells: list[Cell], bar: StudyBar) -> Troubles:
    from seqbench.run import run

    troubles = Troubles()
    with ticking(bar):
        for cell in cells:
            bar.start(cell.id)
            try:
                said = told(run(cell.config, watch=functools.partial(bar.watch, cell.id)).record)
            except Claimed as error:
                troubles.elsewhere[cell.id] = str(error).splitlines()[0]
                said = f"running elsewhere: {troubles.elsewhere[cell.id]}"
            except Unwritable:
                raise
            except (ConfigError, DataError, RecordError) as error:
                troubles.not_run[cell.id] = str(error).splitlines()[0]
                said = f"not run: {troubles.not_run[cell.id]}"
            bar.finish(cell.id, said)
            gc.collect()  # a cell's tensors, before the next one's
    return troubles


def _on_cluster(cells: list[Cell], slurm: Slurm, leaving: Leaving) -> Troubles:
    """Each cell as a job of a cluster."""
    titles = [(cell.id, cell.title, _weight(cell), cell.names.task) for cell in cells]
    bar = StudyBar(titles, lanes=slurm.settings.at_once, ended=leaving.ended)
    try:
        return slurm.run(cells, bar)
    finally:
        bar.close()


def _title(cell: Cell, seeds: bool) -> str:
    return cell.title if seeds else cell.title.removesuffix(f", seed {cell.config.seed}")


def _elsewhere(plan: Plan, cells: list[Cell], launch: Launch) -> Troubles:
    """Hand cells to Hydra's launcher, each with what makes its config."""
    study = [f"study={plan.study}"] if plan.study else []
    if cells:
        launch([[*study, *cell.overrides] for cell in cells])
    return Troubles()


def _weight(cell: Cell) -> int:
    """Optimizer steps, where the budget is in others as many as by default; a trivial row has none."""
    return 0 if cell.config.encoder["_target_"] == "encoders.trivial.Trivial" else cell.config.budget.steps or STEPS


def tracebacks(plan: Plan, records: dict[str, Record | None]) -> list[str]:
    """For each cell that failed with an error of its own, where the whole of it is."""
    failed = [cell for cell in plan.cells if (record := records[cell.id]) is not None and record.status == "failed"]
    paths = [(cell.title, Path(cell.config.results) / cell.id / "error.log") for cell in failed]
    return [f"{title}: traceback in {path}" for title, path in paths if path.is_file()]


def table(plan: Plan, records: dict[str, Record | None], troubles: Troubles) -> str:
    """The cells with status, headline of the test split and record, as text."""
    vary = [key for key in plan.dimensions if key not in ("encoder", "task", "seed")]
    rows = [("encoder", "task", *vary, "seed", "status", "test", "record")]
    for cell in plan.cells:
        record = records[cell.id]
        status = "not run" if record is None else record.status.replace("_", " ")
        score = "-" if record is None or record.status != "finished" else headline(record)
        place = "-" if record is None else str(Path(cell.config.results) / cell.id / "record.json")
        if cell.id in troubles.elsewhere and not _done(record):
            status, place = "running elsewhere", troubles.elsewhere[cell.id]
        elif record is None:
            place = troubles.not_run.get(cell.id, "-")
        own = (cell.names.encoder, cell.names.task, *(cell.values.get(key, "-") for key in vary))
        rows.append((*own, str(cell.config.seed), status, score, place))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
