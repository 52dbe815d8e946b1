"""Python code: kinds of tokens by hand, windows, splits by module, sizes of the default task."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tasks.data import python_source
from tasks.data.base import SPLITS, DataError
from tasks.data.python_code import PythonKinds, PythonText, in_turn, windows
from tasks.data.python_kinds import KINDS, lines_of

SOURCE = '''
import os.path as p, sys
from . import a as b  # comment
@wrap(1)
class C(Base, metaclass=M):
    """Text"""
    x: int = 5
    def f(self, y, *rest: T, z=None) -> "R":
        with open(y) as handle:
            self.g.h(y, key=z)[0].q = r'x' f"{y}" + 1.5
        for i, k in p.items():
            print(*rest, sep='', end=f(k))
        except_ = lambda n: n.m
        try:
            pass
        except E as e:
            ünï = é.ü(über=1)
'''

EXPECTED = """
import:keyword os:import .:operator path:import as:keyword p:import ,:operator sys:import
from:keyword .:operator import:keyword a:import as:keyword b:import
@:operator wrap:call (:operator 1:number ):operator
class:keyword C:class (:operator Base:name ,:operator metaclass:argument =:operator M:name ):operator ::operator
"":string
x:target ::operator int:name =:operator 5:number
def:keyword f:function (:operator self:parameter ,:operator y:parameter ,:operator *:operator rest:parameter ::operator T:name ,:operator z:parameter =:operator None:keyword ):operator ->:operator "":string ::operator
with:keyword open:call (:operator y:name ):operator as:keyword handle:target ::operator
self:name .:operator g:attribute .:operator h:method (:operator y:name ,:operator key:argument =:operator z:name ):operator [:operator 0:number ]:operator .:operator q:attribute =:operator r"":string f"":string +:operator 1.5:number
for:keyword i:target ,:operator k:target in:keyword p:name .:operator items:method (:operator ):operator ::operator
print:call (:operator *:operator rest:name ,:operator sep:argument =:operator "":string ,:operator end:argument =:operator f:call (:operator k:name ):operator ):operator
except_:target =:operator lambda:keyword n:parameter ::operator n:name .:operator m:attribute
try:keyword ::operator
pass:keyword
except:keyword E:name as:keyword e:target ::operator
ünï:target =:operator é:name .:operator ü:method (:operator über:argument =:operator 1:number ):operator
"""  # noqa: E501


def test_kinds_by_hand() -> None:
    lines = lines_of(SOURCE, "here")
    assert all(line[-1] == ("\n", None) for line in lines)
    written = "\n".join(" ".join(f"{token}:{kind}" for token, kind in line[:-1]) for line in lines)
    assert written == EXPECTED.strip()


def test_soft_keywords_and_form_feeds() -> None:
    ((first, *_), (second, *_), *_) = (
        lines_of(text, "here")[0] for text in ("match x:\n  case 1: pass\n", "match = 1\n")
    )
    assert first == ("match", "keyword")
    assert second == ("match", "target")
    assert [kind for _, kind in lines_of("a = 1\n\x0c\nf(b)\n", "here")[1]][:3] == ["call", "operator", "name"]


@pytest.mark.parametrize("text", ["def f(:\n", "x = 'open\n", "\x00"])
def test_what_is_no_python(text: str) -> None:
    with pytest.raises(DataError, match="some_file"):
        lines_of(text, "some_file")


def test_windows_are_whole_lines_where_they_fit() -> None:
    lines: Any = [[(str(i), "name")] * n for i, n in enumerate([3, 4, 2, 25, 1])]
    found = list(windows(lines, 9))
    assert [len(window) for window in found] == [9, 9, 9, 8]
    assert [token for window in found for token in window] == [token for line in lines for token in line]
    assert [len(window) for window in windows(lines, 8)] == [7, 2, 8, 8, 8, 2]


SMALL = {"length": 48, "train": 300, "valid": 60, "test": 60}


def test_examples_are_tokens_with_kinds_in_splits_that_share_none() -> None:
    data = PythonKinds(**SMALL)
    windows_of = {}
    for split in SPLITS:
        examples = data.read(split)
        windows_of[split] = {tuple(e.source) for e in examples}
        assert len(windows_of[split]) == len(examples) == SMALL[split]
        for example in examples:
            assert len(example.source) == len(example.target) <= 48
            assert {kind for kind in example.target if kind} <= set(KINDS)
            assert all(
                (token == "\n") == (kind is None) for token, kind in zip(example.source, example.target, strict=True)
            )
    assert not windows_of["train"] & windows_of["test"]
    assert not windows_of["train"] & windows_of["valid"]
    assert PythonKinds(**SMALL).read("test") == data.read("test")


def test_streams_take_turns_a_few_at_a_time() -> None:
    streams = [iter(text) for text in ("abc", "d", "", "ef", "ghij", "k")]
    assert "".join(in_turn(streams, 2)) == "adbecfgkhij"


@pytest.mark.slow
def test_no_module_is_more_of_a_split_than_the_others_allow() -> None:
    data = PythonKinds(length=48, train=4000, valid=500, test=1000)
    for split, number, most in (("valid", 14, 0.15), ("test", 18, 0.09)):
        of_window: dict[tuple[str, ...], int] = {}
        for i, paths in enumerate(python_source.modules(split)):
            for path in paths:
                for window in windows(lines_of(python_source.text_of(path), str(path)), 48):
                    of_window.setdefault(tuple(token for token, _ in window), i)
        counts = Counter(of_window[tuple(example.source)] for example in data.read(split))
        assert len(counts) >= number
        assert max(counts.values()) <= most * sum(counts.values())


def test_modules_are_in_one_split() -> None:
    files = python_source.files()
    root = Path(next(iter(files["train"]))).parents
    names: dict[str, set[str]] = {}
    for split, paths in files.items():
        for path in paths:
            base = next(parent for parent in root if path.is_relative_to(parent) and (parent / "os.py").is_file())
            names.setdefault(path.relative_to(base).parts[0].removesuffix(".py"), set()).add(split)
    assert all(len(splits) == 1 for splits in names.values())
    assert {"argparse", "json", "asyncio"} <= set(names)
    assert not {"test", "idlelib", "encodings"} & set(names)
    assert {name: python_source.split_of(name) for name in names} == {n: s.copy().pop() for n, s in names.items()}


def test_the_split_of_a_module_is_fixed() -> None:
    """By the sha256 of its name: here by hand."""
    for name in ("argparse", "json", "typing", "asyncio", "statistics"):
        share = int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 2**64
        expected = "test" if share < 0.1 else "valid" if share < 0.2 else "train"
        assert python_source.split_of(name) == expected


def test_the_fingerprint_follows_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = python_source.fingerprint()
    assert PythonKinds(**SMALL).identity() == PythonText(train=1, valid=1, test=1).identity() == [before]
    copy = tmp_path / "lib"
    copy.mkdir()
    for name in ("argparse.py", "typing.py"):
        (copy / name).write_text("x = 1\n")
    monkeypatch.setattr(python_source.sysconfig, "get_paths", lambda: {"stdlib": str(copy)})
    monkeypatch.setattr(python_source, "files", lambda: {"train": sorted(copy.glob("*.py"))})
    prints = []
    for text in ("x = 1\n", "x = 2\n"):
        (copy / "typing.py").write_text(text)
        python_source.fingerprint.cache_clear()
        prints.append(python_source.fingerprint().sha256)
    python_source.fingerprint.cache_clear()
    assert len({*prints, before.sha256}) == 3


def test_a_python_without_source_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_source.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(DataError, match="no source of its standard library"):
        python_source.files.__wrapped__()


def test_more_than_there_is_is_told() -> None:
    with pytest.raises(DataError, match=r"lower task\.data\.test"):
        PythonKinds(**{**SMALL, "length": 2000, "train": 1, "valid": 1, "test": 10_000}).read("test")
    with pytest.raises(DataError, match=r"lower task\.data\.valid"):
        PythonText(train=10, valid=10**9, test=10).read("valid")


def test_texts_have_the_sizes_asked_for() -> None:
    data = PythonText(train=50_000, valid=3000, test=7)
    assert [sum(len(e.source) for e in data.read(split)) for split in SPLITS] == [50_000, 3000, 7]
    assert all(e.source and e.target is None for split in SPLITS for e in data.read(split))
    assert max(len(e.source) for e in PythonText(train=1, valid=30_000, test=1).read("valid")) == 3000
    firsts = [e.source for e in data.read("train")[:5]]  # a file of each module, as far as the tenth of the size
    assert firsts == [python_source.text_of(p[0])[:5000] for p in python_source.modules("train")[:5]]


@pytest.mark.slow
def test_the_default_task_has_its_windows_and_every_kind() -> None:
    data = PythonKinds(length=48, train=4000, valid=500, test=1000)
    for split, size in zip(SPLITS, (4000, 500, 1000), strict=True):
        examples = data.read(split)
        assert len(examples) == size
        assert {kind for e in examples for kind in e.target if kind} == set(KINDS)


@pytest.mark.slow
def test_the_whole_library_can_be_read() -> None:
    for paths in python_source.files().values():
        for path in paths:
            assert all(line for line in lines_of(python_source.text_of(path), str(path)))
