"""Records verified away from where they were made: unsealed words, verdicts that stand, claimed runs, moved data."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest
from pyarrow import parquet

from seqbench.composition.compose import own_loader
from seqbench.records import claim as claims
from seqbench.records import predictions, verified
from seqbench.records.claim import claim, holder
from seqbench.records.store import read
from seqbench.run import run
from seqbench.studies.study import plan_sweep
from seqbench.verify.command import USER_ERROR
from tests.seqbench.toy_config import toy_config
from tests.seqbench.verifying import ALLOWED, edit, outcome, records, said


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("made") / "results"
    for changes in ({}, {"seed": 1}):
        run(toy_config(results, {"budget.steps": 8, **changes}))
    return results


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "results"))


# -- whose word counts -------------------------------------------------------------------------------------------------
def test_an_unsealed_record_does_not_loosen_exactness_in_silence(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = records(results)[0]

    def elsewhere(record: dict[str, object]) -> None:
        record["predictions"] = None
        record["scores"]["test"]["hits"]["value"] += 0.01  # type: ignore[index]
        record["environment"] |= {"machine_class": "abacus, 1 thread", "python": "3.99.1"}  # type: ignore[operator]

    edit(path, elsewhere)
    found = outcome(capsys, f"run={path}")
    assert found["verdict"] == "within_tolerance"
    assert found["reason"].endswith("tolerance 0.02, by the word of a record without a seal")
    line = "environment: machine_class, python of a record without a seal is why the tolerance 0.02 was taken"
    assert any(text.startswith(line) for text in found["differences"])
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"sha256": seal(content)}))
    sealed = outcome(capsys, f"run={path}")
    assert sealed["verdict"] == "within_tolerance"
    assert sealed["reason"].endswith("tolerance 0.02")
    assert not any(text.startswith("environment: ") for text in sealed["differences"])


def seal(content: dict[str, object]) -> str:
    from seqbench.records.store import _seal

    return _seal(content)


def test_determinism_is_what_the_config_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / run(toy_config(tmp_path, {"budget.steps": 8, "deterministic": False})).record.id / "record.json"
    edit(path, lambda r: r["scores"]["test"]["hits"].update(value=r["scores"]["test"]["hits"]["value"] + 0.01))
    edit(path, lambda r: r.update(predictions=None))
    assert outcome(capsys, f"run={path}")["verdict"] == "within_tolerance"
    edit(path, lambda r: r["environment"].update(deterministic=True))
    found = outcome(capsys, f"run={path}")
    assert found["verdict"] == "different"
    assert "environment: deterministic True, against the record's own config" in found["differences"]


# -- verdicts that stand -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("flat", [False, True])
def test_impossible_does_not_replace_a_verdict_that_stands(
    flat: bool, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = records(results)[0]
    name = verified.NAME
    if flat:
        path = Path(shutil.copy(path, results / "toy.json"))
        name = f"toy.{verified.NAME}"
    assert outcome(capsys, f"run={path}")["verdict"] == "identical"
    assert said(capsys, f"run={path}")[0] == 1  # the toys are in no package that is allowed by default
    assert json.loads((path.parent / name).read_text())["verdict"] == "identical"
    edit(path, lambda record: record.update(seed=5))  # of another record, no verdict stands
    assert said(capsys, f"run={path}")[0] == 1
    assert json.loads((path.parent / name).read_text())["verdict"] == "impossible"


# -- claimed -----------------------------------------------------------------------------------------------------------
def test_a_run_that_a_live_process_works_on_is_not_verified(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = records(results)
    with claim(one.parent):
        code, out, err = said(capsys, f"run={one}", ALLOWED)
        assert (code, out) == (USER_ERROR, "")
        assert err.startswith(f"{one.parent}: process ")
        assert err.endswith(" works on this run; wait for it, then verify\n")
        code, out, _ = said(capsys, "run=all", f"results={results}", ALLOWED)
        assert code == USER_ERROR
        assert out.endswith("1 of 2 verified; 1 not looked at, which are being worked on\n")
        shutil.copytree(one.parent, results / ("0" * 16), ignore=shutil.ignore_patterns("record.json"))
    assert [path.parent for path in (one, other) if (path.parent / verified.NAME).exists()] == [other.parent]
    assert said(capsys, f"run={one}", ALLOWED)[0] == 0
    with claim(results / ("0" * 16)):
        code, _, err = said(capsys, f"run={'0' * 16}", f"results={results}")
    assert code == USER_ERROR
    assert f"works on {'0' * 16}, which has no record yet" in err


def test_who_holds_a_claim_is_told_without_touching_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert holder(tmp_path / "nowhere") is None
    with claim(tmp_path / "run"):
        assert str(holder(tmp_path / "run")).startswith("process ")
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead" / claims.NAME).write_text("process 1 on moon")
    assert holder(tmp_path / "dead") is None
    monkeypatch.setattr(claims, "_lock", refuse)
    with claim(tmp_path / "made"):
        assert str(holder(tmp_path / "made")).startswith("process ")
        assert [path.name for path in (tmp_path / "made").iterdir()] == [f"{claims.NAME}.x"]


def refuse(path: Path) -> int:
    raise OSError(errno.ENOLCK, "no locks here")


# -- own data ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def own(tmp_path: Path) -> tuple[Path, Path]:
    """The record of a run on a file of one's own, and the file."""
    file = tmp_path / "stars.csv"
    file.write_text("text,label\n" + "".join(f"word {i},{'ab'[i % 2]}\n" for i in range(40)))
    words = ["encoder=majority", "task=own_classification", f"task.data.train={file}", f"results={tmp_path / 'r'}"]
    record = run(plan_sweep([*words, "trainer.progress=false"], loader=own_loader()).cells[0].config).record
    return tmp_path / "r" / record.id / "record.json", file


