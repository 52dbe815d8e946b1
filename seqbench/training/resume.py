"""Checkpoints: `last` to go on from to the same last bit, `previous` should that be damaged, `best-<step>` to test.

A file is one line with the sha256 of what follows, then torch's own format: tensors and plain containers only.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from seqbench.cluster.here import Start, here
from seqbench.errors import RecordError
from seqbench.records.store import write_atomic

State = dict[str, Any]

MAGIC = b"seqbench checkpoint 1 "
LAST, PREVIOUS, ATTEMPTS = "last", "previous", "attempts"
NAMES = {  # of what a stamp tells, in words
    "torch": "torch",
    "device": "the device",
    "platform": "the platform",
    "threads": "the number of threads",
    "ranks": "the number of ranks",
    "source": "the source of SeqBench",
}


class Checkpoints:
    """The folder of a run's checkpoints. Constructing one touches nothing.

    `stamp` says what the run is (`run`: its id, which a checkpoint must share) and where (what `NAMES` names, in which
    it may differ, and then the last bits may, too).
    """

    def __init__(self, folder: Path, stamp: Mapping[str, str] | None = None) -> None:
        self.folder, self.stamp = folder, dict(stamp or {})
        self.best_of_last: int | None = None  # the best step that `last` speaks of
        self.last_name = ""  # what parts of `last` are called

    # -- attempts --------------------------------------------------------------------------------------------------
    def begin(self, now: str) -> int:
        """Note that an attempt begins, and give the number of those before it, killed without a word included.

        A line each: the time, and in a scheduler's job what job that is. Raises OSError.
        """
        before = self.attempts()
        self.folder.mkdir(parents=True, exist_ok=True)
        start = here()
        with (self.folder / ATTEMPTS).open("a") as file:
            file.write(f"{now} {start.model_dump_json()}\n" if start else f"{now}\n")
        return before

    def begun(self) -> float:
        """When the last one began that has not come to an end of its own, in the clock's seconds; 0 for none."""
        try:
            return (self.folder / ATTEMPTS).stat().st_mtime
        except OSError:
            return 0.0

    def starts(self) -> list[Start]:
        """The scheduler's jobs in which they began; none for those outside of one."""
        found = []
        with contextlib.suppress(OSError):
            for line in (self.folder / ATTEMPTS).read_text().splitlines():
                with contextlib.suppress(ValidationError):  # cut off by a full disk
                    if job := line.partition(" ")[2]:
                        found.append(Start.model_validate_json(job))
        return found

    def attempts(self) -> int:
        """How many have begun since the folder was made."""
        with contextlib.suppress(OSError):
            return len((self.folder / ATTEMPTS).read_bytes().splitlines())
        return 0

    def forget(self) -> None:
        """Attempts that have ended with all that there is to say about them; what was saved stays."""
        with contextlib.suppress(OSError):
            (self.folder / ATTEMPTS).unlink(missing_ok=True)
            self.folder.rmdir()  # where nothing was saved

    # -- written ---------------------------------------------------------------------------------------------------
    def save_best(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the weights that were the best so far after `step`. Raises OSError."""
        self._write(f"best-{step}", state)

    def save_last(self, state: Mapping[str, Any]) -> None:
        """Write what a run can go on from, and keep the one before it, each with the best weights it speaks of.

        `state["progress"]["best_step"]` says which these are. Raises OSError; what was there before then still is.
        """
        last, previous = self._path(LAST), self._path(PREVIOUS)
        if last.is_file():  # a second name for it, so that there is no moment in which it has none
            temporary = previous.with_name(f".{previous.name}.{os.getpid()}.tmp")
            temporary.unlink(missing_ok=True)
            try:
                os.link(last, temporary)
            except OSError:  # a file system without links
                shutil.copyfile(last, temporary)
            temporary.replace(previous)
        self._write(LAST, {**state, "stamp": self.stamp})
        best = state["progress"]["best_step"]
        kept = {f"best-{step}.pt" for step in (self.best_of_last, best)}
        steps = {*(f"best-{step}" for step in (self.best_of_last, best)), self.last_name, f"at-{_step(state)}"}
        self.best_of_last, self.last_name = best, f"at-{_step(state)}"
        for path in (*self.folder.glob("best-*.pt"), *self.folder.glob("part-*.pt")):
            if path.name not in kept and path.name.removeprefix("part-").rpartition("-")[0] not in steps:
                path.unlink()

    def _write(self, name: str, state: Mapping[str, Any]) -> str:
        buffer = io.BytesIO()  # not straight to the file: torch turns a full disk into a RuntimeError
        torch.save(dict(state), buffer)
        content = buffer.getbuffer()
        self.folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(content).hexdigest().encode()
        write_atomic(self._path(name), b"".join((MAGIC, digest, b"\n", content)))
        return digest.decode()

    def clear(self) -> None:
        """Remove all of them."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def save_part(self, name: str, rank: int, ranks: int, state: Mapping[str, Any]) -> dict[str, str]:
        """Write one rank's part of what the first one writes of it afterwards. Its name and checksum.

        Raises OSError.
        """
        part = f"part-{name}-{rank}of{ranks}"
        return {"name": part, "sha256": self._write(part, state)}

    # -- read ------------------------------------------------------------------------------------------------------
    def load(self, name: str, *, whole: bool = True) -> State | None:
        """A checkpoint on the CPU; None where there is none. Raises RecordError for one that is damaged.

        One that several ranks have written in parts is put together, unless not the `whole` of it is wanted.
        """
        path = self._path(name)
        try:
            head, _, content = path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RecordError(f"{path}: cannot be read ({error.strerror})") from None
        if head != MAGIC + hashlib.sha256(content).hexdigest().encode():
            raise RecordError(f"{path}: is damaged (its checksum differs)")
        state: State = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if whole and "parts" in state:
            state |= joined([self._part(path, **part) for part in state.pop("parts")])
        return state

    def _part(self, main: Path, *, name: str, sha256: str) -> State:
        path = self._path(name)
        try:
            content = path.read_bytes().partition(b"\n")[2]
        except OSError as error:
            raise RecordError(f"{main}: its part {path.name} cannot be read ({error.strerror})") from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise RecordError(f"{main}: its part {path.name} is damaged (its checksum differs)")
        part: State = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return part

    def load_best(self, step: int) -> dict[str, Tensor]:
        """The weights after `step`. Raises RecordError where they are missing or damaged."""
        state = self.load(f"best-{step}")
        if state is None:
            raise RecordError(f"{self._path(f'best-{step}')}: is missing")
        found: dict[str, Tensor] = state["weights"]
        return found

    def peek(self) -> State | None:
        """The newest checkpoint that is whole, for who only wants to know how far a run was."""
        for name in (LAST, PREVIOUS):
            with contextlib.suppress(RecordError):
                if state := self.load(name, whole=False):
                    return state
        return None

    def resume(self, shapes: Mapping[str, torch.Size], *, best: bool) -> tuple[State | None, list[str]]:
        """What to go on from, None for nothing, and what there is to say about that.

        A checkpoint serves if it is whole, of this run, of weights with these `shapes`, and with `best` if the best
        weights that it speaks of are whole, too. What doesn't is removed, since it is of no use and shall not take the
        place of one that is.
        """
        notes = []
        for name in (LAST, PREVIOUS):
            try:
                state = self.load(name)
                if state is None:
                    continue
                self._judge(name, state, shapes, best=best)
            except RecordError as error:
                notes.append(str(error))
                self._path(name).unlink(missing_ok=True)
                continue
            if notes:
                notes = [f"{notes[0]}; went on from the checkpoint before it, of step {state['progress']['step']}"]
            self.best_of_last = state["progress"]["best_step"]
            self.last_name = f"at-{_step(state)}"
            return state, [*notes, *self._differences(state)]
        return None, [f"{'; '.join(notes)}; started from the beginning"] if notes else []

    def _judge(self, name: str, state: State, shapes: Mapping[str, torch.Size], *, best: bool) -> None:
        path = self._path(name)
        if state["stamp"].get("run") != self.stamp.get("run"):
            raise RecordError(f"{path}: is of another run, {state['stamp'].get('run')}")
        if {key: value.shape for key, value in state["weights"].items()} != shapes:
            raise RecordError(f"{path}: has weights of other names or shapes (the code has changed)")
        if best and state["progress"]["best_step"] is not None:
            self.load_best(state["progress"]["best_step"])

    def _differences(self, state: State) -> Iterator[str]:
        step = state["progress"]["step"]
        for key, words in NAMES.items():
            before, now = state["stamp"].get(key), self.stamp.get(key)
            if before != now:
                yield f"from step {step} on, {words} is another: {_short(now)}, before {_short(before)}"

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.pt"


def _step(state: Mapping[str, Any]) -> int:
    step: int = state["progress"].get("step", 0)
    return step


def joined(parts: list[Any]) -> Any:
    """What ranks have saved in parts, as one process would: shards laid end to end, all else as the first has it."""
    first = parts[0]
    if not isinstance(first, dict):
        return [joined([part[i] for part in parts]) for i in range(len(first))] if isinstance(first, list) else first
    if first.keys() == {"shard", "shape"}:
        rows = torch.cat([part["shard"] for part in parts])
        return rows.reshape(first["shape"])
    return {key: joined([part[key] for part in parts]) for key in first}


def _short(value: str | None) -> str:
    return (value or "unknown")[:60]


def weights(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's parameters and buffers on the CPU, each with storage of its own."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in module.state_dict().items()}
