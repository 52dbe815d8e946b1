"""The flow of a run: made once, found again, resumed, failed with a reason, and nothing half-written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from seqbench.errors import ConfigError, RecordError
from seqbench.record import Record, schema
from seqbench.records.claim import Claimed, claim
from seqbench.records.store import Store
from seqbench.run import run
from seqbench.training.progress import Event
from tests.seqbench.toy_config import broken, toy_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """The record of one whole run, with the folder of results in its config."""
    return run(toy_config(tmp_path_factory.mktemp("whole"))).record


def folder_of(record: Record) -> Path:
    return Path(record.config["results"]) / record.id


def weights_of(record: Record) -> dict[str, torch.Tensor]:
    return load_file(folder_of(record) / "weights.safetensors")


def same_weights(a: Record, b: Record) -> bool:
    one, other = weights_of(a), weights_of(b)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def same_result(a: Record, b: Record) -> bool:
    """Weights, scores, predictions and the values of the curves, to the last bit."""
    curves = [[(p.step, p.tokens, p.values) for p in record.curves] for record in (a, b)]
    return same_weights(a, b) and a.scores == b.scores and a.predictions == b.predictions and curves[0] == curves[1]


# -- what a run leaves -------------------------------------------------------------------------------------------------
ELSEWHERE = {
    "energy_joules",
    "peak_flops",
    "mfu",
    "compilations",
    "recompilations",
    "generation",
}  # CUDA, compiled, outputs


def test_record_is_complete_and_valid(whole: Record) -> None:
    assert whole.status == "finished"
    content = json.loads((folder_of(whole) / "record.json").read_text())
    jsonschema.validate(content, schema())
    assert Record.model_validate({**content, "sha256": None}) == whole
    assert [p.step for p in whole.curves] == [5, 10, 15, 20]
    assert all(
        set(p.values) == {"train/loss", "train/lr", "valid/loss", "valid/hits", "valid/misses"} for p in whole.curves
    )
    assert whole.scores["test"]["hits"].n == 14
    assert whole.splits["train"].examples == 42
    missing = [name for name, value in whole.cost.model_dump(exclude=ELSEWHERE).items() if value is None]
    assert missing == []
    assert whole.cost.train_items in (3 * 42 + 2 * 8, 3 * 42 + 8 + 2)  # 20 steps of 8 rows but each epoch's last
    assert sorted(p.name for p in folder_of(whole).iterdir()) == [
        "metrics.csv",
        "predictions.parquet",
        "record.json",
        "weights.safetensors",
    ]


def test_best_step_is_the_first_best_point_of_the_curve(whole: Record) -> None:
    hits = [p.values["valid/hits"] for p in whole.curves]
    assert whole.best_step == whole.curves[hits.index(max(hits))].step


def test_predictions_give_the_scores_again(whole: Record) -> None:
    table = pq.read_table(folder_of(whole) / "predictions.parquet").to_pylist()
    assert whole.predictions is not None
    content = (folder_of(whole) / "predictions.parquet").read_bytes()
    assert whole.predictions.sha256 == hashlib.sha256(content).hexdigest()
    for split in ("valid", "test"):
        rows = [row for row in table if row["split"] == split]
        assert [row["row"] for row in rows] == list(range(14))
        right = [json.loads(row["prediction"]) == json.loads(row["reference"]) for row in rows]
        assert np.mean(right) == whole.scores[split]["hits"].value
        assert [row["hits/value"] for row in rows] == [float(r) for r in right]
        assert {row["misses/count"] for row in rows} == {1.0}


# -- found again -------------------------------------------------------------------------------------------------------
def test_second_call_skips_and_a_study_is_added(whole: Record) -> None:
    results = Path(whole.config["results"])
    before = (folder_of(whole) / "record.json").stat().st_mtime_ns
    outcome = run(toy_config(results))
    assert outcome.skipped
    assert outcome.record == whole
    assert (folder_of(whole) / "record.json").stat().st_mtime_ns == before
    outcome = run(toy_config(results, study="mine"))
    assert outcome.skipped
    assert outcome.record.studies == ["mine"] == Store(results).all()[0][0].studies


def test_same_config_same_bits(whole: Record, tmp_path: Path) -> None:
    torch.rand(3)  # random states of the process do not matter
    changes = {"logger": {}, "trainer.threads": 1, "budget.eval_batch_tokens": 999, "label": "other"}
    again = run(toy_config(tmp_path, changes)).record
    assert again.id == whole.id
    assert same_weights(again, whole)
    assert again.scores == whole.scores
    assert again.predictions == whole.predictions


def test_other_seed_other_run(whole: Record, tmp_path: Path) -> None:
    other = run(toy_config(tmp_path, {"seed": 1})).record
    assert other.id != whole.id
    assert not same_weights(other, whole)


def test_rerun_always_makes_it_again(tmp_path: Path) -> None:
    short = {"budget.steps": 2, "budget.eval_every": 2}
    first = run(toy_config(tmp_path, short)).record
    outcome = run(toy_config(tmp_path, short | {"rerun": "always"}))
    assert not outcome.skipped
    assert outcome.record.resumed == 0
    assert same_result(outcome.record, first)


def test_evaluation_leaves_no_trace_in_training(whole: Record, tmp_path: Path) -> None:
    changes = {"budget.eval_every": 3, "budget.eval_limit": None, "budget.select": "last"}
    often = run(toy_config(tmp_path / "often", changes)).record
    never = run(toy_config(tmp_path / "never", changes | {"budget.eval_every": None})).record
    assert len(often.curves) == 7
    assert len(never.curves) == 1
    assert same_weights(often, never)


def test_initial_weights_are_a_function_of_the_seed_alone(tmp_path: Path) -> None:
    still = {"optimizer.lr": 0.0, "budget.steps": 1, "budget.eval_every": 1}
    drawing = {"task.data._target_": "tests.seqbench.toy.DrawingData"}
    one, other = run(toy_config(tmp_path, still)).record, run(toy_config(tmp_path, still | drawing)).record
    wider = run(toy_config(tmp_path, still | {"task.max_length": 5, "task.data.rows": 50})).record
    assert len({one.id, other.id, wider.id}) == 3
    assert same_weights(one, other)
    assert same_weights(one, wider)
    assert not same_weights(one, run(toy_config(tmp_path, still | {"seed": 1})).record)
    larger = run(toy_config(tmp_path, still | {"encoder._target_": "tests.seqbench.toy.LargerEncoder"})).record
    heads = [weights_of(record)["task.head.weight"] for record in (one, larger)]
    assert torch.equal(*heads)  # two encoders of a board begin with the same head


@pytest.mark.parametrize("select", ["best", "last"])
def test_the_selected_weights_are_scored(select: str, tmp_path: Path) -> None:
    shaky = {
        "optimizer.lr": 0.3,
        "seed": 1,
        "schedule.kind": "constant",
        "budget.eval_every": 1,
        "budget.eval_limit": None,
    }
    record = run(toy_config(tmp_path, shaky | {"budget.select": select})).record
    by_step = {p.step: p.values["valid/hits"] for p in record.curves}
    assert record.best_step is not None
    assert by_step[record.best_step] > by_step[20]  # otherwise this test says nothing
    assert record.scores["valid"]["hits"].value == by_step[record.best_step if select == "best" else 20]


def test_loader_workers_change_nothing(tmp_path: Path) -> None:
    changes = {"budget.steps": 8, "budget.eval_every": 8}
    alone = run(toy_config(tmp_path / "0", changes)).record
    helped = run(toy_config(tmp_path / "1", changes | {"trainer.workers": 1})).record
    assert helped.status == "finished"
    assert same_result(alone, helped)


# -- patience, protocols, floors ---------------------------------------------------------------------------------------
def test_patience_ends_a_training_that_gains_nothing(tmp_path: Path) -> None:
    changes = {"optimizer.lr": 0.0, "budget.eval_every": 2, "budget.patience": 3}
    record = run(toy_config(tmp_path, changes)).record
    assert record.status == "finished"
    assert [p.step for p in record.curves] == [2, 4, 6, 8]
    assert record.best_step == 2


def test_probe_leaves_the_encoder_as_it_was(tmp_path: Path) -> None:
    changes = {"protocol.train": "head", "budget.steps": 4, "budget.eval_every": 2}
    probe = run(toy_config(tmp_path, changes)).record
    longer = run(toy_config(tmp_path, changes | {"budget.steps": 6})).record
    one, other = weights_of(probe), weights_of(longer)
    assert all(torch.equal(one[n], other[n]) for n in one if n.startswith("encoder."))
    assert not torch.equal(one["task.head.weight"], other["task.head.weight"])
    assert probe.cost.parameters_trained == 12 * 2 + 2


def test_trivial_rows_are_not_trained(tmp_path: Path) -> None:
    encoder = {"_target_": "encoders.trivial.Trivial", "rule": "majority"}
    record = run(toy_config(tmp_path, {"encoder": encoder})).record
    assert record.status == "finished"
    assert record.encoder.family == "trivial"
    assert record.scores["test"]["hits"].value == 0.5
    assert record.cost.parameters == 0
    assert record.checkpoint is None
    assert record.curves == []


# -- taken up again ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("at", [13, 22, 31])  # in step 7, 11 and 16; an epoch has 11 batches of 4
def test_interrupted_and_resumed_is_as_uninterrupted(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy_config(tmp_path / "cut", broken("interrupt", at))
    with pytest.raises(KeyboardInterrupt):
        run(config)
    cut = Store(config.results).all()[0][0]
    assert cut.status == "interrupted"
    assert cut.reason == "stopped by SIGINT"
    monkeypatch.setenv("SEQBENCH_TOY_HEALTHY", "1")
    resumed = run(config)
    assert not resumed.skipped
    assert resumed.record.status == "finished"
    assert resumed.record.resumed == 1
    straight = run(toy_config(tmp_path / "straight", broken("interrupt", at))).record
    assert straight.resumed == 0
    assert same_result(resumed.record, straight)
    assert resumed.record.cost.train_items == straight.cost.train_items
    logs = [(folder_of(record) / "metrics.csv").read_text() for record in (resumed.record, straight)]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("when", [("step", 8), ("valid", 10), ("score", 20)])
def test_stopped_by_who_watches(when: tuple[str, int], whole: Record, tmp_path: Path) -> None:
    """KeyboardInterrupt itself, for which Lightning would end the process; in training, after it, and in scoring."""

    def watch(event: Event) -> None:
        if (event.kind, event.step) == when:
            raise KeyboardInterrupt

    config = toy_config(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(config, watch=watch)
    assert Store(tmp_path).all()[0][0].status == "interrupted"
    again = run(config).record
    assert again.resumed == 1
    assert same_result(again, whole)


@pytest.mark.slow
def test_killed_and_resumed_is_as_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Killed in a process of its own; test_kills.py goes on in others, too."""
    script = (
        "import sys; from pathlib import Path; from seqbench.run import run;"
        "from tests.seqbench.toy_config import broken, toy_config;"
        "run(toy_config(Path(sys.argv[1]), broken('kill', 25)))"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "cut")], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert Store(tmp_path / "cut").all() == ([], [])
    monkeypatch.setenv("SEQBENCH_TOY_HEALTHY", "1")
    capfd.readouterr()
    resumed = run(toy_config(tmp_path / "cut", broken("kill", 25))).record
    said = capfd.readouterr().err
    assert said.endswith("died in this run; it is taken over\n")
    assert said.count("\n") == 1
    straight = run(toy_config(tmp_path / "straight", broken("kill", 25))).record
    assert resumed.resumed == 1
    assert same_result(resumed, straight)