def test_data_that_was_moved_and_renamed_is_found_by_its_checksum(
    own: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, file = own
    sha256 = read(path).data[0].sha256
    (tmp_path / "there").mkdir()
    moved = file.rename(tmp_path / "there" / "ratings.csv")
    lost = outcome(capsys, f"run={path}")
    assert lost["verdict"] == "impossible"
    assert lost["reason"] == (
        f"task.data.train: {file} is not there; data=PATH says where stars.csv lies now, itself or its folder; "
        f"it must have the sha256 {sha256}"
    )
    for place in (moved, moved.parent, f"[{path},{moved}]"):
        found = outcome(capsys, f"run={path}", f"data={place}")
        assert (found["verdict"], found["differences"]) == ("identical", [])
    moved.write_text(moved.read_text().replace("word 7", "word x"))
    for place in (moved, moved.parent):
        other = outcome(capsys, f"run={path}", f"data={place}")
        assert other["verdict"] == "impossible"
        assert f"it is not in {place}; " in other["reason"]
        assert sha256 in other["reason"]
    assert "data: nowhere is not there" in outcome(capsys, f"run={path}", "data=nowhere")["reason"]


def test_data_where_it_was_needs_no_word(own: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    path, file = own
    assert outcome(capsys, f"run={path}")["verdict"] == "identical"
    file.write_text(file.read_text().replace("word 7", "word x"))
    found = outcome(capsys, f"run={path}")
    assert found["verdict"] == "impossible"
    assert found["reason"].startswith("data file stars.csv: sha256 ")


def test_a_record_from_before_rows_had_their_lines_is_verified_alone(
    own: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """As published ones are, without the file of predictions: its checksum was that of the file without lines."""
    path, _ = own
    file = path.parent / predictions.NAME
    before = predictions.without_lines(parquet.read_table(file))
    file.unlink()
    edit(path, lambda record: record["predictions"].update(sha256=before))
    found = outcome(capsys, f"run={path}")
    assert (found["verdict"], found["rows_moved"]) == ("identical", 0)
    assert found["rows"] > 0
    edit(path, lambda record: record["predictions"].update(sha256="0" * 64))
    assert outcome(capsys, f"run={path}")["reason"].endswith("predictions differ")


def test_data_of_a_run_that_reads_no_own_files(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = outcome(capsys, f"run={records(results)[0]}", f"data={results}")
    assert found["reason"] == "data: the record's data set reads no files of yours, so there is nothing to find in it"
