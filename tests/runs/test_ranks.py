"""Training by several ranks: what one process would have made, made once, and no rank left waiting."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from encoders.base import InputSpec
from seqbench.build import build, build_task
from seqbench.composition.nodes import compose_node
from seqbench.errors import ConfigError, RecordError
from seqbench.ranks.accord import name, number
from seqbench.ranks.crew import size_of, threads_of
from seqbench.ranks.place import Place, first_host, placed
from seqbench.ranks.sharding import replica, separate_layers
from seqbench.record import Record
from seqbench.records.store import Store
from seqbench.run import run
from seqbench.training.attempt import make_encoder
from seqbench.training.evaluation import Evaluator
from seqbench.training.module import Module
from seqbench.training.resume import Checkpoints
from tasks.loading import Batching, Loader, Share
from tests.seqbench.toy import VOCABULARY, Hits, ToyData
from tests.seqbench.toy_config import toy_config
from tests.seqbench.toy_ranks import ALLOWED, Positions, uneven

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
ADDRESS = {"MASTER_ADDR": "n1", "MASTER_PORT": "29500"}
SLURM = {"SLURM_JOB_ID": "12", "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4", "SLURM_NNODES": "2"}
TWO_OF_FOUR = Place(rank=2, size=4, local=0, nodes=2, address="n1", port=1)


# -- places and parts --------------------------------------------------------------------------------------------------
def test_torchrun_and_slurm_steps_are_places() -> None:
    assert placed({}) is None
    assert placed(TORCHRUN | ADDRESS) == Place(rank=3, size=4, local=1, nodes=2, address="n1", port=29500)
    step = SLURM | {"SLURM_STEP_ID": "1", "SLURM_STEP_NODELIST": "n[1-2]"}
    found = placed(step)
    assert found is not None
    assert (found.rank, found.size, found.local, found.nodes, found.address) == (2, 4, 0, 2, "n1")
    assert placed(step) == found  # the same port in each process
    other = placed(step | {"SLURM_STEP_ID": "2"})
    assert other is not None
    assert other.port != found.port


def test_hosts() -> None:
    cases = {"n[1-3,7],m2": "n1", "gpu-[07-09]": "gpu-07", "a,b": "a", "solo": "solo", "r[3]-x,r4": "r3-x"}
    assert {hosts: first_host(hosts) for hosts in cases} == cases


def test_a_batch_script_or_one_task_is_no_place() -> None:
    assert placed(SLURM) is None  # an allocation of four tasks, without srun
    assert placed(SLURM | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}) is None
    assert placed({"WORLD_SIZE": "1", "RANK": "0"}) is None


def test_half_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="RANK is set and MASTER_PORT not"):
        placed(TORCHRUN | {"MASTER_ADDR": "n1"})


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_are_the_batch(ranks: int, parts: int) -> None:
    for size in (1, 2, 7, 12):
        rows = np.arange(100, 100 + size)
        dealt, numbers = [], []
        for rank in range(ranks):
            share = Share(parts=parts, rank=rank, ranks=ranks)
            cut = share.cut(rows)
            assert len(cut) == parts
            dealt += [row for i, part in enumerate(cut) if not share.is_empty(i, size) for row in part]
            assert all(len(part) for part in cut)
            numbers += [*share.numbers(0), *share.numbers(1)]
        assert sorted(dealt) == rows.tolist()
        assert sorted(numbers) == list(range(2 * parts * ranks))


def test_a_share_saves_whole_batches_and_goes_on() -> None:
    def loader(rank: int, ranks: int) -> Loader:
        return Loader(
            lengths=np.arange(1, 42),
            collate=lambda rows: rows,
            batching=Batching(rows=8),
            seed=3,
            shuffle=True,
            share=Share(parts=2, rank=rank, ranks=ranks),
        )

    alone, first, second = loader(0, 1), loader(0, 2), loader(1, 2)
    assert len(alone) == len(first) == 12
    whole = [np.sort(batch) for batch in alone.batches()]
    weights = {0: [], 1: []}  # type: dict[int, list[bool]]
    for k, one in enumerate((first, second)):
        for _ in one:
            weights[k].append(one.weighs())
    assert [sum(weights[rank]) for rank in (0, 1)] == [
        11,
        10,
    ]  # of 41 rows the last batch has one
    for one in (first, second):
        one.load_state_dict({"epoch": 0, "position": 0})
    batches = [iter(first), iter(second)]
    for expected in whole[:5]:
        dealt = [(next(batch), one.weighs()) for one, batch in zip((first, second), batches, strict=True) for _ in "ab"]
        rows = np.concatenate([part for part, weighs in dealt if weighs])
        assert np.array_equal(np.sort(rows), expected)
    assert first.state_dict() == second.state_dict() == {"epoch": 0, "position": 5}
    again = loader(1, 2)
    again.load_state_dict({"epoch": 0, "position": 4})
    fresh = [part.tolist() for part in again][:2]
    second.load_state_dict({"epoch": 0, "position": 0})
    assert fresh == [part.tolist() for part in second][8:10]


def test_numbers_of_ranks(tmp_path: Path) -> None:
    def of(**changes: Any) -> Any:
        return toy_config(tmp_path, {f"trainer.{key}": value for key, value in changes.items()})

    assert size_of(of(), None) == 1
    assert size_of(of(devices=3), None) == 3
    assert size_of(of(devices="auto", nodes="auto"), None) == 1  # of a CPU
    assert size_of(of(devices="auto", nodes="auto"), TWO_OF_FOUR) == 4
    assert size_of(of(devices=2, nodes=2), TWO_OF_FOUR) == 4
    for wrong in ({"devices": 1, "nodes": "auto"}, {"devices": 4, "nodes": 1}, {"devices": 2, "nodes": 1}):
        with pytest.raises(ConfigError, match=r"4 processes were started on 2 nodes\nuse trainer.devices=2"):
            size_of(of(**wrong), TWO_OF_FOUR)
    assert threads_of(of(threads=5), 2, 1) == 5
    assert threads_of(of(threads=None), 1, 1) is None
    assert threads_of(of(threads=None), 1000, 1) == 1


def test_signals_are_told_by_number() -> None:
    for text in ("SIGTERM", "SIGINT", "SIGUSR1"):
        assert name(float(number(text))) == text
    assert name(number(None)) is None
    assert name(number("the end of the sweep")) == "another process"


# -- real processes ----------------------------------------------------------------------------------------------------
TASK = {"task._target_": "tests.seqbench.toy_ranks.Positions", "allowed": ALLOWED, "task.data.rows": 303}
EVEN = TASK | {"encoder.dropout": 0.0, "trainer.accumulate": 1, "budget.batch_size": 7, "budget.eval_limit": None}
CUT = EVEN | {"trainer.accumulate": 2, "budget.batch_size": 8, "budget.select": "last", "seed": 1}
STILL = EVEN | {"optimizer.lr": 0.0, "budget.steps": 2, "budget.eval_every": 1, "budget.eval_batch_tokens": 40}
BY_TOKENS = EVEN | {"budget.steps": None, "budget.tokens": 777, "budget.patience": 2, "budget.eval_every": 4}
DROPPING = TASK | {"trainer.accumulate": 1, "budget.steps": 12, "budget.eval_every": 4, "trainer.save_every": 1e-9}
SHARDS = {"trainer.strategy": "fsdp"}
SHARDED = CUT | SHARDS | {"budget.batch_size": 7, "trainer.accumulate": 1, "seed": 0, "budget.select": "best"}
ALL = {"trainer.devices": "auto", "trainer.nodes": "auto"}
KILLED = DROPPING | uneven("kill", 7, 1) | {"trainer.devices": 2}


class Crew:
    """Ranks of the environment, which make some runs one after the other, and what they have said."""

    def __init__(self, folder: Path, size: int, orders: list[tuple[str, dict[str, Any], bool]]) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        texts = [json.dumps({"name": n, "changes": c | ALL, "healthy": healthy}) for n, c, healthy in orders]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "WORLD_SIZE": str(size)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, "-W", "error", "-m", "tests.seqbench.toy_ranks", str(folder), *texts]
        self.processes = [
            subprocess.Popen(
                command, cwd=ROOT, env=environment | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True
            )
            for rank in range(size)
        ]
        self.said: dict[str, list[Any]] = {}

    def wait(self) -> None:
        """Until all have ended; a rank that hangs fails."""
        try:
            for process in self.processes:
                out, _ = process.communicate(timeout=400)
                for line in out.splitlines():
                    order, _, *told = json.loads(line)
                    self.said.setdefault(order, []).append(told)
        finally:
            for process in self.processes:
                process.kill()

    def record(self, order: str) -> Record:
        """The one record of a run."""
        records, damages = Store(self.folder / order).all()
        assert not damages
        assert len(records) == 1
        return records[0]

    def weights(self, order: str) -> dict[str, torch.Tensor]:
        """Those that were tested."""
        return safetensors.torch.load_file(self.folder / order / self.record(order).id / "weights.safetensors")


ORDERS = [
    ("even", EVEN, False),
    ("even", EVEN, False),
    ("still", STILL, False),
    ("cut", CUT, False),
    ("tokens", BY_TOKENS, False),
    ("nan", EVEN | uneven("nan", 7, 1), False),
    ("oom", EVEN | uneven("oom", 7, 1), False),
    ("error", EVEN | uneven("error", 7, 1), False),
    ("first", EVEN | uneven("error", 7, 0), False),
    ("words", EVEN | uneven("words", 7, 1), False),
    ("first words", EVEN | uneven("words", 7, 0), False),
    ("straight", DROPPING | uneven("terminate", 7, 0), True),
    ("zero", DROPPING | uneven("terminate", 7, 0), False),
    ("zero", DROPPING | uneven("terminate", 7, 0), True),
    ("one", DROPPING | uneven("terminate", 6, 1), False),
    ("one", DROPPING | uneven("terminate", 6, 1), True),
    ("sharded", SHARDED, False),
    ("sharded straight", DROPPING | SHARDS | uneven("terminate", 7, 0), True),
    ("sharded one", DROPPING | SHARDS | uneven("terminate", 6, 1), False),
    ("sharded one", DROPPING | SHARDS | uneven("terminate", 6, 1), True),
    ("sharded left", DROPPING | SHARDS | uneven("terminate", 7, 0), False),
    ("slow", EVEN | uneven("slow", 1, 1) | {"budget.steps": None, "budget.seconds": 0.4}, False),
    ("late", EVEN | uneven("slow", 1, 0) | {"budget.steps": 400, "trainer.time_limit": 1.0}, False),
]


@pytest.fixture(scope="module")
def crews(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Crew]:
    """2 ranks that make all of ORDERS; 3 and 4 that make the even ones."""
    made = {}
    for size in (2, 3, 4):
        orders = ORDERS if size == 2 else [order for order in ORDERS[2:4] if size == 4] or ORDERS[:3]
        made[size] = Crew(tmp_path_factory.mktemp(f"ranks{size}"), size, orders)
    for crew in made.values():
        crew.wait()
    return made


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    """The same by one process."""
    folder = tmp_path_factory.mktemp("alone")
    orders = {"even": EVEN, "still": STILL, "cut": CUT, "tokens": BY_TOKENS}
    return {order: run(toy_config(folder / order, changes)).record for order, changes in orders.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "order"), [(2, "sharded"), (2, "even"), (3, "even"), (2, "cut"), (4, "cut"), (2, "tokens")]
)
def test_losses_are_those_of_one_process(
    crews: dict[int, Crew], alone: dict[str, Record], size: int, order: str
) -> None:
    """Parts of a batch have other numbers of items; 7 rows are no multiple of 2 or 3; an epoch's last batch has 2."""
    one, other = alone["even" if order == "sharded" else order], crews[size].record(order)
    assert (other.status, other.id) == ("finished", one.id)
    assert (other.environment.devices, other.environment.strategy) == (size, "fsdp" if order == "sharded" else "ddp")
    assert [p.step for p in one.curves] == [p.step for p in other.curves]
    assert [p.tokens for p in one.curves] == [p.tokens for p in other.curves]
    assert one.cost.train_items == other.cost.train_items
    for p, q in zip(one.curves, other.curves, strict=True):
        assert p.values.keys() == q.values.keys()
        for key, value in p.values.items():
            assert q.values[key] == pytest.approx(value, abs=1e-5), (p.step, key)
    assert any(p.values["train/loss"] != q.values["train/loss"] for p, q in zip(one.curves, other.curves, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3, 4])
