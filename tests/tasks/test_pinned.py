from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pooch
import pytest
import requests
import yaml

from seqbench.data_command import main
from tasks.data import pinned
from tasks.data.base import DataError

ROOT = Path(__file__).resolve().parents[2]
CONTENT = {"a.txt": b"alpha", "sub/b.txt": b"beta"}
Fake = Callable[[str, Path], None]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache and cards of the test's own: `few` names its files, `many` lists them."""
    cards = tmp_path / "cards"
    cards.mkdir()
    about = {"title": "T", "modality": "text", "licence": "L", "citation": "C", "splits": {"train": 1}}
    files = [
        {"name": name, "url": f"https://example.org/few/{name}", "sha256": sha256(content), "size": len(content)}
        for name, content in CONTENT.items()
    ]
    (cards / "few.yaml").write_text(yaml.safe_dump(about | {"files": files}))
    (cards / "many.yaml").write_text(
        yaml.safe_dump(about | {"listing": "many.csv", "url_prefix": "https://example.org/many/"})
    )
    lines = [f"{name},{name}?raw,{sha256(content)},{len(content)}" for name, content in CONTENT.items()]
    (cards / "many.csv").write_text("\n".join(["name,path,sha256,bytes", *lines]) + "\n")
    monkeypatch.setattr(pinned, "CARDS", cards)
    monkeypatch.setenv("SEQBENCH_DATA", str(tmp_path / "cache"))
    _forget()
    yield tmp_path / "cache"
    _forget()


def _forget() -> None:
    for function in (pinned.card, pinned._listed, pinned._sha256_cached):
        function.cache_clear()


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fake], list[str]]:
    """Sets what a download does; gives the addresses that are asked for."""

    def use(fake: Fake) -> list[str]:
        asked: list[str] = []

        def download(self: Any, url: str, output: str, pooch: Any, check_only: bool = False) -> None:
            asked.append(url)
            fake(url, Path(output))

        monkeypatch.setattr(pooch.HTTPDownloader, "__call__", download)
        return asked

    return use


def good(url: str, output: Path) -> None:
    output.write_bytes(CONTENT["sub/b.txt"] if "sub/b.txt" in url else CONTENT["a.txt"])


def left(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("name", ["few", "many"])
def test_what_is_missing_is_fetched_once(name: str, folders: Path, net: Callable[[Fake], list[str]]) -> None:
    asked = net(good)
    paths = pinned.check_files(name)
    assert {file: path.read_bytes() for file, path in paths.items()} == CONTENT
    assert left(folders) == [f"{name}/a.txt", f"{name}/sub/b.txt"]
    raw = "?raw" if name == "many" else ""
    assert sorted(asked) == [f"https://example.org/{name}/{file}{raw}" for file in CONTENT]
    pinned.check_files(name)
    assert len(asked) == 2


def test_only_some_files(folders: Path, net: Callable[[Fake], list[str]]) -> None:
    net(good)
    assert list(pinned.check_files("few", only=["sub/b.txt"])) == ["sub/b.txt"]
    assert left(folders) == ["few/sub/b.txt"]
    assert not pinned.is_cached("few")


def test_a_listing_is_one_fact(folders: Path) -> None:
    assert [fact.name for fact in pinned.card("many").files] == list(CONTENT)
    [fact] = pinned.identity("many")
    assert (fact.name, fact.sha256) == ("many.csv", sha256((pinned.CARDS / "many.csv").read_bytes()))
    assert [f.name for f in pinned.identity("few")] == list(CONTENT)
    assert [f.name for f in pinned.identity("few", only=["a.txt"])] == ["a.txt"]


def _breaks(url: str, output: Path) -> None:
    output.write_bytes(b"al")
    raise requests.ConnectionError("reset by peer")


def _is_gone(url: str, output: Path) -> None:
    response = requests.Response()
    response.status_code = 404
    raise requests.HTTPError("404 Client Error", response=response)


def _is_slow(url: str, output: Path) -> None:
    raise requests.ReadTimeout


def _is_another(url: str, output: Path) -> None:
    output.write_bytes(b"alpha, a newer version")


def _fills_the_disk(url: str, output: Path) -> None:
    output.write_bytes(b"al")
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "fake, reason",
    [
        (_breaks, "no connection"),
        (_is_gone, "the server says 404"),
        (_is_slow, "doesn't answer in time"),
        (_is_another, "another sha256 than the card says"),
        (_fills_the_disk, "No space left on device"),
    ],
)
def test_a_failed_download_leaves_nothing_and_says_why(
    fake: Fake, reason: str, folders: Path, net: Callable[[Fake], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    net(fake)
    assert main(["fetch", "few"]) == 2
    said = capsys.readouterr()
    assert re.search(
        rf"few: a\.txt is not in .* could not be fetched from https://example\.org/few/a\.txt: .*{reason}", said.err
    )
    assert len(said.err.strip().splitlines()) == 2
    assert "Traceback" not in said.err
    assert not said.out
    assert left(folders) == []


def test_a_file_that_was_fetched_stays_when_the_next_fails(folders: Path, net: Callable[[Fake], list[str]]) -> None:
    net(lambda url, output: good(url, output) if "a.txt" in url else _breaks(url, output))
    with pytest.raises(DataError, match=r"sub/b\.txt is not in"):
        pinned.check_files("few")
    assert left(folders) == ["few/a.txt"]


def test_a_cache_that_cannot_be_written(folders: Path, net: Callable[[Fake], list[str]]) -> None:
    folders.write_text("a file where the folder should be")
    net(good)
    with pytest.raises(DataError, match="could not be fetched"):
        pinned.check_files("few")


def test_missing_and_damaged_files(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "few"]) == 2
    assert re.search(r"few: .*a\.txt is missing and 1 more; .*data\.py fetch few", capsys.readouterr().err)
    for name, content in CONTENT.items():
        path = folders / "few" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert main(["check", "few"]) == 0
    assert "few: 2 files in" in capsys.readouterr().out
    (folders / "few" / "a.txt").write_bytes(b"alphA!")
    assert main(["check", "few"]) == 2
    said = capsys.readouterr().err
    assert f"sha256 {sha256(b'alphA!')[:12]}..., the card says {sha256(b'alpha')[:12]}...; delete it" in said
    assert len(said.strip().splitlines()) == 1
    with pytest.raises(DataError, match="sha256"):  # it isn't overwritten either: it may be the user's
        pinned.check_files("few", download=True)


def test_a_file_that_may_not_be_read(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folders / "few").mkdir(parents=True)
    (folders / "few" / "a.txt").write_bytes(b"alpha")

    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pinned, "sha256_of", refuse)
    with pytest.raises(DataError, match=r"few: .*a\.txt can't be read \(Permission denied\)"):
        pinned.check_files("few", only=["a.txt"])


