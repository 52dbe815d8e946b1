"""Boards by way of the index: the same bytes as without it, and never an entry in place of what a file says now."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqbench import cores, leaderboard
from seqbench.benchmark import made_up
from seqbench.board import collect, index, latex, page, reading
from seqbench.board.statistics import Examples
from seqbench.errors import RecordError
from seqbench.record import Point, Record
from seqbench.records.pieces import Curve, NotOurs, Values, cut
from seqbench.records.store import NAME, Store, read
from tests.seqbench import board_records as made

ROOT = Path(__file__).resolve().parents[2]
FILES = list(leaderboard.FILES.values())


@pytest.fixture(autouse=True)
def _old_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files made just now count as settled."""
    monkeypatch.setattr(reading, "SETTLED", -(10**12))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Records with everything on a board, and a damaged one."""
    place = tmp_path / "results"
    made.study(place)
    made_up.write(place, made_up.Shape(encoders=3, tasks=5, seeds=2, examples=60))
    (place / "damaged").mkdir()
    (place / "damaged" / NAME).write_text('{\n  "schema_version": 1,\n')
    return place


def names_in(results: Path) -> list[str]:
    """Folders of records."""
    return [name for name in os.listdir(results) if name != index.FOLDER]


def board(results: Path, out: Path, *more: str) -> dict[str, bytes]:
    """The files of a board."""
    assert leaderboard.main([f"results={results}", f"out={out}", "draws=100", *more]) == 0
    return {name: (out / name).read_bytes() for name in FILES}


def test_the_same_bytes_without_index_with_a_new_one_and_with_an_old_one(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = board(results, tmp_path / "board", "index=false")
    assert not (results / index.FOLDER).exists()
    assert b"damaged/record.json" in slow["leaderboard.md"]
    assert board(results, tmp_path / "board") == slow
    for split in ("valid",):
        assert board(results, tmp_path / "board", f"split={split}") == board(
            results, tmp_path / "board", f"split={split}", "index=false"
        )
    monkeypatch.setattr(reading, "encode", lambda *_: pytest.fail("a record was read though the index has it"))
    unknown: list[str] = []
    monkeypatch.setattr(reading, "_encode_all", lambda _, names, __: unknown.extend(names) or [])
    assert board(results, tmp_path / "board") == slow
    assert unknown == ["damaged"]


def test_tables_made_in_a_process_beside_the_page_are_the_same(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The title holds what stands in the page for its data."""
    title = f"title={page.DATA}"
    alone = board(results, tmp_path / "board", title)
    assert alone["index.html"].count(page.DATA.encode()) == 0
    monkeypatch.setattr(leaderboard, "MANY", 1)
    monkeypatch.setattr(cores, "cores", lambda: 2)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    here: list[Any] = []
    render = latex.render
    monkeypatch.setattr(latex, "render", lambda it: here.append(it) or render(it))
    assert board(results, tmp_path / "board", title) == alone
    assert not here
    monkeypatch.setattr(leaderboard, "MOST", 10)
    assert board(results, tmp_path / "board", title) == alone
    assert here


