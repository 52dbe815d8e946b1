"""Cells as jobs, without a cluster: SLURM's commands are answered here, a job runs in this process.

What a real SLURM does to them is in tests/slurm/.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from seqbench import process
from seqbench.cluster import job, launcher, scheduler, site
from seqbench.cluster.batch import Batch, Outcome
from seqbench.errors import ConfigError
from seqbench.record import Record
from seqbench.records.store import Store
from seqbench.training.module import Module
from tests.seqbench.toy_cli import Said, Toy

GRID = ["-m", "seed=0,1", "hydra/launcher=slurm"]
SHIPPED = yaml.safe_load((Path(__file__).resolve().parents[2] / "configs/hydra/launcher/slurm.yaml").read_text())


class Cluster:
    """A scheduler that starts a job when it is submitted, and says of it what a test wants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch
        self.commands: list[list[str]] = []
        self.states: dict[tuple[str, int], str] = {}
        self.codes: dict[int, str] = {}  # index -> ExitCode
        self.folders: list[Path] = []
        self.fate: Callable[[Cluster, Path, int], str] = Cluster.start  # what becomes of a job: its state
        self.down = False
        monkeypatch.setattr(scheduler, "_ask", self.ask)
        monkeypatch.setattr(job, "REQUEUED", 0.0)

    def of(self, command: str) -> list[list[str]]:
        return [words for words in self.commands if words[0] == command]

    def ask(self, command: list[str]) -> str:
        self.commands.append(command)
        if self.down:
            raise scheduler.Unanswered("slurm_load_jobs error: Unable to contact slurm controller")
        given = dict(word.lstrip("-").split("=", 1) for word in command if word.startswith("--") and "=" in word)
        match command[0], command[1]:
            case "sbatch", _:
                folder = Path(command[-1]).parent
                self.folders.append(folder)
                count = int(given["array"].partition("%")[0].partition("-")[2]) + 1
                for index in range(count):
                    self.states[given["job-name"], index] = self.fate(self, folder, index)
                return f"{len(self.folders)}\n"
            case "squeue", _:
                names = given["name"].split(",")
                rows = [(key, state) for key, state in self.states.items() if key[0] in names]
                return "".join(f"{name}|{1}|{index}|{state}|None|n1\n" for (name, index), state in rows)
            case "scontrol", "show":
                index = int(command[-1].partition("_")[2])
                state = next(state for (_, i), state in reversed(self.states.items()) if i == index)
                code = self.codes.get(index, "0:0")
                return f"JobId=1 JobState={state} Reason=NodeDown ExitCode={code} NodeList=n1\n"
            case _:
                return ""

    def start(self, folder: Path, index: int, restarts: int = 0) -> str:
        """Run a cell here; COMPLETED."""
        variables = {
            "SLURM_JOB_ID": "7",
            "SLURM_ARRAY_JOB_ID": "1",
            "SLURM_ARRAY_TASK_ID": str(index),
            "SLURM_JOB_NODELIST": "n1",
            "SLURM_RESTART_COUNT": str(restarts),
        }
        before = {number: signal.getsignal(number) for number in job.SIGNALS}
        with self.patch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.setenv(job.LOG, "")  # put back afterwards
            patch.setattr(process._signals, "patient", False)
            patch.setattr(process._signals, "numbers", process._signals.numbers)
            try:
                job.main([str(folder)])
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
        return "COMPLETED"

    def lose(self, folder: Path, index: int) -> str:
        """A job whose node dies when the cell has begun."""
        Batch(folder).say(index, Outcome(what="began", started="2999-01-01T00:00:00+00:00"))
        return "NODE_FAIL"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cluster]:
    place = tmp_path / "site.yaml"
    place.write_text("poll: 0.01\npartition: short\n")
    monkeypatch.setenv(site.VARIABLE, str(place))
    return Cluster(monkeypatch)


def by_seed(toy: Toy) -> dict[int, Record]:
    records, damages = Store(toy.work / "results").all()
    assert not damages
    return {record.seed: record for record in records}