def test_scores_are_exactly_those_of_one_process(crews: dict[int, Crew], alone: dict[str, Record], size: int) -> None:
    """101 examples in several batches, of weights that did not move."""
    one, other = alone["still"], crews[size].record("still")
    assert {split: facts.examples for split, facts in other.splits.items()} == {"train": 303, "valid": 101, "test": 101}
    assert other.scores == one.scores
    assert other.scores["test"]["hits"].n == 101
    assert one.predictions is not None
    assert other.predictions == one.predictions  # its checksum
    path = crews[size].folder / "still" / other.id / other.predictions.path
    rows = [(row["split"], row["row"]) for row in pq.read_table(path).to_pylist()]
    assert len(rows) == len(set(rows)) == 202
    assert [p.values["valid/loss"] for p in other.curves] == [p.values["valid/loss"] for p in one.curves]


@pytest.mark.slow
def test_one_record_is_written_and_all_know_it(crews: dict[int, Crew]) -> None:
    crew = crews[2]
    assert crew.said["even"] == [["finished", False], ["finished", True]] * 2
    folder = crew.folder / "even"
    assert [path.name for path in folder.iterdir()] == [crew.record("even").id]
    left = {path.name for path in next(folder.iterdir()).iterdir()}
    assert left == {"record.json", "weights.safetensors", "predictions.parquet", "metrics.csv"}
    assert len((next(folder.iterdir()) / "metrics.csv").read_text().splitlines()) == 1 + 10 + 2  # steps 5 and 15


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "status", "reason"),
    [
        ("nan", "diverged", "the training loss is nan at step 7; last healthy checkpoint: step 5"),
        ("oom", "out_of_memory", "MemoryError: no room for 2.00 GiB (rank 1 of 2)"),
        ("error", "failed", "RuntimeError: mat1 and mat2 shapes cannot be multiplied (rank 1 of 2)"),
        ("first", "failed", "RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        ("words", "failed", "RuntimeError: NCCL, gloo: abort; Connection reset (rank 1 of 2)"),
        ("first words", "failed", "RuntimeError: NCCL, gloo: abort; Connection reset"),
    ],
)
def test_a_failure_of_one_rank_is_the_runs(crews: dict[int, Crew], order: str, status: str, reason: str) -> None:
    record = crews[2].record(order)
    told = re.sub(r" \(in tests/seqbench/toy\w*\.py, line \d+, \w+\.forward\)", "", record.reason or "")
    assert (record.status, told, record.failed_at_step) == (status, reason, 7)
    assert crews[2].said[order] == [[status, False]] * 2
    trace = crews[2].folder / order / record.id / "error.log"
    assert trace.is_file() == (status == "failed")
    if status == "failed":
        assert "toy_ranks.py" in trace.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("order", ["zero", "one", "sharded one"])