def test_an_old_index_opens_no_record(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = reading.read_many(results, names_in(results), "test")
    assert first.indexed == 0
    assert set(first.rest) == {"damaged"}
    second = reading.read_many(results, names_in(results), "test")
    assert second.indexed == len(first.found) > 60
    assert {name: one.record for name, one in second.found.items()} == {
        name: one.record for name, one in first.found.items()
    }


def one(results: Path) -> Path:
    """The folder of a made-up record of accuracy."""
    return next(e.folder for e in collect.read(results)[0] if e.record.task.name == "task_01" and e.record.seed == 1)


def rewrite(path: Path, content: bytes, *, keep_times: bool = False) -> None:
    """Other content in the same file, as an editor writes it."""
    before = path.stat()
    path.write_bytes(content)
    if keep_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("keep_times", [False, True], ids=["another time", "same size and time"])
def test_a_record_that_changes_is_read_again(results: Path, keep_times: bool) -> None:
    collect.read(results, index=True)
    path = one(results) / NAME
    content = path.read_bytes()
    edited = re.sub(rb'"machine_class": "made up', b'"machine_class": "made UP', content)
    assert len(edited) == len(content)
    assert edited != content
    rewrite(path, edited, keep_times=keep_times)
    told = collect.read(results, index=True)[1]
    assert any("was edited" in text and path.parent.name in text for text in told)
    assert told == collect.read(results)[1]


def test_predictions_that_change_are_read_again(results: Path) -> None:
    collect.read(results, index=True)
    path = one(results) / "predictions.parquet"
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    rewrite(path, bytes(content), keep_times=True)
    found = {e.folder: e for e in collect.read(results, index=True)[0]}[path.parent]
    assert found.told is not None
    assert found.told[0] is None
    assert "sha256 differs" in str(found.told[1])
    path.unlink()
    found = {e.folder: e for e in collect.read(results, index=True)[0]}[path.parent]
    assert found.told is not None
    assert "is missing" in str(found.told[1])


def test_a_record_that_goes_or_comes_is_gone_or_there(results: Path) -> None:
    collect.read(results, index=True)
    path = one(results) / NAME
    content = path.read_bytes()
    path.unlink()
    names = [e.folder.name for e in collect.read(results, index=True)[0]]
    assert path.parent.name not in names
    assert len(names) > 60
    kept = {name for _, shard in index.Index(results, "test").load() for name in shard.names}
    assert path.parent.name not in kept, "entries of what is gone go, too"
    assert len(kept) > 50
    path.write_bytes(content)
    assert path.parent.name in [e.folder.name for e in collect.read(results, index=True)[0]]


def test_a_copied_folder_is_told_each_time_and_gets_no_entry(results: Path) -> None:
    """Its record is another's: counted twice, it would make one seed two."""
    folder = one(results)
    shutil.copytree(folder, results / "copied")
    for _ in range(2):
        entries, problems = collect.read(results, index=True)
        assert [entry.folder.name for entry in entries].count("copied") == 0
        assert sum("copied" in problem and "another name" in problem for problem in problems) == 1
    assert "copied" not in {name for _, shard in index.Index(results, "test").load() for name in shard.names}


def test_a_fresh_file_gets_no_entry(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh: changed within SETTLED, here within the hour, however long a busy machine takes to make the records."""
    assert index.SETTLED == 2 * 10**9
    monkeypatch.setattr(reading, "SETTLED", 3600 * 10**9)
    collect.read(results, index=True)
    assert reading.read_many(results, names_in(results), "test").indexed == 0


@pytest.mark.parametrize("damage", ["cut", "text", "other code", "bits"])
def test_a_damaged_index_is_as_none(results: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = collect.read(results, index=True)[0]
    if damage == "other code":
        monkeypatch.setattr(index, "checksum", lambda: "of other code")
    for path in (results / index.FOLDER).iterdir():
        content = path.read_bytes()
        middle = len(content) // 2
        changed = bytes([content[middle] ^ 255])
        whole = {
            "cut": content[:middle],
            "text": b"nothing",
            "bits": content[:middle] + changed + content[middle + 1 :],
        }
        path.write_bytes(whole.get(damage, content))
    found = reading.read_many(results, names_in(results), "test")
    assert found.indexed == 0
    assert [e.record for e in slow] == [found.found[e.folder.name].record for e in slow]


def test_writers_at_once_lose_nothing_but_time(results: Path) -> None:
    """Two boards that each know of other records save over one another: what is left is valid."""
    names = sorted(names_in(results))
    everything = {e.folder.name: e.record for e in collect.read(results)[0]}
    for part in (names[::2], names[1::2], names[::3]):
        reading.read_many(results, part, "test")
        found = reading.read_many(results, names, "test").found
        assert {name: one.record for name, one in found.items()} == everything
    assert not [path for path in (results / index.FOLDER).iterdir() if path.suffix != ".npz"]


def test_results_that_cannot_be_written_to_have_no_index(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(index.Index, "started", refuse)
    assert len(collect.read(results, index=True)[0]) == len(collect.read(results)[0])
    assert not (results / index.FOLDER).exists()


def test_contributions_from_the_index_are_the_same_to_the_bit(results: Path) -> None:
    from seqbench.board import examples

    collect.read(results, index=True)
    kept = {e.folder: e for e in collect.read(results, index=True)[0]}
    kinds = set()
    for entry in collect.read(results)[0]:
        if not examples.headline(entry.record, "test"):
            continue
        (fast, why), (slow, reason) = examples.read(kept[entry.folder], "test"), examples.read(entry, "test")
        assert why == reason
        if slow is not None and fast is not None:
            kinds.add((slow.aggregate is None, set(np.unique(slow.contributions())) != {0.0}))  # type: ignore[union-attr]
            assert np.array_equal(slow.contributions(), fast.contributions())
            assert (slow.group, len(slow)) == (fast.group, len(fast))
    assert {kind for kind, _ in kinds} == {True, False}  # means, and what is none


@pytest.mark.parametrize("values", [[0, 1, 255], [0.25, 1.0, 0.0], [0, 256], [1, -1], [1.0, float("nan")], [1e-9, 1.0]])
def test_values_are_kept_as_they_are(values: list[float]) -> None:
    """Small whole numbers in a byte each, and nothing else."""
    builder = index.Builder()
    for name, given in (("before", [1.0, 0.0]), ("it", values)):
        told = Examples(values={"value": np.array(given, dtype=np.float64)}, aggregate=None, group="g"), None
        builder.add(name, (index.ABSENT, index.ABSENT), (), [], told)
    shard = builder.shard()
    for found, row in ((shard, 1), (index.joined([(shard, np.array([1]))]), 0)):
        kept, _ = found.told(row, "g") or (None, None)
        assert kept is not None
        assert kept.values is not None
        assert np.array_equal(kept.values.astype(np.float64), values, equal_nan=True)
        assert (kept.values.dtype == np.uint8) == (values == [0, 1, 255])


# -- records in pieces -------------------------------------------------------------------------------------------------
def paths(results: Path) -> list[Path]:
    """Records made up, and all that are published."""
    return [*results.glob(f"*/{NAME}"), *(ROOT / "results" / "published").glob(f"*/{NAME}")]


def test_pieces_give_the_record_that_the_whole_gives(results: Path) -> None:
    there, cut_up = Values(), 0
    for path in paths(results):
        if path.parent.name == "damaged":
            continue
        _, _, record = there.read(path.read_bytes())
        whole = read(path)
        assert record == whole
        assert record.model_fields_set == whole.model_fields_set
        assert record.model_dump_json() == whole.model_dump_json()
        cut_up += 1
    assert cut_up > 80


def test_equal_pieces_are_one_object(results: Path) -> None:
    records = [e.record for e in collect.read(results, index=True)[0] if e.record.task.name == "task_01"]
    assert len(records) == 6
    assert len({id(record.code) for record in records}) == len({id(record.config["task"]) for record in records}) == 1


@pytest.mark.parametrize("kind", ["one byte", "a field more", "a field twice", "of another version", "cut", "compact"])
def test_what_is_wrong_in_a_file_is_found_in_pieces_too(results: Path, kind: str) -> None:
    """Every single byte of a file changed: pieces never accept what the whole refuses, nor read it otherwise."""
    path = one(results) / NAME
    content = path.read_bytes()
    edits = {
        "a field more": [content.replace(b'{\n  "schema', b'{\n  "more": 1,\n  "schema')],
        "a field twice": [content.replace(b'{\n  "schema', b'{\n  "seed": 99,\n  "schema')],
        "of another version": [content.replace(b'"schema_version": 1', b'"schema_version": 2')],
        "cut": [content[:-3], content[: len(content) // 2], b""],
        "compact": [json.dumps(json.loads(content)).encode()],
        "one byte": [
            content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
            for at, bit in zip(range(0, len(content), 37), [1, 4, 16, 32] * len(content), strict=False)
        ],
    }[kind]
    for edited in edits:
        path.write_bytes(edited)
        whole: Record | None = None
        with contextlib.suppress(RecordError):
            whole = read(path)
        try:
            found: Record | None = Values().read(edited)[2]
        except NotOurs:
            found = None
        assert found is None or found == whole


def test_a_line_within_a_field_is_no_field() -> None:
    """A nested line that is indented as the top level is: pieces that are no JSON."""
    content = b'{\n  "schema_version": 1,\n  "code": {"files": {},\n  "commit": null}\n}\n'
    layout, pieces = cut(content.replace(b'"commit"', b'"seed"'))
    assert layout == ("schema_version", "code", "seed")
    assert pieces[1] == b'{"files": {}'
    with pytest.raises(NotOurs):
        Values().read(content)


def test_a_record_without_later_fields_is_read(results: Path) -> None:
    record = Store(results).all()[0][0]
    text = record.model_dump_json(indent=2, exclude={"invariance", "match", "sha256", "notes"}) + "\n"
    found = Values().read(text.encode())[2]
    assert found.invariance == {}
    assert found.match is None
    assert "match" not in found.model_fields_set


def test_no_folder_is_made_where_there_are_no_results(tmp_path: Path) -> None:
    assert collect.read(tmp_path / "typed_wrong", index=True) == ([], [])
    assert not (tmp_path / "typed_wrong").exists()


@pytest.mark.parametrize("indent", [2, None])
@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_curve_is_the_list_of_its_points(number: int, indent: int | None) -> None:
    points = [Point(step=i, seconds=0.5 * i, tokens=9 * i, values={"a},\n    {": i / 7}) for i in range(number)]
    text = json.dumps({"curves": [point.model_dump() for point in points]}, indent=indent)
    curve = Curve(text[text.index("[") : text.rindex("]") + 1].encode())
    assert bool(curve) == bool(points)
    if points:
        assert curve[-1] == points[-1] == curve[-1]
        assert curve[-1] is curve[-1]
    assert len(curve) == number
    assert curve == points
    assert points == curve
    assert list(curve) == points
    assert curve[1:] == points[1:]
    assert curve != [*points, *points, Point(step=0, seconds=0.0, tokens=0, values={})]
    if points:
        assert curve[-1] == points[-1]


def test_the_last_point_of_a_curve_makes_no_other(monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
    reading.read_many(results, names_in(results), "test")
    found = reading.read_many(results, names_in(results), "test").found
    whole = {entry.record.id: entry.record for entry in collect.read(results)[0]}
    monkeypatch.setattr(Curve, "_all", lambda _: pytest.fail("all points were made"))
    assert len(found) > 60
    for name, one in found.items():
        assert one.record.curves[-1] == whole[name].curves[-1]


def test_a_record_of_fewer_fields_has_the_others_defaults(results: Path) -> None:
    there = Values()
    contents = [(results / name / NAME).read_bytes() for name in sorted(names_in(results)) if name != "damaged"]
    less = []
    for content in contents[:3]:
        fields = json.loads(content)
        for name in ("sha256", "checkpoint", "studies"):
            fields.pop(name)
        less.append((json.dumps(fields, indent=2) + "\n").encode())
    for content in [*less, *contents[3:6], *less]:
        record = there.read(content)[2]
        same = Record.model_validate_json(content).model_copy(update={"sha256": None})
        assert record == same
        assert record.model_fields_set == same.model_fields_set | {"sha256"}