def test_cells_go_through_the_queue_and_come_out_as_at_home(toy: Toy, cluster: Cluster) -> None:
    said = toy(*GRID, "hydra.launcher.at_once=1")
    assert said.code == 0, said
    (sbatch,) = cluster.of("sbatch")
    for option in ("--array=0-1%1", "--requeue", "--partition=short", "--signal=B:USR1@120", "--open-mode=append"):
        assert option in sbatch
    away = by_seed(toy)
    assert toy("-m", "seed=0,1", "results=home").code == 0
    home, _ = Store(toy.work / "home").all()
    for record in home:
        other = away[record.seed]
        assert (other.id, other.scores) == (record.id, record.scores)
        assert other.predictions == record.predictions
        assert record.cluster is None
        assert other.cluster is not None
        assert (other.cluster.jobs, other.cluster.requeues) == ([f"1_{record.seed}"], 0)
        assert other.cluster.log is not None
        log = (toy.work / "results" / other.id / other.cluster.log).resolve()
        assert log == cluster.folders[0] / f"{record.seed}.log"
    assert toy(*GRID).code == 0
    assert len(cluster.of("sbatch")) == 1, "what has a record is not submitted again"


def test_a_cell_that_never_comes_back_is_a_failure_row(toy: Toy, cluster: Cluster) -> None:
    cluster.fate = lambda cluster, folder, index: [cluster.start, cluster.lose][index](folder, index)
    said = toy(*GRID)
    assert said.code == 1
    records = by_seed(toy)
    assert records[0].status == "finished"
    assert records[1].status == "killed"
    assert (records[1].reason or "").startswith("the process was killed (job 1_1, NODE_FAIL on n1, NodeDown); results/")
    assert "killed" in said.out
    assert toy(*GRID).code == 1
    assert len(cluster.of("sbatch")) == 1, "it has a record, of a failure"
    cluster.fate = Cluster.start
    assert toy(*GRID, "rerun=failed").code == 0
    assert "--array=0-0%16" in cluster.of("sbatch")[1]


@pytest.mark.parametrize(
    "state, code, status, says",
    [
        ("OUT_OF_MEMORY", "0:125", "out_of_memory", "OUT_OF_MEMORY on n1"),
        ("TIMEOUT", "0:15", "timed_out", "the same command goes on"),
        ("CANCELLED", "0:15", "interrupted", "CANCELLED"),
        ("FAILED", "0:9", "killed", "signal 9, SIGKILL"),
        ("FAILED", "3:0", "failed", "with exit code 3"),
    ],
)
def test_what_the_scheduler_says(state: str, code: str, status: str, says: str, toy: Toy, cluster: Cluster) -> None:
    def fate(cluster: Cluster, folder: Path, index: int) -> str:
        cluster.lose(folder, index)
        return state

    cluster.fate, cluster.codes = fate, {0: code}
    assert toy("-m", "seed=0", "hydra/launcher=slurm").code == 1
    record = by_seed(toy)[0]
    assert record.status == status
    assert says in (record.reason or "")


@pytest.mark.parametrize("signal, status", [("SIGUSR1", "timed_out"), ("SIGTERM", "interrupted")])
def test_a_cell_stopped_before_its_own_run_goes_on(signal: str, status: str, toy: Toy, cluster: Cluster) -> None:
    """In a trial or in pretraining: it has no record of its own, and is no failure that `rerun=never` leaves."""

    def fate(cluster: Cluster, folder: Path, index: int) -> str:
        stopped = Outcome(what="interrupted", line=signal, started="2999-01-01T00:00:00+00:00")
        Batch(folder).say(index, stopped)
        return "FAILED"

    cluster.fate, cluster.codes = fate, {0: "1:0"}
    assert toy("-m", "seed=0", "hydra/launcher=slurm").code == 1
    assert by_seed(toy)[0].status == status
    cluster.fate = Cluster.start
    assert toy("-m", "seed=0", "hydra/launcher=slurm").code == 0


