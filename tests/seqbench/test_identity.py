"""Run ids: what changes a result changes the id, what does not, does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from seqbench.build import build_task
from seqbench.config import RunConfig
from seqbench.records.identity import content, digest, run_id, source_of, without_paths
from tasks.data.base import FileFact
from tests.seqbench.toy import ToyData, ToyTask
from tests.seqbench.toy_config import broken, toy_config

ROOT = Path(__file__).resolve().parents[2]


class OwnFile(ToyData):
    """Toy rows that pretend to come from a file of the user's."""

    paths: ClassVar[frozenset[str]] = frozenset({"train"})

    def __init__(self, *, rows: int, seed: int, train: str) -> None:
        super().__init__(rows=rows, seed=seed)
        self.train = train

    def identity(self) -> list[FileFact]:
        from tasks.data.pinned import sha256_of

        return [FileFact(name="x", url="x", sha256=sha256_of(Path(self.train)))]


def identify(config: RunConfig) -> str:
    return run_id(config, build_task(config))


def of(changes: dict[str, Any] | None = None) -> str:
    return identify(toy_config(Path("results"), changes))


def test_form() -> None:
    assert len(of()) == 16
    assert set(of()) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"deterministic": False},
        {"encoder.dim": 13},
        {"encoder.dropout": 0.21},
        broken("nan", 3),
        {"task.data.rows": 43},
        {"task.max_length": 8},
        {"protocol.train": "head"},
        {"budget.steps": 21},
        {"budget.batch_size": 4},
        {"budget.eval_every": 4},
        {"budget.eval_limit": None},
        {"budget.patience": 3},
        {"budget.select": "last"},
        {"optimizer.lr": 0.01},
        {"optimizer._target_": "torch.optim.Adam"},
        {"schedule.kind": "linear"},
        {"trainer.precision": "bf16-mixed"},
        {"trainer.accumulate": 1},
        {"trainer.clip": None},
        {"trainer.padding_free": True},
        {"trainer.tf32": True},
        {"trainer.compile": "default"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_counts(changes: dict[str, Any]) -> None:
    assert of(changes) != of()


@pytest.mark.parametrize(
    "changes",
    [
        {"results": "elsewhere"},
        {"mirror": "memory://elsewhere"},
        {"label": "Mine"},
        {"rerun": "always"},
        {"allowed": ["tests.seqbench", "encoders", "torch.optim"]},
        {"logger": {}},
        {"budget.eval_batch_tokens": 41},
        {"trainer.workers": 2},
        {"trainer.threads": None},
        {"trainer.progress": True},
        {"trainer.accelerator": "auto"},
        {"encoder.dropout": 0.2},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_does_not_count(changes: dict[str, Any]) -> None:
    assert of(changes) == of()


def test_names_overrides_and_the_order_of_keys_do_not_count() -> None:
    config = toy_config(Path("results"))
    renamed = config.names.model_copy(update={"encoder": "other", "study": "mine"})
    assert identify(config.model_copy(update={"names": renamed, "overrides": ["seed=0"]})) == of()
    turned = dict(reversed(config.encoder.items()))
    assert identify(config.model_copy(update={"encoder": turned})) == of()


def test_one_and_one_point_nought_are_one_run() -> None:
    assert of({"encoder.dropout": 0}) == of({"encoder.dropout": 0.0})
    assert of({"trainer.clip": 1}) == of({"trainer.clip": 1.0})


def test_versions_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = of()
    monkeypatch.setattr(ToyTask, "version", 2)
    task = of()
    monkeypatch.setattr(ToyData, "version", 2)
    assert len({before, task, of()}) == 3


def test_bytes_of_pinned_files_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = of()
    fact = FileFact(name="a", url="u", sha256="0" * 64)
    monkeypatch.setattr(ToyData, "identity", lambda self: [fact])
    one = of()
    monkeypatch.setattr(ToyData, "identity", lambda self: [FileFact(name="b", url="v", sha256="0" * 64)])
    assert one != before
    assert of() == one  # a name or address does not


def test_a_users_file_counts_by_its_bytes_not_its_place(tmp_path: Path) -> None:
    ids = []
    for name, text in [("a.csv", "x"), ("b.csv", "x"), ("c.csv", "y")]:
        (tmp_path / name).write_text(text)
        data = {"_target_": f"{__name__}.OwnFile", "rows": 4, "seed": 1, "train": str(tmp_path / name)}
        ids.append(of({"task.data": data, "allowed": ["tests.seqbench.toy", __name__, "torch.optim"]}))
    assert ids[0] == ids[1] != ids[2]


def test_a_checkpoints_folder_counts_by_its_content(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "w.bin").write_bytes(b"1")
    assert content(str(tmp_path / "a")) == content(str(tmp_path / "b"))
    (tmp_path / "b" / "w.bin").write_bytes(b"22")
    assert content(str(tmp_path / "a")) != content(str(tmp_path / "b"))
    (tmp_path / "a" / "w.bin").rename(tmp_path / "a" / "v.bin")
    assert content(str(tmp_path / "a")) != content(str(tmp_path / "b"))


class Loads:
    """Not a data set, and with a path: a checkpoint's reader."""

    paths: ClassVar[frozenset[str]] = frozenset({"path"})


def test_paths_of_what_is_no_data_set_become_hashes(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"1")
    node = {"_target_": f"{__name__}.Loads", "path": str(tmp_path / "w"), "name": "x"}
    source = {"_source_": source_of(Loads)}
    kept = without_paths([node], (__name__,))
    assert kept == [{**node, **source, "path": content(str(tmp_path / "w"))}]
    hub = {**node, "path": "google/some-model"}  # no such folder: a name, which stays
    assert without_paths(hub, (__name__,)) == {**hub, **source}


def test_a_method_named_paths_names_no_argument() -> None:
    """Sets of pinned files have one."""
    node = {"_target_": "tasks.data.amazon_video_games.AmazonVideoGames", "core": 20}
    assert without_paths(node, ("tasks",)) == node


@pytest.mark.slow
def test_the_same_in_another_process() -> None:
    """No hash of Python's own, which differs between processes, goes into it."""
    code = "from pathlib import Path; from tests.seqbench.test_identity import of; print(of({'encoder.dim': 5}))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert other.stdout.strip() == of({"encoder.dim": 5}), other.stderr


def test_digest_is_of_canonical_json() -> None:
    import hashlib

    assert (
        digest({"b": 1, "a": [1.0, None, "ü"]})
        == hashlib.sha256('{"a":[1.0,null,"ü"],"b":1}'.encode()).hexdigest()[:16]
    )
    with pytest.raises(ValueError, match="Out of range float"):
        digest(float("nan"))


def test_an_edited_class_of_the_users_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "labnets_of_mine").mkdir()
    (tmp_path / "labnets_of_mine" / "__init__.py").touch()
    helper = tmp_path / "labnets_of_mine" / "helper.py"
    helper.write_text("SCALE = 1\n")
    (tmp_path / "labnets_of_mine" / "net.py").write_text("class Net:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    node = {"_target_": "labnets_of_mine.net.Net", "dim": 4}
    before = without_paths(node, ("labnets_of_mine",))
    assert before == without_paths(node, ("labnets_of_mine",))
    helper.write_text("SCALE = 22\n")
    assert before != without_paths(node, ("labnets_of_mine",))
    assert "_source_" not in without_paths({"_target_": "encoders.bag.Bag"}, ("encoders",))
