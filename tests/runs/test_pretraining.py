"""A run that begins with another's weights: all of them and the right ones, made once, in the id, verified, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml

from encoders.bag import Bag
from seqbench import pretraining
from seqbench.build import build_task
from seqbench.composition.compose import own_loader
from seqbench.composition.compositions import Compositions
from seqbench.config import RunConfig, check_config
from seqbench.errors import ConfigError, RecordError
from seqbench.record import Record
from seqbench.records import claim as claims
from seqbench.records import published
from seqbench.records.identity import run_id
from seqbench.records.store import Store
from seqbench.run import run
from seqbench.training.attempt import Attempt
from seqbench.training.health import TimedOut
from seqbench.verify import command as verify
from tasks.data.base import DataSet, Example, FileFact
from tasks.tokenizers import FittedOn, Words
from tests.seqbench.toy_cli import Toy
from tests.seqbench.toy_config import TREE, toy_config

DATA = TREE["task"]["data"]
STAGE = {
    "name": "first",
    "encoder": {},
    "task": {**TREE["task"], "data": {**DATA, "seed": 8}},
    "protocol": {"train": "all"},
    "budget": {**TREE["budget"], "steps": 4, "eval_every": 2},
    "optimizer": TREE["optimizer"],
    "schedule": TREE["schedule"],
    "seed": None,
}
SHORT = {"budget.steps": 3, "budget.eval_every": 3, "logger": {}}


def config_of(results: Path, changes: dict[str, Any] | None = None, **stage: Any) -> RunConfig:
    return toy_config(results, {**SHORT, "pretrain": {**STAGE, **stage}, **(changes or {})})


def id_of(config: RunConfig) -> str:
    return run_id(config, build_task(config))


def tensors(results: Path, record: Record) -> dict[str, torch.Tensor]:
    assert record.checkpoint is not None
    return safetensors.torch.load_file(results / record.id / record.checkpoint.path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """A results folder, and the record of a run whose weights do not move (rate 0)."""
    results = tmp_path_factory.mktemp("results")
    record = run(config_of(results, {"optimizer.lr": 0.0})).record
    assert record.status == "finished"
    return results, record


def test_it_begins_with_the_tested_weights_of_the_run_before(made: tuple[Path, Record]) -> None:
    results, record = made
    (parent,) = record.parents
    first = Store(results).find(parent)
    assert first is not None
    assert (first.task.name, first.status, first.seed, first.parents) == ("first", "finished", 0, [])
    assert first.config["task"]["data"]["seed"] == 8
    ours, theirs = tensors(results, record), tensors(results, first)
    names = [name for name in ours if name.startswith("encoder.")]
    assert names
    assert all(torch.equal(ours[name], theirs[name]) for name in names)
    fresh = run(toy_config(results, {**SHORT, "optimizer.lr": 0.0})).record
    assert fresh.id != record.id
    assert not all(torch.equal(ours[name], value) for name, value in tensors(results, fresh).items() if name in names)
    heads = [name for name in ours if name.startswith("task.")]
    assert all(torch.equal(ours[name], tensors(results, fresh)[name]) for name in heads), "the head begins anew"


def test_the_run_before_is_made_once_and_by_itself_the_same(made: tuple[Path, Record]) -> None:
    results, record = made
    written = Store(results).written(record.parents[0])
    other = run(config_of(results, {"optimizer.lr": 0.0, "budget.steps": 2})).record
    assert (other.parents, Store(results).written(record.parents[0])) == (record.parents, written)
    first = pretraining.before(config_of(results))
    assert first is not None
    assert (id_of(first), run(first).skipped) == (record.parents[0], True)
    assert run(config_of(results, {"optimizer.lr": 0.0})).skipped


def test_the_id_knows_what_came_before(tmp_path: Path) -> None:
    base = id_of(config_of(tmp_path))
    assert base != id_of(toy_config(tmp_path, SHORT))
    for stage in (
        {"budget": {**STAGE["budget"], "steps": 5}},
        {"seed": 1},
        {"encoder": {"dropout": 0.0}},
        {"task": TREE["task"]},
        {"optimizer": {**TREE["optimizer"], "lr": 0.01}},
    ):
        assert id_of(config_of(tmp_path, **stage)) != base
    assert id_of(config_of(tmp_path, name="another")) == base
    assert id_of(config_of(tmp_path, {"seed": 1})) != base
    first = pretraining.before(config_of(tmp_path, {"seed": 4}))
    assert first is not None
    assert first.seed == 4
    fixed = pretraining.before(config_of(tmp_path, {"seed": 4}, seed=9))
    assert fixed is not None
    assert fixed.seed == 9


def test_an_encoder_says_what_it_takes_and_that_must_be_all_of_it(made: tuple[Path, Record]) -> None:
    results, record = made
    first = Store(results).find(record.parents[0])
    assert first is not None
    theirs = pretraining.weights(first, results)
    name, value = next(iter(theirs.items()))

    class Taking(Bag):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.kept, self.copy = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.zeros_like(value))
            self.leaves: set[str] = set()

        def inherited(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            assert set(weights) == set(theirs)
            found = {"kept": self.kept.data, "copy": weights[name]}
            return {key: value for key, value in found.items() if key not in self.leaves}

    encoder = Taking()
    pretraining.take_over(encoder, first, results)
    assert torch.equal(encoder.copy, value)
    assert torch.equal(encoder.kept, torch.ones(2))
    encoder.leaves = {"copy"}
    with pytest.raises(ConfigError, match="copy: absent in run"):
        pretraining.take_over(encoder, first, results)


def test_trials_of_a_row_share_what_came_before_whatever_the_seed(tmp_path: Path) -> None:
    tune = {"trials": 2, "sampler": "random", "seed": 5, "space": {"encoder.dim": {"choices": [4, 8]}}}
    ids = {id_of(config_of(tmp_path, {"tune": tune, "encoder.dim": dim})) for dim in (4, 8, 12)}
    assert len(ids) == 1
    from seqbench.tuning import row_digest

    assert len({row_digest(config_of(tmp_path, {"tune": tune, "seed": seed})) for seed in (0, 1)}) == 1


def test_a_failure_before_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    stage = {"budget": {**STAGE["budget"]}, "optimizer": {**TREE["optimizer"], "lr": 1e30}}
    record = run(config_of(tmp_path, **stage)).record
    assert record.status == "failed"
    assert record.reason is not None
    assert record.reason.startswith(
        f"RuntimeError: pretrain: the run before this one, {record.parents[0]}, is diverged"
    )


def failing_once(error: Exception, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the first try of the run before end by an error; what has met other ranks since, by the task's name."""
    work, ranks, tries, met = Attempt._work, Attempt._ranks, [0], []

    def broken(self: Attempt) -> None:
        tries[0] += 1
        if tries[0] == 1:
            raise error
        work(self)

    def meeting(self: Attempt) -> Any:
        met.append(self.config.names.task)
        return ranks(self)

    monkeypatch.setattr(Attempt, "_work", broken)
    monkeypatch.setattr(Attempt, "_ranks", meeting)
    return met


