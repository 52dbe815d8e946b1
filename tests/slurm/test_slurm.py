"""Sweeps on a SLURM of two nodes against the same sweeps at home: the same records to the bit, whatever happens.

Nothing here is tried again: waits have generous limits, and what a test waits for comes by itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from seqbench.record import Record
from seqbench.records.store import Store
from tests.slurm.two_nodes import TwoNodes, wait

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 600.0  # seconds that a command may take
COMMON = [
    "task=digits",
    "encoder.dim=16",
    "trainer.threads=1",
    "trainer.invariance_rows=0",
    "logger.csv.every=50",
    "budget.batch_size=16",
    "budget.eval_limit=64",
]
SHORT = [*COMMON, "encoder=lstm,tcn", "seed=0,1", "budget.steps=40", "budget.eval_every=20"]
LONG = [*COMMON, "encoder=lstm", "seed=0,1", "budget.steps=1200", "budget.eval_every=60"]
ENDLESS = [*LONG, "budget.steps=1000000"]  # of cells that are to be killed, however late


class Lab:
    """A working directory, from which sweeps are sent to the cluster."""

    def __init__(self, cluster: TwoNodes, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.site("")

    def site(self, text: str) -> None:
        """The site file."""
        (self.folder / "site.yaml").write_text(f"partition: main\ncpus: 1\npoll: 0.5\n{text}")

    def command(self, *words: str) -> list[str]:
        return [sys.executable, str(ROOT / "scripts" / "train.py"), "-m", *words]

    @property
    def environment(self) -> dict[str, str]:
        return {**self.cluster.environment, "SEQBENCH_SITE": str(self.folder / "site.yaml"), "OMP_NUM_THREADS": "1"}

    def sweep(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A sweep to its end."""
        return subprocess.run(
            self.command(*words), cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=LIMIT
        )

    @contextlib.contextmanager
    def begun(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A sweep that is waiting for its jobs; killed at the end, if it still is."""
        output = (self.folder / "sweep.log").open("w")
        process = subprocess.Popen(
            self.command(*words), cwd=self.folder, env=self.environment, stdout=output, stderr=output, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            output.close()

    def records(self, results: str = "results") -> dict[str, Record]:
        records, damages = Store(self.folder / results).all()
        assert not damages
        return {record.id: record for record in records}

    @property
    def batches(self) -> list[Path]:
        return sorted((self.folder / "results" / "slurm").glob("*/job"))

    def logs(self) -> str:
        return "\n".join(f"--- {path}\n{path.read_text()}" for path in self.folder.rglob("*.log"))

    def training(self, index: int) -> Callable[[], bool]:
        """Whether a cell of the first batch has been evaluated once in its last start."""

        def so() -> bool:
            log = self.batches[0].parent / f"{index}.log" if self.batches else None
            if log is None or not log.is_file():
                return False
            return "step " in log.read_text().rpartition(": cell ")[2]

        return so

    def job(self, index: int) -> str:
        """The id of a cell's job, `12_0`."""
        return f"{self.batches[0].read_text().strip()}_{index}"


@pytest.fixture
def lab(cluster: TwoNodes, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(cluster, tmp_path)
    yield made
    cluster.ask("scancel", "--user=root")
    wait("the queue is empty", lambda: not cluster.ask("squeue", "-h"), LIMIT)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, tuple[Record, bytes]]]:
    """What a sweep comes to without a cluster: records and predictions by id, made once for each sweep."""
    made: dict[tuple[str, ...], dict[str, tuple[Record, bytes]]] = {}

    def at_home(words: list[str]) -> dict[str, tuple[Record, bytes]]:
        if tuple(words) not in made:
            folder = tmp_path_factory.mktemp("home")
            command = [sys.executable, str(ROOT / "scripts" / "train.py"), "-m", *words]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT)
            assert done.returncode == 0, done.stderr
            records, _ = Store(folder / "results").all()
            made[tuple(words)] = {
                record.id: (record, (folder / "results" / record.id / "predictions.parquet").read_bytes())
                for record in records
            }
        return made[tuple(words)]

    return at_home