def test_a_job_that_never_began_is_not_the_encoders_failure(toy: Toy, cluster: Cluster) -> None:
    cluster.fate = lambda cluster, folder, index: "FAILED"
    said = toy("-m", "seed=0", "hydra/launcher=slurm")
    assert said.code == 1
    assert "not run: job 1_0 ended as FAILED (NodeDown) before the cell began; results/slurm/" in said.err
    assert not toy.records()


def test_what_is_in_the_queue_is_not_submitted_twice(toy: Toy, cluster: Cluster) -> None:
    cluster.fate = lambda cluster, folder, index: "PENDING"
    said = toy(*GRID, "hydra.launcher.wait=false")
    assert said.code == 0
    assert said.out.count("running elsewhere") == 2
    assert "job 1_0; results/slurm/" in said.out
    name = cluster.folders[0].name
    cluster.states[f"seqbench-{name}", 0] = cluster.start(cluster.folders[0], 0)
    (cluster.folders[0] / "job").unlink()  # the first command died before it could write it
    cluster.states[f"seqbench-{name}", 1] = "RUNNING"
    said = toy("-m", "seed=0,1,2", "hydra/launcher=slurm", "hydra.launcher.wait=false")
    assert "1 cells to submit, 1 in the queue already" in said.err
    assert [words for words in cluster.of("sbatch")[1] if words.startswith("--array")] == ["--array=0-0%16"]
    cluster.states[f"seqbench-{name}", 1] = cluster.lose(cluster.folders[0], 1)
    assert toy(*GRID).code == 1
    assert len(cluster.of("sbatch")) == 2, "its death was not watched, its record is written nevertheless"
    assert by_seed(toy)[1].status == "killed"


def test_time_up_saves_and_queues_again_and_goes_on(
    toy: Toy, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Module.on_before_optimizer_step
    count = 0

    def struck(*args: Any, **kwargs: Any) -> None:
        nonlocal count
        count += 1
        if count == 7:
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR1)  # srun's
        step(*args, **kwargs)

    monkeypatch.setattr(Module, "on_before_optimizer_step", struck)
    seen: list[Record] = []

    def fate(cluster: Cluster, folder: Path, index: int) -> str:
        cluster.start(folder, index)
        seen.append(by_seed(toy)[0])
        return cluster.start(folder, index, restarts=1)

    cluster.fate = fate
    assert toy("-m", "seed=0", "rerun=always", "hydra/launcher=slurm").code == 0
    assert [words[1:] for words in cluster.of("scontrol")] == [["requeue", "1_0"]]
    assert (seen[0].status, seen[0].failed_at_step) == ("timed_out", 7), "the step was ended, for all the hurry"
    assert seen[0].saved is not None
    assert seen[0].saved.step == 7
    record = by_seed(toy)[0]
    assert record.cluster is not None
    assert (record.status, record.resumed, record.cluster.requeues) == ("finished", 1, 1)
    assert count == 20, "no step was taken twice"
    assert toy("-m", "seed=0", "results=home").code == 0
    home = Store(toy.work / "home").all()[0][0]
    assert (home.scores, home.predictions) == (record.scores, record.predictions)


