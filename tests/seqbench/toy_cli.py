"""The command line in this process, over the toy's config files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from seqbench import cli
from tests.seqbench.toy_config import TREE

ALLOWED = "allowed=[encoders,tasks,torch.optim,tests.seqbench.toy]"
BASE = ["encoder=toy", "task=toy", "budget=toy", "trainer.threads=1", ALLOWED]
STUDY = {
    "name": "tiny",
    "title": "Tiny",
    "grid": [
        {"encoder": ["toy", "majority"], "task": "toy", "seed": [0, 1]},
        {"encoder": ["repeat_last"], "task": "toy", "seed": 0},
    ],
    "set": {
        "budget": "toy",
        "trainer.threads": 1,
    },
    "by_encoder": {"toy": {"encoder.dim": 6}},
}


@dataclass
class Said:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """All of stderr in one line, for searching."""
        return " ".join(self.err.split())


class Toy:
    """A folder of configs beside an empty working directory; `toy("encoder.dim=3")` runs the command line."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.configs, self.work, self.capture = folder / "my_configs", folder / "work", capture
        self.work.mkdir()
        for group in ("encoder", "task", "budget"):
            self.write(f"{group}/toy.yaml", TREE[group])
        broken = {"_target_": "tests.seqbench.toy.BrokenEncoder", "dim": 4, "dropout": 0.1, "how": "nan", "at": 3}
        self.write("encoder/broken.yaml", broken)
        self.write("study/tiny.yaml", STUDY)

    def write(self, name: str, content: object) -> None:
        """A config file; text is written as it is."""
        file = self.configs / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))

    def __call__(self, *arguments: str, base: Sequence[str] = BASE) -> Said:
        """Run; `base` comes before the arguments, so they win. The toy is allowed, unless something else is."""
        self.capture.readouterr()
        trust = [] if any(text.startswith("allowed=") for text in (*base, *arguments)) else [ALLOWED]
        code = cli.main(["--config-dir", str(self.configs), *trust, *base, *arguments])
        said = self.capture.readouterr()
        return Said(code, said.out, said.err)

    @property
    def left(self) -> set[str]:
        """Names in the working directory."""
        return {path.name for path in self.work.iterdir()}

    def records(self) -> list[Path]:
        """Records, by time."""
        return sorted((self.work / "results").glob("*/record.json"), key=lambda path: path.stat().st_mtime)


def record_path(text: str) -> str:
    """The path that a run printed."""
    found = re.search(r"record: (\S+)", text)
    assert found, text
    return found.group(1)
