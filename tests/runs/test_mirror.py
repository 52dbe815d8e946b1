"""Records put into an object store and read from there: whole or not at all, once, the same board, nothing outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

from seqbench import leaderboard
from seqbench.benchmark import made_up
from seqbench.claims import command as claims
from seqbench.errors import ConfigError
from seqbench.records import fetch, mirror
from seqbench.records.store import NAME, Store
from seqbench.tuning import trial_config
from seqbench.verify import command as verify
from tests.seqbench import board_records as made
from tests.seqbench.toy_cli import BASE, Toy
from tests.seqbench.toy_config import toy_config

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "memory://bucket/runs"
SHORT = ("budget.steps=2", "budget.eval_every=2", "trainer.invariance_rows=0")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Memory's store empty before and after; a cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield tmp_path / "cache" / "seqbench" / "mirrors"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def there() -> dict[str, bytes]:
    """What memory holds, by path."""
    return {path: file.getvalue() for path, file in MemoryFileSystem.store.items()}


def below(folder: Path) -> dict[str, bytes]:
    """Files below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def board(results: str | Path, out: Path, *more: str) -> dict[str, bytes]:
    """The files of a board."""
    assert leaderboard.main([f"results={results}", f"out={out}", "draws=100", *more]) == 0
    return {name: (out / name).read_bytes() for name in leaderboard.FILES.values()}


def study(folder: Path) -> list[str]:
    """Records with everything on a board; their ids."""
    made_up.write(folder, made_up.Shape(encoders=3, tasks=5, seeds=2, examples=40))
    return sorted(path.parent.name for path in folder.glob(f"*/{NAME}"))


# -- put -----------------------------------------------------------------------------------------------------------
def test_a_finished_run_is_in_the_mirror_with_all_that_belongs_to_it(toy: Toy) -> None:
    assert toy(*SHORT, f"mirror={BUCKET}").code == 0
    folder = toy.records()[0].parent
    names = {"record.json", "predictions.parquet", "weights.safetensors"}
    assert there() == {f"/bucket/runs/{folder.name}/{name}": (folder / name).read_bytes() for name in names}
    assert names < set(below(folder))  # curves stay
    record = Store(folder.parent).find(folder.name)
    assert record is not None
    assert "mirror" not in record.config
    again = toy(*SHORT)
    assert "has a record already" in again.out  # the mirror is no part of the id