def test_a_start_that_dies_after_one_that_was_stopped_is_told(
    toy: Toy, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record that the first start left, of a job out of time, is not the end of the story."""

    def struck(*args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    def fate(cluster: Cluster, folder: Path, index: int) -> str:
        cluster.start(folder, index)
        assert by_seed(toy)[0].status == "timed_out"
        return cluster.lose(folder, index)

    monkeypatch.setattr(Module, "on_before_optimizer_step", struck)
    cluster.fate = fate
    assert toy("-m", "seed=0", "hydra/launcher=slurm").code == 1
    record = by_seed(toy)[0]
    assert (record.status, record.failed_at_step) == ("killed", 1)


def test_requeues_have_a_limit(toy: Toy, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def struck(*args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(Module, "on_before_optimizer_step", struck)
    cluster.fate = lambda cluster, folder, index: cluster.start(folder, index, restarts=2)
    assert toy("-m", "seed=0", "hydra/launcher=slurm", "hydra.launcher.requeues=2").code == 1
    assert not [words for words in cluster.of("scontrol") if words[1] == "requeue"]
    assert by_seed(toy)[0].status == "timed_out"


def test_a_job_that_finds_its_cell_done_does_not_do_it_again(toy: Toy, cluster: Cluster) -> None:
    """A node that dies after the record was written: the job starts again, also with rerun=always."""

    def fate(cluster: Cluster, folder: Path, index: int) -> str:
        cluster.start(folder, index)
        seen.append(toy.records()[0].stat().st_mtime_ns)
        return cluster.start(folder, index, restarts=1)

    seen: list[int] = []
    cluster.fate = fate
    assert toy("-m", "seed=0", "rerun=always", "hydra/launcher=slurm").code == 0
    assert toy.records()[0].stat().st_mtime_ns == seen[0]
    assert toy("-m", "seed=0", "rerun=always", "hydra/launcher=slurm").code == 0
    assert toy.records()[0].stat().st_mtime_ns == seen[1] > seen[0], "another command makes it anew"


def test_a_cell_that_has_changed_meanwhile_is_refused(toy: Toy, cluster: Cluster) -> None:
    def fate(cluster: Cluster, folder: Path, index: int) -> str:
        cells = json.loads((folder / "cells.json").read_text())
        cells["cells"][0]["config"]["encoder"]["dim"] += 2
        (folder / "cells.json").write_text(json.dumps(cells))
        return cluster.start(folder, index)

    cluster.fate = fate
    said = toy("-m", "seed=0", "hydra/launcher=slurm")
    assert said.code == 1
    assert "has changed since it was submitted" in said.err
    assert not toy.records()


def test_no_answer_is_no_empty_queue(toy: Toy, cluster: Cluster) -> None:
    cluster.fate = lambda cluster, folder, index: "PENDING"
    assert toy(*GRID, "hydra.launcher.wait=false").code == 0
    cluster.down = True
    said = toy(*GRID)
    assert said.code == 2
    assert "Unable to contact slurm controller" in said.err
    assert len(said.err.splitlines()) <= 3
    assert len(cluster.of("sbatch")) == 1


@pytest.mark.parametrize(
    "state, reason, stuck",
    [
        ("PENDING", "JobHeldUser", True),
        ("PENDING", "launch failed requeued held", True),
        ("PENDING", "JobHoldMaxRequeue", True),
        ("REQUEUE_HOLD", "JobHeldAdmin", True),
        ("PENDING", "DependencyNeverSatisfied", True),
        ("PENDING", "Resources", False),
        ("PENDING", "JobArrayTaskLimit", False),
        ("PENDING", "Dependency", False),
        ("RUNNING", "None", False),
    ],
)
def test_a_job_that_waits_for_a_hand_is_told_once(
    state: str, reason: str, stuck: bool, toy: Toy, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A held job never ends by itself: the command would wait in silence."""
    looks = 0
    ask = cluster.ask

    def held(command: list[str]) -> str:
        nonlocal looks
        if command[0] == "squeue" and (looks := looks + 1) > 3:
            cluster.states = dict.fromkeys(cluster.states, "CANCELLED")
        return ask(command).replace("|None|", f"|{reason}|")

    cluster.fate = lambda cluster, folder, index: state
    monkeypatch.setattr(scheduler, "_ask", held)
    said = toy("-m", "seed=0", "hydra/launcher=slurm")
    assert said.code == 1
    told = f"waits for you: {reason} (scontrol release 1_0, or scancel 1_0)"
    assert (said.out + said.err).count(told) == int(stuck)


def test_a_batch_that_slurm_refuses_leaves_nothing(toy: Toy, cluster: Cluster) -> None:
    cluster.down = True
    assert toy(*GRID).code == 2
    assert not list((toy.work / "results" / "slurm").glob("*/*"))
    assert not list((toy.work / "results").glob("*/job.json"))


def test_long_sweeps_are_several_arrays_one_after_the_other(
    toy: Toy, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "ONE_ARRAY", 1)
    monkeypatch.setattr(scheduler, "largest_array", lambda: 2)
    cluster.fate = lambda cluster, folder, index: "PENDING"
    assert toy("-m", "seed=0,1,2", "hydra/launcher=slurm", "hydra.launcher.wait=false").code == 0
    first, second = cluster.of("sbatch")
    assert "--array=0-1%16" in first
    assert "--array=0-0%16" in second
    assert "--dependency=afterany:1" in second
    assert not [word for word in first if word.startswith("--dependency")]


# -- settings ----------------------------------------------------------------------------------------------------------
def settle(content: object, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "own.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setenv(site.VARIABLE, str(folder / "own.yaml"))


def test_typed_beats_site_beats_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settle({"minutes": 30, "cpus": 8, "before": ["module load x"]}, monkeypatch, tmp_path)
    settings, own = site.read({**SHIPPED, "minutes": 5, "at_once": 3}, ["hydra.launcher.minutes=5"])
    assert (settings.minutes, settings.cpus, settings.at_once) == (5, 8, 3)
    assert own.before == ["module load x"]


@pytest.mark.parametrize(
    "content, says",
    [
        ({"partiton": "x"}, "own.yaml: partiton: no such"),
        ({"partition": "a b"}, "own.yaml: partition: "),
        ({"partition": "x; rm"}, "own.yaml: partition: "),
        ({"before": "module load x"}, "own.yaml: before: 'module load x' is not a list"),
        ({"before": ["a\nb"]}, "own.yaml: before.0: "),
        ({"warning": 9000}, "hydra.launcher.warning: 9000 seconds are not less than the 60 minutes of a job"),
        ([1], "own.yaml: is no mapping of keys"),
    ],
)
def test_a_wrong_site_file_is_told(content: object, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settle(content, monkeypatch, tmp_path)
    with pytest.raises(ConfigError) as caught:
        site.read(SHIPPED, [])
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(
    "key, value",
    [("before", ["touch it_ran"]), ("command", ["evil"]), ("python", "evil"), ("options", ["--wrap=evil"])],
)
def test_only_the_site_file_names_commands(key: str, value: object, toy: Toy, cluster: Cluster) -> None:
    """A stranger's folder of configs may hold a launcher; it says nothing that runs."""
    toy.write("hydra/launcher/theirs.yaml", {**SHIPPED, key: value})
    said: Said = toy("-m", "seed=0", "hydra/launcher=theirs")
    assert said.code == 2
    assert f"hydra.launcher: {key}: no such key" in said.err
    assert not cluster.commands


def test_a_run_without_m_is_told(toy: Toy, cluster: Cluster) -> None:
    said = toy("hydra/launcher=slurm")
    assert said.code == 2
    assert "add -m" in said.err
    assert not cluster.commands


def test_the_script_runs_the_sites_lines_and_nothing_of_the_shells(tmp_path: Path) -> None:
    from seqbench.cluster.script import options, script

    settings = site.Settings.model_validate({k: v for k, v in SHIPPED.items() if k != "_target_"})
    own = site.Site(before=["module load cuda"], command=["apptainer", "exec", "my image.sif"], python="python3")
    folder = tmp_path / "it's 100%"
    text = script(folder, settings, own).splitlines()
    assert text[0] == "#!/bin/bash"
    assert "module load cuda" in text
    assert text[-1].startswith("exec apptainer exec 'my image.sif' python3 ")
    assert text[-1].endswith("/scripts/cell.py '" + str(folder).replace("'", "'\"'\"'") + "'")
    given = options(folder, "x", 5, settings, own, None)
    assert f"--output={tmp_path}/it's 100%%/%a.log" in given
    several = settings.model_copy(update={"nodes": 2, "tasks": 4, "gpus": "a100:4"})
    assert "exec srun --kill-on-bad-exit=1" in script(folder, several, own)
    given = options(folder, "x", 5, several, own, None)
    assert {"--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=a100:4", "--signal=USR1@120"} <= set(given)