def test_out_of_time_before_goes_on_by_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    met = failing_once(TimedOut("trainer.time_limit: 1 seconds are over"), monkeypatch)
    record = run(config_of(tmp_path)).record
    assert record.status == "timed_out"
    assert (record.reason or "").count("the same command goes on") == 1
    assert met == ["first"], "other ranks are not called to a run that can't begin"
    assert run(config_of(tmp_path)).record.status == "finished"


def test_failures_before_are_tried_again_with_the_run_and_not_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_once(RuntimeError("a bad node"), monkeypatch)
    assert run(config_of(tmp_path)).record.status == "failed"
    assert run(config_of(tmp_path)).skipped
    again = config_of(tmp_path, {"rerun": "failed"})
    assert id_of(again) == id_of(config_of(tmp_path))
    assert run(again).record.status == "finished"


@pytest.mark.parametrize("rerun", ["never", "always"])
def test_a_damaged_record_before_is_told_with_what_helps(rerun: str, tmp_path: Path) -> None:
    """`rerun=always` is of the run itself, so it is not the advice."""
    first = pretraining.before(config_of(tmp_path))
    assert first is not None
    record = run(first).record
    path = tmp_path / record.id / "record.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(RecordError) as caught:
        run(config_of(tmp_path, {"rerun": rerun}))
    assert str(caught.value) == (
        f"pretrain: {path}: is no JSON object (cut off?); delete its folder, and it is made anew"
    )
    shutil.rmtree(path.parent)
    again = run(config_of(tmp_path, {"rerun": rerun})).record
    assert (again.status, again.parents) == ("finished", [record.id])


@pytest.mark.parametrize(
    "stage, text",
    [
        ({"encoder": {"depth": 3}}, "pretrain.encoder.depth: encoder toy has no depth"),
        ({"encoder": {"dim": "wide"}}, "pretrain: encoder.dim: 'wide'"),
        ({"task": {**TREE["task"], "maxlength": 3}}, "pretrain: task.maxlength"),
        ({"task": {**TREE["task"], "_target_": "os.system"}}, "pretrain: task._target_: os.system"),
        ({"optimizer": {**TREE["optimizer"], "_target_": "os.system"}}, "pretrain: optimizer._target_"),
        ({"budget": {**STAGE["budget"], "match": "params", "target": 5.0}}, "pretrain.budget.match"),
        ({"budget": {**STAGE["budget"], "steps": -1}}, "pretrain.budget.steps: -1"),
    ],
)
def test_what_cannot_come_before(stage: dict[str, Any], text: str, tmp_path: Path) -> None:
    task = build_task(config_of(tmp_path))
    with pytest.raises(ConfigError) as error:
        pretraining.check(config_of(tmp_path, **stage), task)
    assert text in str(error.value)
    assert not list(tmp_path.iterdir())


