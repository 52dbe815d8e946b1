"""Where the curves of a run are shown while it goes on: a CSV file, Weights & Biases, TensorBoard."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from seqbench.errors import ConfigError
from seqbench.record import Record
from seqbench.records.store import write_atomic


class Sink(Protocol):
    """Takes values by step. What it holds is a view: the record's curves depend on none."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Values after `step` optimizer steps."""

    def finish(self, record: Record | None) -> None:
        """The end, with the record if there is one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What a logger is told of a run."""

    id: str
    folder: Path
    label: str
    encoder: str
    task: str
    study: str | None
    seed: int
    config: dict[str, Any]
    metrics: list[str]
    start_step: int  # steps that a resumed run has done already


def log_every(settings: Mapping[str, Mapping[str, Any]]) -> int | None:
    """Steps between two lines: those of the logger that wants most; None without loggers."""
    return min((given["every"] for given in settings.values()), default=None)


def open_sinks(settings: Mapping[str, Mapping[str, Any]], about: About) -> list[Sink]:
    """The loggers of a config."""
    makers: dict[str, Callable[[About, Mapping[str, Any]], Sink]] = {
        "csv": Csv,
        "wandb": Wandb,
        "tensorboard": TensorBoard,
    }
    return [makers[name](about, given) for name, given in settings.items()]


class Csv:
    """`metrics.csv`: a line a step that was logged, a column a value, empty where there is none."""

    def __init__(self, about: About, settings: Mapping[str, Any]) -> None:
        self.path = about.folder / "metrics.csv"
        self.columns = ["step", "train/loss", "train/lr", "valid/loss", *(f"valid/{name}" for name in about.metrics)]
        kept = self._rows_until(about.start_step)
        write_atomic(self.path, _csv([self.columns, *kept]).encode())

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line."""
        row = [str(step), *(repr(values[name]) if name in values else "" for name in self.columns[1:])]
        with self.path.open("a", newline="") as file:
            file.write(_csv([row]))

    def finish(self, record: Record | None) -> None:
        """Nothing is open."""

    def _rows_until(self, step: int) -> list[list[str]]:
        """What an interrupted run has logged, up to the checkpoint that it goes on from."""
        if not step or not self.path.is_file():
            return []
        rows = list(csv.reader(self.path.read_text().splitlines()))
        if not rows or rows[0] != self.columns:
            return []
        return [row for row in rows[1:] if len(row) == len(self.columns) and int(row[0]) <= step]


class TensorBoard:
    """Event files in `tensorboard/`."""

    def __init__(self, about: About, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = about.start_step + 1 if about.start_step else None
        self.writer = SummaryWriter(log_dir=str(about.folder / "tensorboard"), purge_step=purge)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """A scalar each."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def finish(self, record: Record | None) -> None:
        """Final scores, and the files closed."""
        for name, value in _summary(record).items():
            if isinstance(value, int | float):
                self.writer.add_scalar(f"final/{name}", value, 0)
        self.writer.close()


class Wandb:
    """Weights & Biases: offline without an account. Files lie in the run's folder."""

    def __init__(self, about: About, settings: Mapping[str, Any]) -> None:
        import wandb

        mode: Any = _mode(settings)
        self.run = wandb.init(
            dir=str(about.folder),
            mode=mode,
            project=settings.get("project") or "seqbench",
            entity=settings.get("entity"),
            group=settings.get("group") or about.study or about.task,
            job_type=about.encoder,
            name=f"{about.label}-{about.task}-s{about.seed}",
            tags=list(settings.get("tags") or ()),
            id=about.id,
            resume="allow" if mode == "online" else None,  # offline, wandb has nothing to resume and warns
            reinit="finish_previous",
            config=about.config,
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """A point of the history."""
        self.run.log(dict(values), step=step)

    def finish(self, record: Record | None) -> None:
        """Scores and cost to the summary, and the run ended."""
        self.run.summary.update(_summary(record))
        self.run.finish(exit_code=0 if record is not None and record.status == "finished" else 1)


def _summary(record: Record | None) -> dict[str, Any]:
    """Scores and costs of a record by name, flat."""
    if record is None:
        return {}
    flat: dict[str, Any] = {"status": record.status}
    for split, scores in record.scores.items():
        flat |= {f"{split}/{name}": math.nan if s.value is None else s.value for name, s in scores.items()}
    cost = record.cost.model_dump(exclude={"latency", "generation"}, exclude_none=True)
    flat |= {f"cost/{name}": value for name, value in cost.items()}
    if record.cost.latency is not None:
        times = record.cost.latency.model_dump(include={"p50_ms", "p95_ms"}, exclude_none=True)
        flat |= {f"cost/latency_{name}": value for name, value in times.items()}
    if record.cost.generation is not None:
        made = record.cost.generation.model_dump(exclude={"repeats"}, exclude_none=True)
        flat |= {f"cost/generation_{name}": value for name, value in made.items()}
    return flat


def _mode(settings: Mapping[str, Any]) -> str:
    """Weights & Biases' mode: as the config says, as its own variable says, online with an account, else offline."""
    return str(settings.get("mode") or os.environ.get("WANDB_MODE") or ("online" if has_account() else "offline"))


def check_account(settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ConfigError where curves are to go online and nobody knows to whom."""
    if "wandb" in settings and _mode(settings["wandb"]) == "online" and not has_account():
        raise ConfigError(
            "logger.wandb.mode: online, but no account is known here\n"
            "run `wandb login`, or set WANDB_API_KEY, or keep the curves here: logger.wandb.mode=offline"
        )


def has_account() -> bool:
    """Whether wandb would know who we are: a key in the environment or in the file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    with contextlib.suppress(OSError):
        return "api.wandb.ai" in netrc.read_text()
    return False


def _csv(rows: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