def assert_same(lab: Lab, home: dict[str, tuple[Record, bytes]]) -> None:
    """Every record of the cluster against the one from home: scores, curves, predictions, to the bit."""
    records = lab.records()
    assert set(records) == set(home), lab.logs()
    for this, (expected, predictions) in home.items():
        record = records[this]
        assert record.status == "finished", (record.reason, lab.logs())
        assert record.scores == expected.scores
        assert [(p.step, p.values) for p in record.curves] == [(p.step, p.values) for p in expected.curves]
        assert (lab.folder / "results" / this / "predictions.parquet").read_bytes() == predictions


def test_a_study_over_both_nodes(lab: Lab, home: Callable[..., dict[str, tuple[Record, bytes]]]) -> None:
    done = lab.sweep("hydra/launcher=slurm", *SHORT)
    assert done.returncode == 0, (done.stderr, lab.logs())
    assert "4 cells to submit" in done.stderr
    assert done.stdout.count("finished") == 4
    assert_same(lab, home(SHORT))
    facts = [record.cluster for record in lab.records().values()]
    assert {fact.nodes for fact in facts if fact} == {"n1", "n2"}
    assert sorted(fact.jobs[0].partition("_")[2] for fact in facts if fact) == ["0", "1", "2", "3"]
    for this, record in lab.records().items():
        assert record.cluster is not None
        assert record.cluster.log is not None
        log = (lab.folder / "results" / this / record.cluster.log).read_text()
        assert f"{record.encoder.name} digits seed {record.seed}: step 40/40" in log
    again = lab.sweep("hydra/launcher=slurm", *SHORT)
    assert again.returncode == 0
    assert "4 have a record, 0 to run" in again.stderr
    assert len(lab.batches) == 1


def test_preempted_out_of_time_and_a_node_lost(lab: Lab, home: Callable[..., dict[str, tuple[Record, bytes]]]) -> None:
    """One cell is requeued by hand and then told that its time is over, the other one's node dies."""
    with lab.begun("hydra/launcher=slurm", *LONG) as sweep:
        for index in (0, 1):
            wait(f"cell {index} trains", lab.training(index))
        lab.cluster.ask("scontrol", "requeue", lab.job(0))
        node = lab.cluster.node(lab.job(1))
        assert node in ("n1", "n2")
        lab.cluster.down(node)
        wait("cell 0 has been requeued", lambda: "start 2," in (lab.batches[0].parent / "0.log").read_text())
        wait("cell 0 trains again", lab.training(0))
        lab.cluster.ask("scancel", "--signal=USR1", "--batch", lab.job(0))  # as SLURM does before the time is over
        wait("cell 0 has queued itself", lambda: "queued again" in (lab.batches[0].parent / "0.log").read_text())
        wait("cell 1 has moved", lambda: "start 2," in (lab.batches[0].parent / "1.log").read_text())
        lab.cluster.up(node)
        assert sweep.wait(LIMIT) == 0, lab.logs()
    assert_same(lab, home(LONG))
    records = {record.seed: record for record in lab.records().values()}
    requeues = {seed: record.cluster.requeues for seed, record in records.items() if record.cluster}
    assert requeues == {0: 2, 1: 1}, lab.logs()
    assert {seed: record.resumed for seed, record in records.items()} == {0: 2, 1: 1}
    other = records[1].cluster
    assert other is not None
    assert other.nodes != node


def test_who_never_comes_back_is_a_row_and_a_sweep_goes_on_without_its_process(lab: Lab) -> None:
    """Nothing is requeued here. One process is killed as for want of memory, one node dies, nobody watches."""
    lab.site("options: [--no-requeue]\n")
    with lab.begun("hydra/launcher=slurm", *ENDLESS) as sweep:
        for index in (0, 1):
            wait(f"cell {index} trains", lab.training(index))
        sweep.send_signal(signal.SIGKILL)
        sweep.wait()
    nodes = [lab.cluster.node(lab.job(index)) for index in (0, 1)]
    with lab.begun("hydra/launcher=slurm", *ENDLESS) as sweep:
        wait("the second command sees the jobs", lambda: "2 in the queue" in (lab.folder / "sweep.log").read_text())
        victims = [
            process
            for process in lab.cluster.processes()
            if process.environ().get("SLURMD_NODENAME") == nodes[0] and "cell.py" in " ".join(process.cmdline())
        ]
        assert victims, lab.logs()
        with contextlib.suppress(psutil.NoSuchProcess):
            victims[0].kill()
        lab.cluster.down(nodes[1])
        assert sweep.wait(LIMIT) == 1, lab.logs()
    lab.cluster.up(nodes[1])
    assert len(lab.batches) == 1, "no cell was submitted twice"
    reasons = {record.seed: (record.status, record.reason or "") for record in lab.records().values()}
    assert reasons[0][0] == reasons[1][0] == "killed", (reasons, lab.logs())
    assert re.search(r"signal 9, SIGKILL\) \(job \d+_0, FAILED on n[12]", reasons[0][1]), reasons
    assert re.search(r"\(job \d+_1, NODE_FAIL on n[12]", reasons[1][1]), reasons
    assert "killed" in (lab.folder / "sweep.log").read_text()