def test_a_signal_to_one_rank_stops_all_and_they_go_on_to_the_same_bits(crews: dict[int, Crew], order: str) -> None:
    crew = crews[2]
    assert crew.said[order] == [["KeyboardInterrupt", "SIGTERM"], ["finished", False]] * 2
    path = "sharded straight" if order == "sharded one" else "straight"
    record, straight = crew.record(order), crew.record(path)
    assert (record.resumed, straight.resumed) == (1, 0)
    assert record.notes == []
    assert [p.values for p in record.curves] == [p.values for p in straight.curves]
    for key, value in crew.weights(path).items():
        assert torch.equal(crew.weights(order)[key], value), key
    assert record.predictions == straight.predictions


@pytest.mark.slow
def test_one_process_reads_what_shards_have_saved(crews: dict[int, Crew], monkeypatch: pytest.MonkeyPatch) -> None:
    crew = crews[2]
    record = crew.record("sharded left")
    folder = crew.folder / "sharded left" / record.id / "checkpoints"
    assert record.status == "interrupted"
    assert record.saved is not None
    best, step = record.best_step, record.saved.step
    parts = {path.name for path in folder.glob("part-*")}
    assert parts == {
        f"part-{n}-{rank}of2.pt" for n in (f"at-{step - 1}", f"at-{step}", f"best-{best}") for rank in (0, 1)
    }
    last = Checkpoints(folder).load("last", whole=False)
    assert last is not None
    assert "weights" not in last
    assert [part["name"] for part in last["parts"]] == [f"part-at-{step}-{rank}of2" for rank in (0, 1)]

    config = toy_config(crew.folder / "sharded left", DROPPING | uneven("terminate", 7, 0))
    task = build_task(config)
    task.setup()
    module = torch.nn.ModuleDict({"encoder": make_encoder(config, task), "task": task})
    assert best is not None
    module.load_state_dict(Checkpoints(folder).load_best(best))
    evaluator = Evaluator(
        task=task,
        encoder=module["encoder"],  # type: ignore[arg-type]
        batching=Batching(tokens=config.budget.eval_batch_tokens),
        device=torch.device("cpu"),
        precision=nullcontext,
        workers=0,
        seed=0,
    )
    found = evaluator.run("valid", limit=config.budget.eval_limit)
    point = next(p for p in record.curves if p.step == best)
    assert found.loss == point.values["valid/loss"]
    scores = task.score("valid", found.predictions, limit=config.budget.eval_limit)
    assert {f"valid/{n}": score.value for n, score in scores.items()}.items() <= point.values.items()

    monkeypatch.setenv("SEQBENCH_TOY_HEALTHY", "1")
    gone_on = run(config).record
    assert (gone_on.status, gone_on.id, gone_on.resumed) == ("finished", record.id, 1)
    assert gone_on.notes == [f"from step {step} on, the number of ranks is another: 1, before 2"]
    assert gone_on.curves[0] == record.curves[0]