def test_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "fewer"]) == 2
    assert capsys.readouterr().err == "no data set 'fewer' (did you mean few?); pinned are: few, many\n"
    with pytest.raises(SystemExit) as stopped:
        main(["bring", "few"])
    assert stopped.value.code == 2


def test_the_list(folders: Path, net: Callable[[Fake], list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    net(good)
    pinned.check_files("few")
    assert main(["list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1] == ["few", "yes", "2", "0.0", "text", "L"]
    assert rows[2] == ["many", "no", "2", "0.0", "text", "L"]


def test_a_generated_set_is_no_download(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(pinned, "CARDS", ROOT / "tasks" / "data" / "cards")
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1] if line.split()[1] == "generated"] == ["scan"]
    assert lines[-1].startswith("generated: made by code, nothing to fetch")
    assert main(["fetch", "sst"]) == 2
    assert "(did you mean sst2?)" in capsys.readouterr().err


def test_an_interruption_leaves_nothing(folders: Path, net: Callable[[Fake], list[str]]) -> None:
    def interrupted(url: str, output: Path) -> None:
        output.write_bytes(b"al")
        raise KeyboardInterrupt

    net(interrupted)
    assert main(["fetch", "few"]) == 130
    assert left(folders) == []


def test_the_command_starts_without_torch(folders: Path) -> None:
    code = (
        "import sys; from seqbench.data_command import main; code = main(['list']);"
        "assert not {'torch', 'numpy', 'pandas', 'pooch', 'requests'} & set(sys.modules), 'slow'; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "multi30k" in done.stdout


def _cards() -> list[str]:
    return sorted(path.stem for path in (ROOT / "tasks" / "data" / "cards").glob("*.yaml"))


@pytest.mark.parametrize("name", _cards())
def test_the_projects_cards_pin_by_commit_and_sha256(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned, "CARDS", ROOT / "tasks" / "data" / "cards")
    card = pinned.card(name)
    assert card.files
    assert len({fact.name for fact in card.files}) == len(card.files)
    for fact in card.files:
        assert re.fullmatch(r"[0-9a-f]{64}", fact.sha256)
        assert re.match(r"https://.*/[0-9a-f]{40}/", fact.url), "an address without a commit can change its content"
        assert fact.size
        assert fact.size > 0
        assert not Path(fact.name).is_absolute()
        assert ".." not in Path(fact.name).parts
    assert card.licence.strip()
    assert card.citation.strip()
    assert all(count > 0 for count in card.splits.values())


@pytest.mark.data
@pytest.mark.parametrize("name", _cards())
def test_the_real_files_are_the_pinned_ones(name: str, data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned, "CARDS", ROOT / "tasks" / "data" / "cards")
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))
    paths = pinned.check_files(name, download=False)
    sizes = {fact.name: fact.size for fact in pinned.card(name).files}
    assert {file: path.stat().st_size for file, path in paths.items()} == sizes
