"""Mistakes of the command line, of values, of pairs and of config files, for test_malformed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.seqbench.toy_cli import BASE, STUDY, Toy

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
    LINE("a key of Hydra's", "verbose=true", "verbose: no such key; a new key is added with +verbose=true"),
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
    LINE(
        "deleting what is needed",
        "~encoder.dim",
        "encoder.dim: missing; its class needs it: write it into encoder/toy.yaml",
    ),
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
    LINE("many machines", "trainer.nodes=3", "trainer.nodes: 3, but nobody has started processes on other machines"),
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
        (
            "a key of a section below",
            "encoder=bag task=own_classification task.data.train=a.csv task.data.target=stars",
            "task.data.target: no such key (did you mean task.data.columns.target?)",
        ),
        (
            "a column of tables for CoNLL",
            "encoder=bag task=own_labelling task.data.train=tags.jsonl task.data.columns.source=tokens",
            "task.data.columns.source: no such key of this reader of data; own_data@task.data=files has it",
        ),
        (
            "an argument that a class of torch's has",
            "encoder=bag task=digits optimizer.capturable=true",
            "a new key is added with +optimizer.capturable=true",
        ),
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