def test_weights_that_do_not_fit_or_are_not_its_own(made: tuple[Path, Record], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"weights don't fit.*(\n).*12.* in run .*, .*5.* here"):
        run(config_of(tmp_path, {"encoder.dim": 5}, encoder={"dim": 12}))
    results, record = made
    first = Store(results).find(record.parents[0])
    assert first is not None
    copy = tmp_path / "copy"
    (copy / first.id).mkdir(parents=True)
    with pytest.raises(ConfigError, match="is missing; make it anew"):
        pretraining.weights(first, copy)
    (copy / first.id / "weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match="sha256 differs"):
        pretraining.weights(first, copy)
    with pytest.raises(ConfigError, match="left no weights"):
        pretraining.weights(first.model_copy(update={"checkpoint": None}), copy)


def test_another_process_at_it_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    tries: list[str] = []

    def busy(config: RunConfig) -> Record:
        tries.append(config.names.task)
        if len(tries) < 3:
            raise claims.Claimed("busy")
        return run(config).record

    monkeypatch.setattr(pretraining, "POLL", 0.0)
    record = pretraining.made(pretraining.before(config_of(tmp_path)), busy, lambda event: heard.append(event.kind))
    assert record is not None
    assert (tries, heard) == (["first"] * 3, ["score"] * 2)


def test_a_record_is_verified_with_what_came_before(
    made: tuple[Path, Record], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, record = made
    allowed = "allowed=[tests.seqbench,encoders,torch.optim,tasks]"
    assert verify.main([f"run={results / record.id}", allowed, "--json"]) == 0, capsys.readouterr()
    into = tmp_path / "published"
    published.keep(results, [record.id], into)
    assert {path.name for path in into.iterdir()} == {record.id, *record.parents}
    assert verify.main([f"run={into / record.id}", allowed]) == 0, "from the record alone"


@pytest.mark.slow
def test_from_the_command_line(toy: Toy) -> None:
    stage = {**STAGE, "budget": TREE["budget"]}
    toy.write("pretrain/first.yaml", stage)
    said = toy("pretrain=first", "pretrain.budget.steps=4", "budget.steps=3")
    assert said.code == 0, said.err
    records = [json.loads(path.read_text()) for path in toy.records()]
    assert [record["task"]["name"] for record in records] == ["first", "toy"]
    assert [len(record["parents"]) for record in records] == [0, 1]
    assert records[0]["config"]["budget"]["steps"] == 4
    assert toy("pretrain=first", "pretrain.budget.stps=4").code == 2
    said = toy("-m", "pretrain=first", "pretrain.budget.steps=4", "budget.steps=3", "seed=0,1")
    assert said.code == 0, said.err
    assert len(toy.records()) == 4
    said = toy("pretrain=first", "+pretrain.encoder.dimm=3")
    assert (said.code, "dimm" in said.err) == (2, True), said.err


class Corpus(DataSet):
    """Two sentences."""

    modality = "text"

    def identity(self) -> list[FileFact]:
        """One made-up file."""
        return [FileFact(name="corpus", url="file:corpus", sha256="c" * 64)]

    def check(self) -> None:
        """Nothing."""

    def read(self, split: str) -> list[Example]:
        """Words of training, others elsewhere."""
        words = {"train": "red green", "valid": "blue"}.get(split, "grey")
        return [Example(source=words, target=0), Example(source=("red", "pair"), target=0)]


def test_a_tokeniser_of_another_data_set() -> None:
    fitted = FittedOn(tokenizer=Words(min_count=1, max_size=None), data=Corpus())
    fitted.fit(["never seen words"])
    alone = Words(min_count=1, max_size=None)
    alone.fit(["red green", "red", "pair"])
    text = "green pair words"
    assert fitted.encode([text])[0].ids.tolist() == alone.encode([text])[0].ids.tolist()
    assert fitted.vocab_size == alone.vocab_size == len(fitted.special_ids) + 3
    assert fitted.decode(fitted.encode(["red"])[0].ids.tolist()) == "red"
    assert [fact.sha256 for fact in fitted.identity()] == ["c" * 64]
    assert alone.identity() == []


def test_files_of_pretraining_compose() -> None:
    for path in sorted((published.ROOT / "configs" / "pretrain").glob("*.yaml")):
        assert yaml.safe_load(path.read_text())["name"]


@pytest.mark.parametrize(
    ("chosen", "name", "teacher"),
    [
        (["pretrain=lm"], "python_code_lm", None),
        (["pretrain=lm", "task@pretrain.task=tinyshakespeare"], "tinyshakespeare", None),
        (["pretrain=lm", "task@pretrain.task=tinyshakespeare", "pretrain.name=plays"], "plays", None),
        (
            [
                "pretrain=needle_teacher",
                "encoder@pretrain.encoder=llama",
                "pretrain.encoder.layer.attention.kv_heads=2",
            ],
            "needle_list",
            "llama",
        ),
    ],
)
def test_its_names_are_those_of_the_files_that_are_chosen_for_it(
    chosen: list[str], name: str, teacher: str | None
) -> None:
    words = ["encoder=decoder_only", "task=python_code", "tokenizer=bytes", *chosen]
    config = check_config(*Compositions(own_loader()).make(words), words)
    assert config.pretrain is not None
    assert (config.pretrain.name, config.pretrain.teacher) == (name, teacher)
    first = pretraining.before(config)
    assert first is not None
    assert (first.names.task, first.names.encoder) == (name, teacher or "decoder_only")