@pytest.mark.parametrize("which", ["weights.safetensors", "predictions.parquet", "record.json"])
def test_a_put_that_fails_loses_nothing_and_is_made_good_by_the_same_command(
    which: str, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = MemoryFileSystem.put_file

    def broken(self: Any, here: str, path: str, **keys: Any) -> None:
        if path.endswith(which):
            raise PermissionError("no such key\nwas given")
        whole(self, here, path, **keys)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", broken)
        said = toy(*SHORT, f"mirror={BUCKET}")
    this = toy.records()[0].parent.name
    assert said.code == 1
    line = next(line for line in said.err.splitlines() if line.startswith("mirror: "))
    assert line.startswith(
        f"mirror: record {this} could not be put into {BUCKET} (PermissionError: no such key was given)"
    )
    assert line.endswith("the same command again puts it there")
    assert not any(path.endswith(NAME) for path in there())
    before = toy.records()[0].read_bytes()
    again = toy(*SHORT, f"mirror={BUCKET}")
    assert again.code == 0
    assert "has a record already" in again.out
    assert there()[f"/bucket/runs/{this}/{NAME}"] == before == toy.records()[0].read_bytes()


def test_another_record_of_a_run_takes_the_place_of_the_first_and_is_never_mixed_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    this = study(results)[0]
    assert mirror.bring(results, [this], BUCKET) is None
    before = there()
    puts: list[str] = []
    whole = MemoryFileSystem.put_file

    def seen(self: Any, here: str, path: str, **keys: Any) -> None:
        puts.append(path.rpartition("/")[2])
        assert f"/bucket/runs/{this}/{NAME}" not in there()  # while files change, there is no record
        whole(self, here, path, **keys)

    monkeypatch.setattr(MemoryFileSystem, "put_file", seen)
    assert mirror.bring(results, [this], BUCKET) is None
    assert not puts  # it is there
    record = Store(results).find(this)
    assert record is not None
    Store(results).write(record.model_copy(update={"studies": ["another"]}))
    assert mirror.bring(results, [this], BUCKET) is None
    assert puts == ["predictions.parquet", NAME]
    assert there()[f"/bucket/runs/{this}/{NAME}"] != before[f"/bucket/runs/{this}/{NAME}"]
    monkeypatch.undo()
    (results / this / "verified.json").write_text("{}")
    assert mirror.bring(results, [this], BUCKET) is None
    assert there()[f"/bucket/runs/{this}/verified.json"] == b"{}"


def test_failures_are_put_with_their_traceback_and_what_is_to_go_on_is_not(tmp_path: Path) -> None:
    for status in ("failed", "interrupted", "timed_out", "diverged"):
        made.write(tmp_path, encoder=status, status=status, reason="why")  # type: ignore[arg-type]
    ids = {path.parent.name: path.parent for path in tmp_path.glob(f"*/{NAME}")}
    for folder in ids.values():
        (folder / "error.log").write_text("Traceback")
    (tmp_path / "0123456789abcdef").mkdir()
    (tmp_path / "0123456789abcdef" / NAME).write_text("{")
    assert mirror.bring(tmp_path, [*ids, "0123456789abcdef", "fedcba9876543210"], BUCKET) is None
    records, _ = Store(tmp_path).all()
    expected = {f"/bucket/runs/{r.id}/{NAME}" for r in records if r.status in ("failed", "diverged")}
    traced = {f"/bucket/runs/{r.id}/error.log" for r in records if r.status == "failed"}
    assert len(expected) == 2
    assert {path for path in there() if path.endswith((NAME, "error.log"))} == expected | traced


def test_a_sweep_puts_what_was_there_before_and_says_once_what_fails(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = (*SHORT, "-m", "seed=0,1")
    assert toy(*grid).code == 0
    ids = {path.parent.name for path in toy.records()}
    assert len(ids) == 2
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "cat_file", lambda *_, **__: (_ for _ in ()).throw(TimeoutError("asleep")))
        failing = toy(*grid, f"mirror={BUCKET}")
    assert failing.code == 1
    assert failing.err.count("mirror: ") == 1
    assert "2 of 2 records could not be put" in failing.err
    assert toy(*grid, f"mirror={BUCKET}").code == 0
    assert {path.split("/")[3] for path in there()} == ids


@pytest.mark.slow
def test_processes_of_a_sweep_put_what_they_make(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "bring", lambda *_: None)  # of this process: theirs has done it
    said = toy(*SHORT, "-m", "seed=0,1", "jobs=2", "mirror=file://mirror", base=[*BASE, "trainer.progress=false"])
    assert said.code == 0, said.err
    records = toy.records()
    assert len(records) == 2
    for path in records:
        assert (toy.work / "mirror" / path.parent.name / NAME).read_bytes() == path.read_bytes()


def test_trials_of_a_tuning_stay_where_they_are(tmp_path: Path) -> None:
    tune = {"trials": 1, "sampler": "random", "seed": 0, "space": {"optimizer.lr": {"low": 0.1, "high": 1.0}}}
    config = toy_config(tmp_path, {"mirror": BUCKET, "tune": tune})
    assert config.mirror == BUCKET
    assert trial_config(config, {"optimizer.lr": 0.2}).mirror is None


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("bucket/runs", "mirror: bucket/runs is no address; give one such as s3://bucket/prefix"),
        ("s3://", "mirror: s3:// is no address"),
        ("nosuch://bucket/runs", "mirror: nosuch://bucket/runs: no such protocol"),
        (
            "lacking://bucket/x",
            "mirror: lacking://bucket/x: its driver is not installed here: Install lacking to have it",
        ),
        ("simplecache::memory://x", "mirror: simplecache::memory://x has "),
        ("sftp://me:secret@host/x", "mirror: an address with a password in it"),
        ("file://{work}/results", "is the folder of results itself"),
    ],
)
def test_what_can_not_be_a_mirror_is_said_in_a_line_before_anything_is_done(
    address: str, said: str, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = {"class": "no_such_package.System", "err": "Install lacking to have it"}
    monkeypatch.setitem(known_implementations, "lacking", driver)
    for arguments in ([], ["-m", "seed=0,1"]):
        told = toy(*SHORT, *arguments, f"mirror='{address.format(work=toy.work)}'")
        assert told.code == 2
        assert said in told.err
        assert "secret" not in told.err
        assert len(told.err.splitlines()) == 1
    assert not toy.left


def test_no_config_file_says_where_records_are_sent(toy: Toy) -> None:
    toy.write("experiment/sent.yaml", f"# @package _global_\nmirror: {BUCKET}\n")
    told = toy("experiment=sent")
    assert told.code == 2
    assert "mirror: only the command line and configs/train.yaml say where records are sent" in told.err
    assert not there()


# -- read ----------------------------------------------------------------------------------------------------------
def test_a_board_of_a_mirror_is_that_of_the_folder_and_fetches_what_is_new(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    ids = study(results)
    assert mirror.bring(results, ids, BUCKET) is None
    here, far = board(results, tmp_path / "here"), board(BUCKET, tmp_path / "far")
    assert f"fetching {len(ids)} of {len(ids)} records" in capsys.readouterr().err
    page = "index.html"
    assert far[page].count(f"{BUCKET}/{ids[0]}/record.json".encode()) == 2  # path and link
    assert far.pop(page).replace(BUCKET.encode(), b"../results") == here.pop(page)
    assert far == here
    assert str(cache).encode() not in b"".join(far.values())

    fetched: list[str] = []
    whole = MemoryFileSystem.get_file
    monkeypatch.setattr(
        MemoryFileSystem,
        "get_file",
        lambda s, path, *rest, **keys: (fetched.append(path), whole(s, path, *rest, **keys)),
    )
    board(BUCKET, tmp_path / "far")
    assert fetched == []
    record = Store(results).find(ids[0])
    assert record is not None
    Store(results).write(record.model_copy(update={"encoder": record.encoder.model_copy(update={"label": "renamed"})}))
    assert mirror.bring(results, ids, BUCKET) is None
    assert "renamed" in board(BUCKET, tmp_path / "far")["leaderboard.md"].decode()
    assert {path.split("/")[3] for path in fetched} == {ids[0]}
    del MemoryFileSystem.store[f"/bucket/runs/{ids[1]}/{NAME}"]  # not whole, so not there
    (where,) = cache.iterdir()
    assert (where / ids[1]).is_dir()
    board(BUCKET, tmp_path / "far")
    assert not (where / ids[1]).exists()
    (where / ids[2] / NAME).unlink()
    board(BUCKET, tmp_path / "far")
    assert fetched[-1].endswith(f"{ids[2]}/{NAME}")
    other = bytes(reversed((where / ids[2] / NAME).read_bytes()))  # of the same size
    MemoryFileSystem().pipe_file(f"/bucket/runs/{ids[2]}/{NAME}", other)
    assert (fetch.fetched(BUCKET, cache) / ids[2] / NAME).read_bytes() == other


def test_records_that_were_changed_in_the_store_are_left_out(tmp_path: Path) -> None:
    results = tmp_path / "results"
    ids = study(results)
    assert mirror.bring(results, ids, BUCKET) is None
    system = MemoryFileSystem()
    content = json.loads(system.cat_file(f"/bucket/runs/{ids[0]}/{NAME}"))
    system.pipe_file(f"/bucket/runs/{ids[0]}/{NAME}", json.dumps(content | {"seed": 77}).encode())
    system.pipe_file(f"/bucket/runs/{ids[1]}/{NAME}", system.cat_file(f"/bucket/runs/{ids[2]}/{NAME}"))
    page = board(BUCKET, tmp_path / "far")["index.html"].decode()
    assert f"{ids[0]}/record.json: was edited after it was written" in page
    assert f"{ids[1]}/record.json: is the record of {ids[2]}" in page


def test_a_listing_writes_nowhere_but_in_its_folder(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    this = "0123456789abcdef"
    hostile = [
        *("../../../escaped/record.json", "/etc/record.json", f"{this}/../../escaped/record.json"),
        *(
            f"../{this}/record.json",
            f"{this}/sub/record.json",
            f"{this}/.ssh",
            ".mirror/address",
            f"{this.upper()}/{NAME}",
        ),
        *(f"{this}/record.json\n", f"x{this}/record.json", "record.json"),
        "fedcba9876543210/predictions.parquet",  # of no record
    ]
    root = "/bucket/runs"
    listing = {f"{root}/{name}": {"name": f"{root}/{name}", "size": 2} for name in (*hostile, f"{this}/{NAME}")}
    listing[f"{root}/{this}/{NAME}"]["name"] = "/bucket/runs/../elsewhere"  # what it calls itself does not count
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *_, **__: listing)
    got: list[tuple[str, str]] = []

    def get(self: Any, theirs: list[str], ours: list[str], **keys: Any) -> None:
        got.extend(zip(theirs, ours, strict=True))
        for path in ours:
            Path(path).write_text("{}")

    monkeypatch.setattr(MemoryFileSystem, "get", get)
    folder = fetch.fetched(BUCKET, cache)
    assert [theirs for theirs, _ in got] == [f"{root}/{this}/{NAME}"]
    assert {path for path in below(tmp_path) if not path.startswith("cache/seqbench/mirrors/")} == set()
    assert set(below(folder)) == {f"{this}/{NAME}", ".mirror/address", ".mirror/fetched.json"}


def test_what_was_fetched_before_it_broke_off_is_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    ids = study(results)
    assert mirror.bring(results, ids, BUCKET) is None
    monkeypatch.setattr(fetch, "TOGETHER", 2)
    fetched: list[str] = []
    whole = MemoryFileSystem.get_file

    def breaks(self: Any, path: str, *rest: Any, **keys: Any) -> None:
        if len(fetched) == 5:
            raise TimeoutError("asleep")
        fetched.append(path)
        whole(self, path, *rest, **keys)

    monkeypatch.setattr(MemoryFileSystem, "get_file", breaks)
    with pytest.raises(ConfigError, match=f"results: {BUCKET} cannot be read \\(TimeoutError: asleep\\)"):
        fetch.fetched(BUCKET, cache)
    kept = set(fetched[:4])  # two batches; the third had one of two
    fetched.clear()
    monkeypatch.setattr(MemoryFileSystem, "get_file", lambda s, p, *r, **k: (fetched.append(p), whole(s, p, *r, **k)))
    folder = fetch.fetched(BUCKET, cache)
    assert not kept & set(fetched)
    assert len(kept | set(fetched)) == 2 * len(ids)
    assert not list(folder.rglob("*.tmp"))
    assert all((folder / this / NAME).read_bytes() == (results / this / NAME).read_bytes() for this in ids)


def test_verify_and_claims_read_a_mirror(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    ids = study(results)
    assert mirror.bring(results, ids, BUCKET) is None
    chosen, _ = verify.choose(verify.read_settings([f"run={ids[0][:9]}", f"results={BUCKET}"]))
    (where,) = cache.iterdir()
    assert [one.path for one in chosen] == [where / ids[0] / NAME]
    assert verify.main(["run=all", "results=memory://empty/place"]) == 2
    assert "no record under memory://empty/place" in capsys.readouterr().err
    assert claims.main(["claim=nosuch", f"results={BUCKET}"]) == 2
    assert "add run=false" in capsys.readouterr().err
    monkeypatch.setattr(claims, "_some", lambda settings, others, place: print(settings.results) or 0)
    assert claims.main(["claim=nosuch", "run=false", f"results={BUCKET}"]) == 0
    assert capsys.readouterr().out.strip() == str(where)


def test_a_folder_serves_processes_of_one_machine(tmp_path: Path) -> None:
    results, place = tmp_path / "results", tmp_path / "mirror"
    ids = study(results)
    address = f"file://{place}"
    assert mirror.bring(results, ids, address) is None
    files = {name: content for name, content in below(results).items() if "/" in name}
    assert below(place) == files
    words = [f"results={address}", f"out={tmp_path / 'far'}", "draws=100"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "leaderboard.py"), *words],
        capture_output=True, text=True, check=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert f"fetching {len(ids)} of" in ran.stderr
    here = board(results, tmp_path / "here")
    for name in ("leaderboard.md", "leaderboard.csv", "leaderboard.tex"):
        assert (tmp_path / "far" / name).read_bytes() == here[name]


def test_on_a_disk_nobody_sees_half_of_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, place = tmp_path / "results", tmp_path / "mirror"
    this = study(results)[0]
    whole = LocalFileSystem.put_file

    def dies(self: Any, here: str, path: str, **keys: Any) -> None:
        whole(self, here, path, **keys)
        if here.endswith(NAME):
            Path(path).write_text("{")
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "put_file", dies)
        with pytest.raises(KeyboardInterrupt):
            mirror.bring(results, [this], f"file://{place}")
    assert not (place / this / NAME).exists()
    assert mirror.bring(results, [this], f"file://{place}") is None
    assert below(place) == {name: content for name, content in below(results).items() if name.startswith(this)}
