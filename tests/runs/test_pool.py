"""Cells in several processes: the same results, and one that dies, is held or is stopped takes no other with it."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from seqbench.config import RunConfig
from seqbench.errors import ConfigError, RecordError
from seqbench.record import Record
from seqbench.records.claim import claim
from seqbench.records.store import Store, read
from seqbench.run import run
from seqbench.studies import jobs
from seqbench.studies.pool import Pool
from seqbench.studies.study import Cell
from seqbench.studies.studybar import StudyBar
from seqbench.training import casualty
from tests.seqbench.toy_cli import ALLOWED, BASE, STUDY, Toy
from tests.seqbench.toy_config import broken, toy_config

ROOT = Path(__file__).resolve().parents[2]


def by_cell(toy: Toy) -> dict[tuple[str, int], Record]:
    return {(record.encoder.name, record.seed): record for record in map(read, toy.records())}


LOUD = """
from tests.seqbench.toy import BrokenEncoder

class Loud(BrokenEncoder):
    def forward(self, source):
        if self.passes == 1:
            print("a word", flush=True)
        if self.passes == self.at - 1:
            print("last words", end="", flush=True)
        return super().forward(source)
"""


OTHERS: set[int] = set()  # what earlier tests of this process left running: W&B's service


@pytest.fixture(autouse=True)
def _others() -> None:
    OTHERS.clear()
    OTHERS.update(child.pid for child in psutil.Process().children(recursive=True))


def children() -> list[psutil.Process]:
    """Processes that the test itself has started."""
    return [child for child in psutil.Process().children(recursive=True) if child.pid not in OTHERS]


# -- how many ------------------------------------------------------------------------------------------------------
def configs(tmp_path: Path, number: int, **changes: Any) -> list[RunConfig]:
    return [toy_config(tmp_path, changes | {"seed": seed}) for seed in range(number)]


def test_lanes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "cores", lambda: 8)
    monkeypatch.setattr(jobs, "_room", lambda: 6)
    assert jobs.lanes([]) == 1
    assert jobs.lanes(configs(tmp_path, 4)) == 1
    assert jobs.lanes(configs(tmp_path, 4, jobs=3)) == 3
    assert jobs.lanes(configs(tmp_path, 2, jobs=3)) == 2
    auto = {"jobs": "auto"}
    assert jobs.lanes(configs(tmp_path, 20, **auto)) == 6
    assert jobs.lanes(configs(tmp_path, 20, **auto, **{"trainer.threads": 3})) == 2
    assert jobs.lanes(configs(tmp_path, 20, **auto, **{"trainer.threads": None})) == 6
    assert jobs.lanes(configs(tmp_path, 20, **auto, **{"trainer.threads": 16})) == 1
    assert jobs.lanes(configs(tmp_path, 20, **auto, **{"trainer.accelerator": "gpu"})) == 1
    with pytest.raises(ConfigError, match=r"^jobs: 2, auto; a sweep has one number of jobs$"):
        jobs.lanes([*configs(tmp_path, 1, jobs=2), *configs(tmp_path, 1, **auto)])


def test_cores_are_those_that_we_may_use() -> None:
    assert 1 <= jobs.cores() <= (os.cpu_count() or 1)


def test_a_study_says_how_many_and_the_command_line_wins(toy: Toy) -> None:
    from seqbench.composition.compose import config_loader
    from seqbench.studies.study import plan

    toy.write("study/tiny.yaml", {**STUDY, "jobs": "auto"})
    loader = config_loader(str(toy.configs))
    assert {cell.config.jobs for cell in plan("tiny", [ALLOWED], loader=loader).cells} == {"auto"}
    typed = plan("tiny", [ALLOWED, "jobs=3"], loader=loader)
    assert {cell.config.jobs for cell in typed.cells} == {3}
    assert [cell.id for cell in typed.cells] == [cell.id for cell in plan("tiny", [ALLOWED], loader=loader).cells]
    toy.write("study/tiny.yaml", {**STUDY, "jobs": 0})
    assert toy("-m", "study=tiny", base=[]).line.startswith("study/tiny.yaml: jobs: 0 is not allowed")
    assert toy("-m", "jobs=many").line.startswith("jobs: 'many' is not a whole number nor one of auto")


def test_the_machine_class_says_what_ran_beside_it(tmp_path: Path) -> None:
    record = run(toy_config(tmp_path, {"budget.steps": 2, "budget.eval_every": 2}), jobs=2).record
    assert record.environment.machine_class.endswith(", 1 thread, 2 jobs at once")


# -- without a process ---------------------------------------------------------------------------------------------
def test_a_cell_that_is_held_is_no_failure(toy: Toy) -> None:
    from seqbench.composition.compose import config_loader
    from seqbench.studies.study import plan

    held, *others = plan("tiny", [ALLOWED], loader=config_loader(str(toy.configs))).cells
    with claim(toy.work / "results" / held.id):
        said = toy("-m", "study=tiny", base=[])
        assert said.code == 0, said.err
        assert len(toy.records()) == len(others)
        line = next(line for line in said.out.splitlines() if "running elsewhere" in line)
        assert f"process {os.getpid()} on " in line
        assert toy("-m", "study=tiny", "encoder=toy,broken", base=[]).code == 1  # for the failures alone
    assert toy("-m", "study=tiny", base=[]).code == 0
    assert len(toy.records()) == len(others) + 1 + 2


@pytest.mark.parametrize(
    "code, memory, expected",
    [
        (-9, False, ("killed", "the process was killed (signal 9, SIGKILL)")),
        (-9, True, ("out_of_memory", "the process was killed (signal 9, SIGKILL); the system ran out of memory")),
        (-11, True, ("killed", "the process was killed (signal 11, SIGSEGV)")),
        (3, True, ("failed", "the process ended in the middle of it, with exit code 3")),
    ],
)
def test_causes_of_death(code: int, memory: bool, expected: tuple[str, str]) -> None:
    status, reason = casualty.cause(code, memory=memory)
    assert status == expected[0]
    assert reason.startswith(expected[1])


def test_the_record_of_the_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy_config(tmp_path / "cut", broken("interrupt", 25))
    with pytest.raises(KeyboardInterrupt):
        run(config)  # leaves a checkpoint at step 10
    cut = Store(config.results).all()[0][0]
    folder = Path(config.results) / cut.id
    (folder / ".record.json.77.tmp").write_text("half")
    status, reason = casualty.cause(-9, memory=False)

    def bury(since: str) -> Record:
        return casualty.bury(
            config, cut.id, process=77, since=since, status=status, reason=reason, step=12, threads=1, jobs=2
        )

    assert bury("2000-01-01T00:00:00+00:00") == cut  # it had written a record before it died
    record = bury("2999-01-01T00:00:00+00:00")
    assert Store(config.results).find(cut.id) == record
    assert (record.status, record.reason, record.failed_at_step) == ("killed", reason, 12)
    assert [point.step for point in record.curves] == [5, 10]
    assert record.encoder.family == "toy"
    assert not list(folder.glob(".*"))
    assert run(config).skipped  # rerun=never
    monkeypatch.setenv("SEQBENCH_TOY_HEALTHY", "1")
    again = run(config.model_copy(update={"rerun": "failed"})).record
    assert (again.status, again.resumed) == ("finished", 1)  # from the checkpoint: nothing was wrong with it
    straight = run(toy_config(tmp_path / "straight", broken("interrupt", 25))).record
    assert again.predictions is not None
    assert again.predictions == straight.predictions


def test_what_a_worker_says_at_the_end_of_a_cell(tmp_path: Path) -> None:
    """A full disk and an error of ours end the sweep; a mistake of one cell does not."""
    config = toy_config(tmp_path)
    cell = Cell(id="x", config=config, names=config.names, overrides=[])
    stream = io.StringIO()
    pool = Pool([], jobs=2, bar=StudyBar([("x", "X", 1, "k")], lanes=2, stream=stream))
    with pytest.raises(RecordError, match=r"^results: no room$"):
        pool._ended(cell, "stop", "results: no room")
    with pytest.raises(RuntimeError, match=r"toy x toy, seed 0, in a worker process:\nTraceback"):
        pool._ended(cell, "bug", "Traceback ...")
    pool._ended(cell, "not run", "task.data: is not there\nfetch it")
    assert pool.troubles.not_run == {"x": "task.data: is not there"}
    assert stream.getvalue() == "[1/1] X  not run: task.data: is not there  0 s\n"


# -- with processes ------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_one_is_killed_one_is_held_the_others_are_as_ever(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cells in two processes: one is killed in its 13th step, one belongs to somebody else, two are compared."""
    from seqbench.composition.compose import config_loader
    from seqbench.studies.study import plan_sweep

    monkeypatch.syspath_prepend(toy.work)
    (toy.work / "loud_for_pool.py").write_text(LOUD)
    node = {**broken("kill", 13)["encoder"], "_target_": "loud_for_pool.Loud"}
    toy.write("encoder/killed.yaml", node)
    grid = ["encoder=toy,killed", "seed=0,1", *BASE[1:-1], f"{ALLOWED[:-1]},loud_for_pool]"]
    held = next(
        cell
        for cell in plan_sweep(grid, loader=config_loader(str(toy.configs))).cells
        if (cell.names.encoder, cell.config.seed) == ("killed", 1)
    )
    with claim(toy.work / "results" / held.id):
        said = toy("-m", *grid, "jobs=2", base=[])
    assert said.code == 1, said.err
    assert not children()
    found = by_cell(toy)
    assert set(found) == {("toy", 0), ("toy", 1), ("killed", 0)}
    killed = found["killed", 0]
    assert (killed.status, killed.reason) == ("killed", "the process was killed (signal 9, SIGKILL)")
    assert [point.step for point in killed.curves] == [5, 10]
    assert (toy.work / "results" / killed.id / "checkpoints" / "last.pt").is_file()
    printed = [line for line in said.err.splitlines() if "word" in line]
    assert printed == ["killed x toy, seed 0: a word", "killed x toy, seed 0: last words"]  # the last one had no end
    shown = [line for line in said.err.splitlines()[1:] if line not in printed]
    counts = [
        re.match(r"\[(\d)/4\] (toy|killed) x toy, seed [01]  .*  \d+ s(  \(about \d+ s left\))?$", s) for s in shown
    ]
    assert [count and count[1] for count in counts] == ["1", "2", "3", "4"], said.err
    table = said.out.splitlines()
    assert sum("running elsewhere" in line for line in table) == 1
    assert sum("killed  " in line and "finished" not in line for line in table) == 2
    alone = toy("-m", "encoder=toy", *grid[1:], "results=alone", base=[])
    assert alone.code == 0
    for path in (toy.work / "alone").glob("*/record.json"):
        one = read(path)
        other = found["toy", one.seed]
        assert one.id == other.id
        assert one.predictions == other.predictions
        assert one.checkpoint == other.checkpoint
        assert one.scores == other.scores
        assert other.environment.machine_class == f"{one.environment.machine_class}, 2 jobs at once"
    del sys.modules["loud_for_pool"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_every_worker(number: signal.Signals, toy: Toy) -> None:
    """Runs record that they were interrupted; nothing is left running; the same command goes on from there."""
    grid = ["-m", "seed=0,1,2", "budget.steps=100000", "budget.eval_every=100000", "jobs=2"]
    told: list[str] = []

    def stop() -> None:
        results = toy.work / "results"
        end = time.monotonic() + 60
        while len(list(results.glob("*/metrics.csv"))) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        told.extend(str(child.pid) for child in children())
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop)
    thread.start()
    said = toy(*grid)
    thread.join()
    assert said.code == 130
    assert (
        said.err.splitlines()[-1] == "interrupted; the same command goes on from the last checkpoint, if there was one"
    )
    assert "Traceback" not in said.err
    assert len(told) == 2
    assert not children()
    records = [read(path) for path in toy.records()]
    assert [(r.status, r.reason) for r in records] == [("interrupted", f"stopped by {number.name}")] * 2
    assert not list(toy.work.rglob("lock"))


@pytest.mark.slow
def test_workers_end_with_a_sweep_that_is_killed(toy: Toy) -> None:
    arguments = [*BASE, "seed=0,1", "budget.steps=100000", "budget.eval_every=100000", "jobs=2"]
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "--config-dir", str(toy.configs), "-m", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=toy.work, env=environment, stderr=subprocess.DEVNULL) as sweep:
        results = toy.work / "results"
        end = time.monotonic() + 60
        while len(list(results.glob("*/metrics.csv"))) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        workers = psutil.Process(sweep.pid).children()
        assert len(workers) == 2
        sweep.send_signal(signal.SIGKILL)
    psutil.wait_procs(workers, timeout=20)
    assert not [worker for worker in workers if worker.is_running()]
    assert [read(path).reason for path in toy.records()] == ["stopped by the end of the sweep"] * 2
