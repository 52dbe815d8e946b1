"""A table of what users get wrong: a clear message of at most three lines, no traceback, nothing half-written."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from seqbench.store import Store
from tests.seqbench.toy_cli import BASE, STUDY, Said, Toy

Prepare = Callable[[Toy, pytest.MonkeyPatch], None]
OWN = ["encoder=bag", "task=own_classification", "trainer.threads=1", "budget.steps=2", "budget.eval_every=2"]
OWN += ["task.data.columns.source=text", "task.data.columns.target=label"]
REAL: list[str] = ["trainer.threads=1"]
CSV = "text,label\n" + "".join(f"word{i} here,{'ab'[i % 2]}\n" for i in range(40))


@dataclass(frozen=True)
class Case:
    """A mistake: the arguments after `base`, and what the message must hold."""

    name: str
    arguments: str
    says: str
    base: tuple[str, ...] = tuple(BASE)
    prepare: Prepare | None = None
    code: int = 2
    status: str | None = None  # of the record that a failure at run time leaves
    resumes: bool = False  # a checkpoint stays, from which the same command goes on


def config(name: str, content: object) -> Prepare:
    return lambda toy, patch: toy.write(name, content)


def study(**changes: Any) -> Prepare:
    return config("study/tiny.yaml", {**STUDY, **changes})


def data(name: str, content: str | bytes) -> Prepare:
    def prepare(toy: Toy, patch: pytest.MonkeyPatch) -> None:
        (toy.work / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return prepare


def broken(how: str) -> Prepare:
    node = {"_target_": "tests.seqbench.toy.BrokenEncoder", "dim": 4, "dropout": 0.1, "how": how, "at": 3}
    return config("encoder/broken.yaml", node)


TARGET = "tests.seqbench.toy.ToyEncoder"
LINE = Case  # a row of the table below

COMMAND_LINE = [
    LINE("no such key", "sede=1", "sede: no such key (did you mean seed?)"),
    LINE("no such section", "budgt.steps=1", "budgt.steps: no such key (did you mean budget?)"),
    LINE("no such nested key", "budget.stps=1", "budget.stps: no such key (did you mean budget.steps?)"),
    LINE("key below a value", "budget.steps.x=1", "budget.steps.x: no such key; budget.steps is a single value"),
    LINE("no such key of a node", "encoder.dmi=1", "encoder.dmi: no such key (did you mean encoder.dim?)"),
    LINE("a new key that none takes", "+encoder.heads=2", "encoder.heads: no such key; there is dim, dropout"),
    LINE("a key of nothing", "+foo=1", "foo: no such key"),
    LINE("no such encoder", "encoder=encoder_olny", "there is no such encoder (did you mean encoder_only?)"),
    LINE("no such task", "task=scam", "task=scam: there is no such task (did you mean scan?)"),
    LINE("no such optimizer", "optimizer=adamx", "optimizer=adamx: there is no such optimizer (did you mean adam"),
    LINE("no such group", "model/size=big", "model/size: no such group of configs"),
    LINE("a number for a group", "encoder=3", "encoder=3: a group of configs takes the name of one of its files"),
    LINE("nothing for a group", "task=null", "task=null: a group of configs takes the name of one of its files"),
    LINE("an open list", "encoder=[", "'encoder=[' is not a readable override; write key=value"),
    LINE("no equals sign", "seed", "'seed' is not a readable override; write key=value"),
    LINE("no key", "=3", "takes the name of one of its files"),
    LINE("an empty argument", "", "an override is empty; write key=value"),
    LINE("an open quote", "label='a", "is not a readable override"),
    LINE("an open reference", "label=${x", "is not a readable override"),
    LINE("a list without -m", "seed=1,2", "seed: 1,2 is several values; add -m to run each of them"),
    LINE("a choice without -m", "seed=choice(1,2)", "seed=choice(1,2): a sweep needs -m"),
    LINE("an endless sweep", "-m optimizer.lr=interval(0,1)", "optimizer.lr: interval(0,1) has no end"),
    LINE("adding what is there", "+encoder.dim=3", "encoder.dim: exists already; leave the + away"),
    LINE("deleting what is not there", "~encoder.heads", "encoder.heads: does not exist"),
    LINE("deleting what is needed", "~encoder.dim", "encoder.dim: missing"),
    LINE("an unknown option", "--fast", "unrecognized arguments: --fast; --help lists what there is"),
    LINE("two modes", "-m --cfg job", "only one of --run, --multirun, --cfg"),
    LINE("an unknown kind of config", "--cfg jobs", "invalid choice: 'jobs'"),
    LINE("resolve alone", "--resolve", "--resolve goes with --cfg"),
    LINE("a folder that is not there", "--config-dir nowhere", "nowhere' not found"),
    LINE("a study without -m", "study=tiny", "study=tiny: a study is a grid of runs; add -m"),
    LINE("no such study", "-m study=quikstart", "study=quikstart: there is no such study (did you mean quickstart?)"),
    LINE("two studies", "-m study=tiny,quickstart", "study: tiny, quickstart; one study at a time"),
    LINE("no such experiment", "experiment=nature", "experiment=nature: there is no"),
    LINE("a sweep over Hydra", "-m hydra.job.name=a,b", "Sweeping over Hydra's configuration is not supported"),
]
VALUES = [
    LINE("a word for a seed", "seed=yes", "seed: 'yes' is not a whole number"),
    LINE("true for a seed", "seed=true", "seed: true is not a whole number"),
    LINE("half a seed", "seed=1.5", "seed: 1.5 is not a whole number"),
    LINE("a negative seed", "seed=-1", "seed: -1 is not allowed; should be greater than or equal to 0"),
    LINE("no steps", "budget.steps=0", "budget.steps: 0 is not allowed; should be greater than or equal to 1"),
    LINE("steps as a float", "budget.steps=1e3", "budget.steps: 1000.0 is not a whole number; write 1000"),
    LINE("a word for a rate", "optimizer.lr=high", "optimizer.lr: 'high' is not a number"),
    LINE("a rate of nan", "optimizer.lr=nan", "optimizer.lr: nan is not a finite number"),
    LINE("a negative rate", "optimizer.lr=-1", "optimizer.lr: invalid learning rate: -1"),
    LINE("too few betas", "optimizer.betas=[0.9]", "optimizer.betas.1: missing"),
    LINE("yes for true", "deterministic=yes", "deterministic: 'yes' is not true or false"),
    LINE("a number for a text", "label=3", "label: 3 is not a text; quote it"),
    LINE("no such policy", "rerun=alway", "rerun: 'alway' is not one of never, failed, always (did you mean always?)"),
    LINE("two batch sizes", "budget.batch_tokens=9", "budget.batch_size: 8, with batch_tokens 9; set one of the two"),
    LINE("no batch size", "budget.batch_size=null", "budget.batch_size: null, with batch_tokens null; set one"),
    LINE("best of nothing", "budget.eval_every=null", "budget.select: best, with eval_every null"),
    LINE("a precision of Lightning 1", "trainer.precision=bf16", "is not one of 32-true, 16-mixed, bf16-mixed"),
    LINE("half precision on a CPU", "trainer.precision=16-mixed", "16-mixed does not train on a CPU"),
    LINE("no such device", "trainer.accelerator=tpu", "trainer.accelerator: 'tpu' is not one of auto, cpu, gpu"),
    LINE("unequal parts", "trainer.accumulate=3", "3 equal parts can't be made of budget.batch_size, 8"),
    LINE("a text for a list", "allowed=encoders", "allowed: 'encoders' is not a list"),
    LINE("a word for a width", "encoder.dim=abc", "encoder.dim: 'abc' is not a whole number"),
    LINE("no width", "encoder.dim=0", "encoder.dim: 0 is not allowed; should be greater than 0"),
    LINE(
        "no such class",
        "encoder._target_=tests.seqbench.toy.ToyEncodr",
        "(did you mean tests.seqbench.toy.ToyEncoder?)",
    ),
    LINE("no such module", "encoder._target_=encoders.recurent.Recurrent", "(did you mean encoders.recurrent?)"),
    LINE("a foreign class", "encoder._target_=os.system", "os.system is not in a package that configs may use"),
    LINE(
        "a lookalike package", "encoder._target_=encodersevil.X", "encodersevil.X is not in a package that configs may"
    ),
    LINE("a class through a module", "encoder._target_=encoders.base.torch.load", "torch.load is not in a package"),
    LINE("a class of another kind", "encoder._target_=tests.seqbench.toy.ToyTask", "ToyTask is not an Encoder"),
    LINE("an abstract class", "encoder._target_=encoders.base.Encoder", "encoders.base.Encoder is abstract"),
    LINE("a partial", "+encoder._partial_=true", "encoder._partial_: not allowed"),
    LINE("a name for a part", "task.data=digits", "task.data: 'digits' is not a part; it takes a DataSet"),
    LINE("a metric for data", "task.data={_target_:tests.seqbench.toy.Hits}", "is not a DataSet"),
    LINE(
        "one metric for several",
        "task.metrics={_target_:tests.seqbench.toy.Hits}",
        "task.metrics: {_target_:tests.seqbench.toy.Hits} has another form",
    ),
    LINE("no metric", "task.metrics=[]", "task.metrics: a task needs at least one"),
    LINE("many devices", "trainer.devices=3", "trainer.devices: 3; a run uses one device"),
]
PAIRS = [
    LINE(name, arguments, says, base=tuple(REAL))
    for name, arguments, says in [
        ("no decoder", "encoder=encoder_only task=scan", "task scan needs a Decoder; encoder encoder_only is not one"),
        ("not causal", "encoder=bilstm task=tinyshakespeare", "tinyshakespeare needs a causal encoder; bilstm is not"),
        ("ids for channels", "encoder=dlinear task=listops", "averages float channels; this task feeds ids"),
        ("no such rule", "encoder=repeat_last task=digits", "task digits has no trivial rule repeat_last; it has"),
        ("patches of ids", "encoder=encoder_only task=listops encoder.patch=2", "can be merged of channels only"),
        ("heads that don't divide", "encoder=encoder_only task=digits encoder.heads=3", "heads"),
        ("no class of one's own", "encoder=own task=digits", "encoder._target_: missing; give it a value"),
        ("no checkpoint", "encoder=pretrained task=sst2", "encoder.path: missing; give it a value"),
        ("no such checkpoint", "encoder=pretrained encoder.path=nowhere/at/all task=sst2", "encoder.path"),
        ("no file of one's own", "encoder=bag task=own_classification", "task.data.train: missing; give it a value"),
        ("a sweep of misfits", "-m encoder=bilstm,bag task=scan", "bilstm x scan: needs a Decoder"),
    ]
]
FILES = [
    LINE(
        "broken YAML", "encoder=x", "x.yaml, line 3: not valid YAML", prepare=config("encoder/x.yaml", "a: 1\nb: [1\n")
    ),
    LINE("tabs in YAML", "encoder=x", "x.yaml, line 1: not valid YAML", prepare=config("encoder/x.yaml", "\ta: 1\n")),
    LINE("an empty file", "encoder=x", "encoder", prepare=config("encoder/x.yaml", "")),
    LINE(
        "a list for a mapping",
        "encoder=x",
        "encoder: [1, 2] is no node",
        prepare=config("encoder/x.yaml", "- 1\n- 2\n"),
    ),
    LINE(
        "no target",
        "encoder=x",
        "encoder: {'dim': 3} is no node; it needs a _target_",
        prepare=config("encoder/x.yaml", {"dim": 3}),
    ),
    LINE(
        "a wrong key in a file",
        "encoder=x",
        "encoder.dmi: no such key (did you mean dim?)",
        prepare=config("encoder/x.yaml", {"_target_": TARGET, "dmi": 3, "dim": 4, "dropout": 0.1}),
    ),
    LINE(
        "a dead reference",
        "encoder=x",
        "encoder.dim: missing ('no.where' not found); give it a value",
        prepare=config("encoder/x.yaml", {"_target_": TARGET, "dim": "${no.where}", "dropout": 0.1}),
    ),
    LINE(
        "a reference in circles",
        "encoder=x",
        "encoder.dim",
        prepare=config("encoder/x.yaml", {"_target_": TARGET, "dim": "${encoder.dim}", "dropout": 0.1}),
    ),
    LINE(
        "an open value",
        "encoder=x",
        "encoder.dim: missing; give it a value",
        prepare=config("encoder/x.yaml", {"_target_": TARGET, "dim": "???", "dropout": 0.1}),
    ),
    LINE(
        "no such default",
        "encoder=x",
        "there is no such encoder",
        prepare=config("encoder/x.yaml", {"defaults": ["nowhere"]}),
    ),
    LINE(
        "an experiment's wrong key",
        "experiment=x",
        "encoder.dpth: no such key",
        prepare=config("experiment/x.yaml", "# @package _global_\nencoder: {dpth: 3}\n"),
    ),
    LINE(
        "an experiment's wrong section",
        "experiment=x",
        "bugdet: no such key (did you mean budget?)",
        prepare=config("experiment/x.yaml", "# @package _global_\nbugdet: {steps: 3}\n"),
    ),
    LINE("an empty study", "-m study=tiny", "study/tiny.yaml: is empty", prepare=config("study/tiny.yaml", "")),
    LINE("a study without a grid", "-m study=tiny", "study/tiny.yaml: grid: has no block", prepare=study(grid=[])),
    LINE(
        "a study's wrong key",
        "-m study=tiny",
        "study/tiny.yaml: by_taks: no such key (did you mean by_task?)",
        prepare=study(by_taks={}),
    ),
    LINE(
        "a block without a task",
        "-m study=tiny",
        "study/tiny.yaml: grid.0.task: missing",
        prepare=study(grid=[{"encoder": "toy"}]),
    ),
    LINE(
        "a table for no task",
        "-m study=tiny",
        "by_task.tyo: the grid has no such task (did you mean toy?)",
        prepare=study(by_task={"tyo": {"seed": 1}}),
    ),
    LINE(
        "a cell's wrong key",
        "-m study=tiny",
        "encoder.dmi: no such key",
        base=(),
        prepare=study(by_encoder={"toy": {"encoder.dmi": 3}}),
    ),
    LINE(
        "a cell's wrong type",
        "-m study=tiny",
        "budget.steps: 'many' is not a whole number",
        base=(),
        prepare=study(set={**STUDY["set"], "budget.steps": "many"}),
    ),  # type: ignore[dict-item]
    LINE(
        "a cell's wrong encoder",
        "-m study=tiny",
        "encoder=tyo: there is no such encoder (did you mean toy?)",
        base=(),
        prepare=study(grid=[{"encoder": ["toy", "tyo"], "task": "toy"}]),
    ),
]
DATA = [
    LINE(name, arguments, says, base=tuple(OWN), prepare=prepare)
    for name, arguments, says, prepare in [
        ("no such file", "task.data.train=no.csv", "no.csv", None),
        ("a folder for a file", "task.data.train=.", "task.data.train", None),
        ("an empty file of data", "task.data.train=a.csv", "a.csv", data("a.csv", "")),
        ("a header alone", "task.data.train=a.csv", "a.csv", data("a.csv", "text,label\n")),
        ("no such column", "task.data.train=a.csv task.data.columns.target=star", "star", data("a.csv", CSV)),
        ("a ragged line", "task.data.train=a.csv", "a.csv line 3: 3 fields", data("a.csv", "text,label\na,b\na,b,c\n")),
        ("an unknown format", "task.data.train=a.xls", "a.xls is none of .csv", data("a.xls", CSV)),
        (
            "Latin-1",
            "task.data.train=a.csv",
            "a.csv line 2: byte 0xe9",
            data("a.csv", "text,label\né,b\n".encode("latin1")),
        ),
        (
            "UTF-16",
            "task.data.train=a.csv",
            "says UTF-16, not UTF-8 convert it: iconv -f utf-16 -t",
            data("a.csv", CSV.encode("utf-16")),
        ),
        (
            "UTF-16 without a mark",
            "task.data.train=a.csv",
            "iconv -f utf-16le -t utf-8",
            data("a.csv", CSV.encode("utf-16le")),
        ),
        ("UTF-32", "task.data.train=a.csv", "iconv -f utf-32 -t utf-8", data("a.csv", CSV.encode("utf-32"))),
        ("a format before a record", "task.data.train=a.xls results=a.xls", "a.xls is none", data("a.xls", CSV)),
        (
            "broken JSON",
            "task.data.train=a.jsonl",
            "a.jsonl line 2",
            data("a.jsonl", '{"text":"a","label":"b"}\n{"te\n'),
        ),
        ("a list for an object", "task.data.train=a.jsonl", "a.jsonl line 1", data("a.jsonl", "[1]\n")),
        ("no Parquet", "task.data.train=a.parquet", "a.parquet", data("a.parquet", "nothing like it")),
        ("an open quotation mark", "task.data.train=a.csv", "a.csv", data("a.csv", 'text,label\n"a,b\n')),
        ("nothing to validate on", "task.data.train=a.csv task.data.valid_share=0.0", "valid", data("a.csv", CSV)),
    ]
]


def no_room(toy: Toy, patch: pytest.MonkeyPatch) -> None:
    """A disk that fills up while the first file is written."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    patch.setattr(os, "fsync", full)