def test_rows_that_were_killed_are_tried_again_from_where_they_were(
    lab: Lab, home: Callable[..., dict[str, tuple[Record, bytes]]]
) -> None:
    lab.site("options: [--no-requeue]\n")
    words = [*LONG, "seed=0"]
    with lab.begun("hydra/launcher=slurm", *words) as sweep:
        wait("the cell trains", lab.training(0))
        lab.cluster.ask("scancel", lab.job(0))
        assert sweep.wait(LIMIT) == 1, lab.logs()
    (record,) = lab.records().values()
    assert (record.status, record.reason) == ("interrupted", "stopped by SIGTERM")
    assert record.saved is not None
    done = lab.sweep("hydra/launcher=slurm", *words)
    assert done.returncode == 0, (done.stderr, lab.logs())
    (record,) = lab.records().values()
    assert record.cluster is not None
    assert (record.resumed, len(record.cluster.jobs), record.cluster.requeues) == (1, 2, 0)
    expected = {this: both for this, both in home(LONG).items() if both[0].seed == 0}
    assert_same(lab, expected)


def test_two_nodes_train_one_run(lab: Lab, home: Callable[..., dict[str, tuple[Record, bytes]]]) -> None:
    """A rank on each node; out of time once, which both agree on. At home the same with two processes."""
    words = [*COMMON, "encoder=lstm", "seed=0", "budget.steps=400", "budget.eval_every=20"]
    away = ["trainer.devices=auto", "trainer.nodes=auto", "hydra/launcher=slurm", "hydra.launcher.nodes=2"]
    with lab.begun(*words, *away) as sweep:
        wait("it trains", lab.training(0))
        lab.cluster.ask("scancel", "--signal=USR1", lab.job(0))  # to srun's processes, as SLURM does
        assert sweep.wait(LIMIT) == 0, (lab.logs(), (lab.folder / "sweep.log").read_text())
    assert_same(lab, home([*words, "trainer.devices=2"]))
    (record,) = lab.records().values()
    assert record.cluster is not None
    assert (record.cluster.nodes, record.cluster.requeues, record.resumed) == ("n[1-2]", 1, 1)
    assert (record.environment.devices, record.environment.nodes) == (2, 2)


def page() -> list[str]:
    """The commands of docs/cluster.md for a cluster of CPUs."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / "cluster.md").read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if "hydra/launcher=slurm" in line]


@pytest.mark.parametrize("line", page())
def test_commands_of_the_page(line: str, lab: Lab) -> None:
    few = ["task=digits", "encoder=lstm", "seed=0", "budget.steps=2", "budget.eval_every=2", "budget.eval_limit=8"]
    script, mode, *words = shlex.split(line)[1:]
    assert (script, mode) == ("scripts/train.py", "-m")
    if "trainer=ddp" in words:  # this machine's nodes have no GPU and one core
        words = [word for word in words if not word.startswith(("hydra.launcher.tasks", "hydra.launcher.gpus"))]
        words += ["trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.workers=0"]
    done = lab.sweep(*words, *few, "trainer.invariance_rows=0", "trainer.threads=1")
    assert done.returncode == 0, (done.stderr, lab.logs())
    assert len(lab.records()) == 1


def test_nothing_of_the_cluster_is_left(cluster: TwoNodes) -> None:
    """Stopped and started: no process of the first remains, and the second is whole."""
    cluster.stop()
    assert not list(cluster.processes())
    cluster.over.clear()
    cluster.daemons.clear()
