"""Arrays in the cache: made once, shared, checked; texts tokenised once; large rows memory-mapped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks import encodings, mapped, padding
from tasks.loading import Batching, Loader
from tasks.tokenizers import Characters, Tokenizer, Words

TEXTS: list[Any] = ["a bb  a", ["bb", "c", ""], "", "c c c a"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mapped, "mapped_folder", lambda: tmp_path / "encoded")
    return tmp_path / "encoded"


def counted() -> tuple[Callable[[], dict[str, Any]], list[int]]:
    calls: list[int] = []

    def build() -> dict[str, Any]:
        calls.append(1)
        return {"x": np.arange(6).reshape(2, 3), "y": np.array([0.5, np.nan])}

    return build, calls


def is_mapped(array: Any) -> bool:
    """Whether a file on the disk stands behind it."""
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


def test_arrays_are_built_once_and_read_from_their_file(folder: Path) -> None:
    build, calls = counted()
    for _ in range(3):
        arrays = mapped.mapped("key", build)
        assert arrays["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert arrays["y"].dtype == np.float64
        assert is_mapped(arrays["x"])
        with pytest.raises(ValueError, match="read-only"):
            arrays["x"][0, 0] = 9
    assert len(calls) == 1
    mapped.mapped("other", build)
    assert len(calls) == 2
    assert sorted(entry.name for entry in folder.iterdir()) == ["key", "other"]  # nothing half made is left


@pytest.mark.parametrize("harm", ["changed", "cut", "no sums", "not json", "pickle"])
def test_what_is_not_as_written_is_built_again(folder: Path, harm: str) -> None:
    build, calls = counted()
    mapped.mapped("key", build)
    file, sums = folder / "key" / "x.npy", folder / "key" / mapped.SUMS
    if harm == "changed":
        file.write_bytes(file.read_bytes()[:-1] + b"\7")
    elif harm == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    elif harm == "no sums":
        sums.unlink()
    elif harm == "not json":
        sums.write_text("[")
    else:  # which would be run if it were read
        np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert mapped.mapped("key", build)["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert len(calls) == 2
    mapped.mapped("key", build)
    assert len(calls) == 2


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(mapped, "mapped_folder", lambda: tmp_path / "file" / "encoded")
    build, calls = counted()
    for _ in range(2):
        assert mapped.mapped("key", build)["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert len(calls) == 2


def test_what_was_not_used_for_longest_makes_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, _ = counted()
    for age, name in enumerate(["new", "old", "older"]):
        mapped.mapped(name, build)
        os.utime(folder / name, (1000 - age, 1000 - age))
    size = sum(file.stat().st_size for file in (folder / "new").iterdir())
    monkeypatch.setattr(mapped, "MOST", int(1.9 * size))
    mapped.mapped("old", build)  # used again
    mapped.mapped("next", build)
    assert {entry.name for entry in folder.iterdir()} == {"old", "next"}


@pytest.mark.parametrize("tokenizer", [Words(min_count=1, max_size=None), Characters()], ids=["words", "characters"])
def test_large_splits_are_tokenised_once_to_the_same_ids(
    folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer.fit(TEXTS)
    expected = tokenizer.encode(TEXTS)
    assert not folder.exists()  # too few to be worth it
    monkeypatch.setattr(encodings, "LARGE", 3)
    made = tokenizer.encode(TEXTS)
    monkeypatch.setattr(type(tokenizer), "_encode", lambda self, texts: pytest.fail("tokenised again"))
    again = tokenizer.encode(TEXTS)
    for one, two, three in zip(expected, made, again, strict=True):
        for name in ("ids", "words", "characters"):
            values = getattr(one, name)
            assert getattr(two, name).dtype == getattr(three, name).dtype == values.dtype
            assert getattr(two, name).tolist() == getattr(three, name).tolist() == values.tolist()
    assert is_mapped(again[0].ids)


def test_other_texts_vocabulary_or_code_are_other_entries(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "LARGE", 1)
    one, other = Words(min_count=1, max_size=None), Words(min_count=3, max_size=None)
    one.fit(TEXTS)
    other.fit(TEXTS)
    one.encode(TEXTS)
    assert len(list(folder.iterdir())) == 1
    assert [e.ids.tolist() for e in other.encode(TEXTS)] != [e.ids.tolist() for e in one.encode(TEXTS)]
    assert len(list(folder.iterdir())) == 2
    one.encode(TEXTS[:2])
    assert len(list(folder.iterdir())) == 3
    monkeypatch.setattr(encodings, "_code", lambda: "changed")
    one.encode(TEXTS)
    assert len(list(folder.iterdir())) == 4


def test_large_rows_are_mapped_and_give_the_same_batches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [np.arange(n) for n in (3, 1, 4, 1, 5)]
    plain = padding.Ragged(rows, np.int64)
    monkeypatch.setattr(padding, "LARGE", 8)
    large, again = padding.Ragged(rows, np.int64), padding.Ragged(rows, np.int64)
    assert not is_mapped(plain.values)
    assert is_mapped(large.values)
    assert is_mapped(again.values)
    assert len(list(folder.iterdir())) == 1  # one file for both

    def batches(ragged: padding.Ragged, workers: int) -> list[Any]:
        def collate(numbers: Any) -> Any:
            return ragged.sequences(numbers).values

        batching = Batching(rows=2)
        loader = Loader(
            lengths=ragged.lengths, collate=collate, batching=batching, seed=0, shuffle=True, workers=workers
        )
        return [batch.tolist() for batch in loader]

    assert batches(large, 0) == batches(large, 2) == batches(plain, 0)
    torch.from_numpy(large.pad(np.array([0]))[0]).add_(1)  # a batch is its own
    assert large[0].tolist() == [0, 1, 2]


@pytest.mark.slow
def test_processes_that_hold_the_same_rows_share_their_pages(folder: Path, tmp_path: Path) -> None:
    """Two processes at once, 48 MiB each: neither has them as memory of its own, and there is one file."""
    if not Path("/proc/self/smaps_rollup").is_file():
        pytest.skip("no /proc/self/smaps_rollup here")
    code = f"""
import json, sys
from pathlib import Path
import numpy as np
from tasks import mapped, padding
mapped.mapped_folder = lambda: Path({str(folder)!r})
def own():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024
before = own()
row = np.arange(2**14)
ragged = padding.Ragged((row for _ in range(384)), np.int64)
print(int(ragged.values.sum()), flush=True)
sys.stdin.readline()
print(json.dumps(own() - before), flush=True)
"""
    root = Path(__file__).resolve().parents[2]
    start = lambda: subprocess.Popen(  # noqa: E731
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    )
    first, second = start(), start()
    sums = []
    for process in (first, second):
        assert process.stdout is not None
        sums.append(process.stdout.readline())
    assert sums[0] == sums[1] == f"{384 * sum(range(2**14))}\n"
    both = [json.loads(process.communicate("\n")[0]) for process in (first, second)]
    assert max(both) < 24  # MiB
    assert len(list(folder.iterdir())) == 1