def test_a_damaged_part_is_told(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    shard = {"weights": {"w": {"shard": torch.ones(2, 3), "shape": [3, 3]}, "n": torch.tensor(4)}}
    rest = {"weights": {"w": {"shard": torch.zeros(1, 3), "shape": [3, 3]}, "n": torch.tensor(4)}}
    parts = [checkpoints.save_part("at-1", rank, 2, state) for rank, state in enumerate((shard, rest))]
    checkpoints.save_last({"progress": {"step": 1, "best_step": None}, "parts": parts})
    state = checkpoints.load("last")
    assert state is not None
    assert torch.equal(state["weights"]["w"], torch.tensor([[1.0] * 3, [1.0] * 3, [0.0] * 3]))
    assert torch.equal(state["weights"]["n"], torch.tensor(4))
    path = tmp_path / "part-at-1-1of2.pt"
    path.write_bytes(path.read_bytes()[:-3] + b"abc")
    with pytest.raises(RecordError, match=r"last.pt: its part part-at-1-1of2.pt is damaged"):
        checkpoints.load("last")


@pytest.mark.parametrize(("encoder", "number"), [("gru", 0), ("decoder_only", 2), ("encoder_decoder", 2)])
def test_layers_that_shards_can_cut_by_themselves(encoder: str, number: int) -> None:
    """Layers of a stack can; two that share a weight can not."""
    source = compose_node("encoder", encoder, [])
    spec = InputSpec(max_length=8, vocab_size=VOCABULARY)
    made = build({**source, "depth": 2} if "depth" in source else source, "encoder", ["encoders"], spec=spec)
    task = Positions(data=ToyData(rows=8, seed=1), metrics=[Hits()], max_length=8)
    task.setup()
    task.attach(made)
    module = Module(
        encoder=made,
        task=task,
        train="all",
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1),
        factor=lambda step: 1.0,
        accumulate=1,
    )
    batch = task.collate("train", np.arange(2))
    found = separate_layers(module, batch)
    assert len(found) == number
    copied = replica(module, task)
    assert copied.task.examples is task.examples
    assert not {id(p) for p in copied.parameters()} & {id(p) for p in module.parameters()}
    if found:
        found[0].lent = next(found[1].parameters())  # type: ignore[assignment]
        assert separate_layers(module, batch) == []


