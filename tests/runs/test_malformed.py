"""A table of what users get wrong: a clear message of at most three lines, no traceback, nothing half-written."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable

import pytest
import torch

from seqbench.records.store import Store
from tests.seqbench.malformed import (
    COMMAND_LINE,
    CSV,
    FILES,
    LINE,
    OWN,
    PAIRS,
    REAL,
    VALUES,
    Case,
    Prepare,
    broken,
    data,
)
from tests.seqbench.toy_cli import Said, Toy

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
        (
            "an open quotation mark",
            "task.data.train=a.csv",
            "a.csv line 3: a quotation mark opens a field here and nothing closes it",
            data("a.csv", 'text,label\na,b\n"a,b\nc,d\n'),
        ),
        (
            "semicolons for commas",
            "task.data.train=a.csv",
            "looks separated by ';': set 'task.data.delimiter=\";\"' Its columns are then: 'text', 'label'",
            data("a.csv", CSV.replace(",", ";")),
        ),
        (
            "one class alone",
            "task.data.train=a.csv",
            "a.csv line 2 (train) and all other training rows: the class is 'y'",
            data("a.csv", "text,label\n" + "".join(f"t{i},y\n" for i in range(9))),
        ),
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

    patch.setattr("seqbench.records.store.tempfile.TemporaryFile", refuse)


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
        ("a value for a method", "encoder._target_=MINE.HidesTold", "HidesTold has an attribute told, which takes the"),
        ("a part for a method", "encoder._target_=MINE.HidesFuse", "HidesFuse has an attribute fuse, which takes the"),
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


def test_no_plus_is_advised_for_a_key_that_the_class_does_not_take(toy: Toy) -> None:
    said = toy("encoder.heads=2")
    assert said.code == 2
    assert said.err.startswith("encoder.heads: no such key; there is")
    assert "+" not in said.err
    other = toy("encoder._target_=my_package.Mine", "encoder.heads=2")
    assert "a new key is added with +encoder.heads=2" in other.err


def test_the_table_is_long_and_its_names_differ() -> None:
    assert len(TABLE) >= 60
    assert len({case.name for case in TABLE}) == len(TABLE)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there(toy: Toy) -> None:
    said = toy("trainer=gpu")
    assert (said.code, toy.records()) == (2, [])
    assert said.line.startswith("trainer.accelerator: gpu, but torch finds no CUDA device")
