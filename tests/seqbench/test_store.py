"""Records on disk: written whole or not at all, read strictly, damage said."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from seqbench.errors import RecordError
from seqbench.record import Code, EncoderFacts, Environment, Point, Record, TaskFacts
from seqbench.records.claim import Claimed, claim
from seqbench.records.store import Store, read, write_atomic


def record(run_id: str = "a1", **changes: Any) -> Record:
    return Record(
        **{
            "id": run_id,
            "status": "finished",
            "task": TaskFacts(name="t", kind="T", version=1, data_version=1, modality="text"),
            "encoder": EncoderFacts(name="e", label="e", family="toy", target="m.E"),
            "protocol": "full",
            "seed": 0,
            "config": {"lr": 1e-3, "word": "\N{LATIN SMALL LETTER E WITH ACUTE}"},
            "curves": [Point(step=1, seconds=0.1, tokens=3, values={"train/loss": 1 / 3})],
            "code": Code(commit=None, dirty=None, source_sha256="0"),
            "environment": Environment(
                python="3",
                platform="p",
                machine_class="m",
                device="cpu",
                devices=1,
                threads=1,
                precision="32-true",
                deterministic=True,
                packages={},
            ),
            "started": "2026-01-01T00:00:00+00:00",
            "ended": "2026-01-01T00:00:01+00:00",
            **changes,
        }
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    assert store.find("a1") is None
    assert store.all() == ([], [])
    store.write(record())
    store.write(record("a0"))
    assert store.find("a1") == record()
    assert [r.id for r in store.all()[0]] == ["a0", "a1"]
    assert sorted(p.name for p in (tmp_path / "results" / "a1").iterdir()) == ["record.json"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"schema_version": 1, "id"', "is no JSON object"),
        ("[1]", "is no JSON object"),
        ('{"schema_version": 2}', "has schema_version 2, this SeqBench reads 1"),
        ("{}", "has schema_version None"),
        ('{"schema_version": 1}', "id: Field required"),
    ],
)
def test_damage_is_said_and_hides_nothing(content: str, reason: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(record())
    (tmp_path / "b2").mkdir()
    path = tmp_path / "b2" / "record.json"
    path.write_text(content)
    records, damages = store.all()
    assert [r.id for r in records] == ["a1"]
    assert [d.path for d in damages] == [path]
    assert reason in damages[0].reason
    assert damages[0].reason.count("\n") == 0
    with pytest.raises(RecordError, match=reason):
        store.find("b2")


def test_a_field_too_many_and_a_wrong_value_are_named(tmp_path: Path) -> None:
    path = Store(tmp_path).write(record())
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"cost": content["cost"] | {"karma": 1}}))
    with pytest.raises(RecordError, match=r"has a field 'cost\.karma' that this SeqBench does not know; update it"):
        read(path)
    path.write_text(json.dumps(content | {"status": "great"}))
    with pytest.raises(RecordError, match=r"status: Input should be 'finished', 'diverged'"):
        read(path)


@pytest.mark.parametrize(("version", "said"), [(2, "2"), (None, "None")])
def test_another_version_is_not_read_even_where_all_else_fits(version: int | None, said: str, tmp_path: Path) -> None:
    path = Store(tmp_path).write(record())
    content = json.loads(path.read_text())
    del content["schema_version"]
    path.write_text(json.dumps(content | ({"schema_version": version} if version else {})))
    with pytest.raises(RecordError, match=f"has schema_version {said}, this SeqBench reads 1"):
        read(path)


def test_a_record_in_a_folder_of_another_name_is_damage(tmp_path: Path) -> None:
    path = Store(tmp_path).write(record())
    path.parent.rename(tmp_path / "z")
    assert "is the record of a1" in Store(tmp_path).all()[1][0].reason


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    write_atomic(path, b"old")

    def fail(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(RecordError, match=r"cannot be written to \(file exists\); choose another folder"):
        Store(tmp_path / "results").check_writable()


def test_claim_is_one_process_at_a_time_and_dies_with_it(tmp_path: Path) -> None:
    hold = (
        "import sys, time; from pathlib import Path; from seqbench.records.claim import claim\n"
        "with claim(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    folder = tmp_path / "a1"
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", hold, str(folder)], stdout=subprocess.PIPE, cwd=root) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Claimed, match=f"process {holder.pid} on .* works on this run"), claim(folder):
            pass
        holder.kill()
    assert (folder / "lock").is_file()  # left by the dead
    with claim(folder):
        assert (folder / "lock").read_text().startswith(f"process {os.getpid()} ")
    assert not folder.exists()  # nothing came of it