def read_only(toy: Toy, patch: pytest.MonkeyPatch) -> None:
    """As a read-only file system answers (root may write where a mode forbids it)."""

    def refuse(*given: object, **named: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    patch.setattr("seqbench.store.tempfile.TemporaryFile", refuse)


def damaged(change: Callable[[str], str]) -> Prepare:
    def prepare(toy: Toy, patch: pytest.MonkeyPatch) -> None:
        assert toy().code == 0
        toy.records()[0].write_text(change(toy.records()[0].read_text()))

    return prepare


def held(toy: Toy, patch: pytest.MonkeyPatch) -> None:
    """Another process works on the run: its lock is held."""
    assert toy().code == 0
    lock = toy.records()[0].parent / "lock"
    lock.write_text("process 1 on elsewhere")
    descriptor = os.open(lock, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def wrong_bytes(toy: Toy, patch: pytest.MonkeyPatch) -> None:
    """A cache with a file of the right name and size, and a byte changed."""
    from tasks.data.pinned import card

    folder = toy.work / "cache" / "tinyshakespeare"
    folder.mkdir(parents=True)
    for fact in card("tinyshakespeare").files:
        (folder / fact.name).write_bytes(b"x" * (fact.size or 1))
    patch.setenv("SEQBENCH_DATA", str(toy.work / "cache"))


RUN_TIME = [
    LINE(
        "a loss of nan",
        "encoder=broken",
        "diverged: the training loss is nan at step 3",
        code=1,
        status="diverged",
        prepare=broken("nan"),
    ),
    LINE(
        "no memory",
        "encoder=broken",
        "out of memory: OutOfMemoryError",
        code=1,
        status="out_of_memory",
        prepare=broken("oom"),
    ),
    LINE(
        "an error in a model",
        "encoder=broken",
        "failed: RuntimeError: mat1 and mat2",
        code=1,
        status="failed",
        prepare=broken("error"),
    ),
    LINE(
        "an interrupt",
        "encoder=broken",
        "interrupted; the same command goes on",
        code=130,
        status="interrupted",
        prepare=broken("interrupt"),
    ),
    LINE("a full disk", "", "cannot be written to (no space left on device)", prepare=no_room, resumes=True),
    LINE("a read-only folder", "", "results: results cannot be written to (read-only file system)", prepare=read_only),
    LINE("a file for a folder", "results=a.txt", "results: a.txt cannot be written to", prepare=data("a.txt", "x")),
    LINE("a record cut off", "", "is no JSON object (cut off?)", prepare=damaged(lambda text: text[: len(text) // 2])),
    LINE(
        "a record of the future",
        "",
        "has schema_version 999",
        prepare=damaged(lambda text: text.replace('"schema_version": 1', '"schema_version": 999')),
    ),
    LINE(
        "a record with a field more",
        "",
        "has a field 'mood'",
        prepare=damaged(lambda text: text.replace('"status"', '"mood": 1, "status"', 1)),
    ),
    LINE("a run that is worked on", "rerun=always", "process 1 on elsewhere works on this run", prepare=held),
    LINE("a wrong checksum", "encoder=lstm task=tinyshakespeare", "input.txt", base=tuple(REAL), prepare=wrong_bytes),
]
ALLOW = "allowed=[encoders,tasks,torch.optim,tests.seqbench.toy,tests.seqbench.own]"
OWN_CODE = [
    LINE(f"own: {name}", f"{ALLOW} {arguments.replace('MINE', 'tests.seqbench.own')}", says)
    for name, arguments, says in [
        ("no width", "encoder._target_=MINE.NoDim", "NoDim.dim is missing set self.dim in its constructor"),
        ("not causal nor not", "encoder._target_=MINE.NoCausal", "NoCausal.causal is missing set it to True if"),
        ("no family", "encoder._target_=MINE.NoFamily", "NoFamily.family is missing give a word"),
        (
            "a tensor for states",
            "encoder._target_=MINE.GivesTensor",
            "GivesTensor.forward gives a Tensor",
        ),
        ("wider states", "encoder._target_=MINE.Wider", "Wider.forward gives values of (2, 5, 24), for"),
        (
            "more states",
            "encoder._target_=MINE.Longer",
            "(2, 6, 12), for 2 rows of 5 positions (2, 5, 12) is right",
        ),
        ("another batch", "encoder._target_=MINE.LastRowOnly", "gives values of (1, 5, 12), for 2 rows"),
        (
            "a mask of floats",
            "encoder._target_=MINE.FloatMask",
            "mask of torch.float32 values are floats",
        ),
        ("no mask", "encoder._target_=MINE.NoMask", "NoMask.forward gives a NoneType as mask"),
        ("states of nan", "encoder._target_=MINE.NotANumber", "NotANumber.forward gives NaN or infinite states"),
        ("no super", "encoder._target_=MINE.ForgetsSuper", "ForgetsSuper can't be made: AttributeError: cannot"),
        ("a wrong call", "encoder._target_=MINE.WrongCall", "own.py, line"),
        (
            "a wrong argument",
            "encoder._target_=MINE.Wider encoder.dim=x",
            "encoder.dim: 'x' is not a whole number",
        ),
        ("no such class", "encoder._target_=MINE.Widr", "no Widr (did you mean tests.seqbench.own.Wider?)"),
        (
            "no such module",
            "encoder._target_=tests.seqbench.onw.Wider allowed=[tests]",
            "(did you mean tests.seqbench.own?)",
        ),
        ("no such package", "encoder._target_=encodrs.bag.Bag", "(did you mean encoders?)"),
        (
            "a nameless metric",
            "task.metrics=[{_target_:MINE.Nameless}]",
            "task.metrics.0: Nameless.name is miss",
        ),
        ("an aimless metric", "task.metrics=[{_target_:MINE.Undirected}]", "Undirected.best is 'high' it is"),
        (
            "two metrics of a name",
            "task.metrics=[{_target_:tests.seqbench.toy.Hits},{_target_:MINE.HitsAgain}]",
            "task.metrics.1: HitsAgain has the name 'hits', as Hits has",
        ),
    ]
]
TABLE = [*OWN_CODE, *COMMAND_LINE, *VALUES, *PAIRS, *FILES, *DATA, *RUN_TIME]


def whole(toy: Toy) -> list[str]:
    """Files in results that are neither a whole record nor belong to one."""
    records, damages = Store(toy.work / "results").all()
    known = {record.id for record in records} | {damage.path.parent.name for damage in damages}
    found = [path for path in (toy.work / "results").rglob("*") if path.is_file()]
    return [str(path) for path in found if not known & set(path.parts)]


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name.replace(" ", "-"))
def test_malformed(case: Case, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    if case.prepare:
        case.prepare(toy, monkeypatch)
    before = {path: path.read_bytes() for path in toy.records()}
    arguments = case.arguments.split(" ") if case.arguments or case.prepare is None else []
    said: Said = toy(*arguments, base=case.base)
    message = said.err if case.code != 1 else said.out
    assert said.code == case.code, said
    assert case.says in " ".join(message.split()), message
    assert 0 < len(message.splitlines()) <= 3
    assert "Traceback" not in said.out + said.err
    assert case.code == 1 or said.out == ""
    assert case.resumes or whole(toy) == []
    assert not list(toy.work.rglob("*.tmp"))
    if case.status:
        (record,) = Store(toy.work / "results").all()[0]
        assert record.status == case.status
        assert record.reason
    else:
        assert {path: path.read_bytes() for path in toy.records()} == before


def test_the_table_is_long_and_its_names_differ() -> None:
    assert len(TABLE) >= 60
    assert len({case.name for case in TABLE}) == len(TABLE)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there(toy: Toy) -> None:
    said = toy("trainer=gpu")
    assert (said.code, toy.records()) == (2, [])
    assert said.line.startswith("trainer.accelerator: gpu, but torch finds no CUDA device")
