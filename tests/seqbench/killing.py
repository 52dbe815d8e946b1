"""Processes of `scripts/train.py` that kill themselves at an exact moment; a fork server saves each one the imports.

`python -m tests.seqbench.killing` reads one JSON object a line, {argv, log, code, blow}, and forks a process that runs
the command line with these arguments. What it prints goes to the file `log`, its exit code (negative: a signal) to the
file `code`. `blow` is null or [moment, n, signal]: at the n-th time of that moment the process gets the signal.
"""
# L positions, D width

from __future__ import annotations

import functools
import gc
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from encoders.base import InputSpec, Sequences, States
from encoders.recurrent import Recurrent

Blow = tuple[str, int, int]


class Restless(Recurrent):
    """Draws from the generators of python and numpy in training: such states have to be put back, too."""

    def __init__(
        self,
        *,
        cell: Literal["lstm", "gru"],
        dim: Annotated[int, Field(gt=0)],
        depth: Annotated[int, Field(gt=0)],
        dropout: Annotated[float, Field(ge=0, lt=1)],
        spec: InputSpec,
    ) -> None:
        super().__init__(cell=cell, dim=dim, depth=depth, dropout=dropout, spec=spec)

    def forward(self, source: Sequences) -> States:
        """States (B, L, D), each batch's scaled by a number of its own in training."""
        states = super().forward(source)
        if not self.training:
            return states
        scale = 1 + 0.3 * random.random() + 0.3 * float(np.random.rand())  # noqa: NPY002
        return States(values=states.values * scale, mask=states.mask)


class _Blow:
    """Counts the times of a moment, and strikes at the n-th."""

    def __init__(self, n: int, signal: int) -> None:
        self.left, self.signal, self.process = n, signal, os.getpid()

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(self.process, self.signal)


def _before(owner: Any, name: str, blow: Callable[[], None]) -> None:
    function = getattr(owner, name)

    @functools.wraps(function)
    def struck(*args: Any, **kwargs: Any) -> Any:
        blow()
        return function(*args, **kwargs)

    setattr(owner, name, struck)


def _after(owner: Any, name: str, blow: Callable[[], None]) -> None:
    function = getattr(owner, name)

    @functools.wraps(function)
    def struck(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        blow()
        return result

    setattr(owner, name, struck)


def arm(moment: str, n: int, signal: int) -> None:
    """Have this process get a signal at the n-th time of a moment."""
    from seqbench.records import store
    from seqbench.training import attempt, course, evaluation, module, resume
    from tasks import loading
    from tasks.base import Task

    blow = _Blow(n, signal)
    write, collated, get = resume.write_atomic, evaluation.collated, loading._Rows.__getitem__

    def half(path: Path, content: bytes) -> None:
        with path.with_name(f".{path.name}.{os.getpid()}.tmp").open("wb") as file:
            file.write(content[: len(content) // 2])
        blow()
        write(path, content)

    def evaluated(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for batch in collated(*args, **kwargs):
            blow()
            yield batch

    def made(self: Any, i: int) -> Any:
        """The n-th training batch; where worker processes make it, its maker kills the parent."""
        if self.seed[0] and self.seed[1] * len(self) + i + 1 == n:
            blow.left = 1
            blow()
        return get(self, i)

    match moment:
        case "setup":
            _before(Task, "setup", blow)
        case "batch":  # between two of one step, where a step has two
            _before(module.Module, "training_step", blow)
        case "update":
            _before(module.Module, "on_before_optimizer_step", blow)
        case "loading":
            loading._Rows.__getitem__ = made  # type: ignore[method-assign]
        case "valid":  # and test, at the end
            evaluation.collated = evaluated
        case "checkpoint":  # half of it is written
            resume.write_atomic = half
        case "previous":  # the one before is kept under its second name, the new one not written
            _before(resume.Checkpoints, "_write", blow)
        case "saved":
            _after(resume.Checkpoints, "save_last", blow)
        case "best":  # the best weights are written, no checkpoint speaks of them
            _after(resume.Checkpoints, "save_best", blow)
        case "logged":  # a line that the next attempt has to take back
            _after(course.Course, "_log", blow)
        case "resuming":
            _after(resume.Checkpoints, "resume", blow)
        case "tested":
            _after(resume.Checkpoints, "load_best", blow)
        case "predictions":
            _after(attempt.predictions, "write", blow)
        case "record":  # it is written, the checkpoints are not removed
            _after(store.Store, "write", blow)
        case _:
            raise ValueError(f"moment: {moment} is none")


def _child(request: dict[str, Any]) -> None:
    """Run the command line in this process, to its end."""
    from seqbench import cli

    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    code = 70
    try:
        if request["blow"]:
            arm(*request["blow"])
        code = cli.main(request["argv"])
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def serve() -> None:
    """Fork a process for each line, and one more that waits for it."""
    import pyarrow.parquet  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch

    from seqbench.costs import cost

    torch.set_num_threads(1)
    cost.WARM_UP, cost.LEAST, cost.MOST = 0, 3, 3  # passes for the latency, which nothing here compares
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        waits = os.fork()
        if waits:
            os.waitpid(waits, 0)
            continue
        if os.fork():
            os._exit(0)  # what waits is nobody's child, so that none is left over
        runs = os.fork()
        if not runs:
            _child(request)
        code = os.waitstatus_to_exitcode(os.waitpid(runs, 0)[1])
        path = Path(request["code"])
        path.with_suffix(".part").write_text(str(code))
        path.with_suffix(".part").replace(path)
        os._exit(0)


if __name__ == "__main__":
    serve()