# -- failures ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [
        ("nan", "diverged", "the training loss is nan at step 7; last healthy checkpoint: step 5"),
        ("oom", "out_of_memory", "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"),
        ("error", "failed", "RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_failure_is_a_record(
    how: str, status: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(tmp_path, broken(how, 13))
    record = run(config).record
    told, _, place = (record.reason or "").partition(" (in ")
    assert (record.status, told, record.failed_at_step) == (status, reason, 7)
    own = r"tests/seqbench/toy\.py, line \d+, BrokenEncoder\.forward\)"
    assert re.fullmatch(own if status == "failed" else "", place)
    assert [p.step for p in record.curves] == [5]
    assert record.scores == {}
    assert (folder_of(record) / "error.log").is_file() == (status == "failed")
    assert run(config).skipped  # rerun=never: it is not tried again
    monkeypatch.setenv("SEQBENCH_TOY_HEALTHY", "1")
    again = run(toy_config(tmp_path, broken(how, 13) | {"rerun": "failed"})).record
    assert again.status == "finished"
    assert again.resumed == 0  # from the beginning: the same checkpoint would lead to the same failure


def test_divergence_is_found_at_its_step_when_looked_for_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqbench.training.course._must_wait", lambda device: True)
    record = run(toy_config(tmp_path, broken("nan", 13) | {"logger": {}, "budget.eval_every": 19})).record
    assert (record.status, record.failed_at_step) == ("diverged", 7)


@pytest.mark.parametrize(
    "name", ["last.pt", "predictions.parquet", "record.json", "weights.safetensors", "metrics.csv"]
)
def test_full_disk_leaves_nothing_half_written(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def open_(self: Path, *args: Any, **kwargs: Any) -> Any:
        if name in self.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return opened(self, *args, **kwargs)

    config = toy_config(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_)
        with pytest.raises(RecordError, match="no space left on device"):
            run(config)
    assert Store(tmp_path).all() == ([], [])
    assert [p for p in tmp_path.rglob("*") if p.name == name or p.suffix == ".tmp" or p.name == "lock"] == []
    assert run(config).record.status == "finished"


def test_read_only_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(RecordError, match=r"results: .* cannot be written to \(read-only file system\)"):
        run(toy_config(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer.accumulate": 3}, "trainer.accumulate: 3 equal parts can't be made of budget.batch_size, 8"),
        ({"trainer.devices": 5}, "trainer.devices: 5 ranks x trainer.accumulate 2 are more parts than a step has"),
        ({"trainer.nodes": 2}, "trainer.nodes: 2, but nobody has started processes on other machines"),
    ],
)
def test_what_the_machine_cannot_do_is_said_first(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run(toy_config(tmp_path, changes))
    assert list(tmp_path.iterdir()) == []


def test_a_claimed_cell_is_left_alone(tmp_path: Path, whole: Record) -> None:
    config = toy_config(tmp_path)
    with claim(tmp_path / whole.id), pytest.raises(Claimed, match=f"process {os.getpid()} on "):
        run(config)
    assert list(tmp_path.iterdir()) == []


def test_half_precision(tmp_path: Path) -> None:
    record = run(toy_config(tmp_path, {"trainer.precision": "bf16-mixed"})).record
    assert (record.status, record.reason) == ("finished", None)
    assert {weight.dtype for weight in weights_of(record).values()} == {torch.float32}