@pytest.mark.slow
def test_clocks_end_all_ranks_alike(crews: dict[int, Crew]) -> None:
    assert crews[2].said["slow"] == [["finished", False]] * 2
    record = crews[2].record("slow")
    assert record.cost.train_seconds is not None
    assert record.cost.train_seconds >= 0.4
    late = crews[2].record("late")
    assert (late.status, late.saved is not None) == ("timed_out", True)
    assert crews[2].said["late"] == [["timed_out", False]] * 2


@pytest.mark.slow
def test_ranks_of_our_own_one_killed_and_gone_on(
    crews: dict[int, Crew], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run(toy_config(tmp_path, KILLED)).record
    assert (record.status, record.reason) == ("killed", "the process was killed (signal 9, SIGKILL), rank 1 of 2")
    assert record.saved is not None
    monkeypatch.setenv("SEQBENCH_TOY_HEALTHY", "1")
    record = run(toy_config(tmp_path, KILLED | {"rerun": "failed"})).record
    assert (record.status, record.resumed, record.notes) == ("finished", 1, [])
    weights = safetensors.torch.load_file(tmp_path / record.id / "weights.safetensors")
    for key, value in crews[2].weights("straight").items():
        assert torch.equal(weights[key], value), key


def test_batch_norm_is_refused(tmp_path: Path) -> None:
    from seqbench.training.fit import check_cut

    encoder = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    with pytest.raises(ConfigError, match=r"trainer.devices: 2 ranks .* Sequential has BatchNorm1d"):
        check_cut(encoder, torch.nn.Linear(1, 1), 2)  # type: ignore[arg-type]
