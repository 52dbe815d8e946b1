"""Who starts the ranks of a run, gives them their work, and learns which of them has failed.

The first rank does what a run does. The others wait for orders: (attempt, what it needs) and (end, how it went), and
serve attempts (follower.py). A launcher has started them all (place.py: torchrun, srun), or the first
one starts the rest on its machine, a process each, like a sweep's workers; no command line is run again.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore

from seqbench import process
from seqbench.config import RunConfig
from seqbench.cores import cores
from seqbench.errors import ConfigError, RecordError
from seqbench.ranks.alarm import Alarm, break_off, is_broken_off
from seqbench.ranks.group import ALONE, Ranks
from seqbench.ranks.place import Place, placed
from seqbench.record import Status
from seqbench.training import casualty
from seqbench.training.facts import device_of
from tasks.data.base import DataError

LONG = timedelta(days=365)  # that a rank waits for an order: the first one may solve sizes, or run trials alone
MEETING = 300.0  # seconds in which all ranks must have come
TICK = 0.05
GRACE = 10.0  # seconds that a rank has to say why it failed, or to end
LOST = ("Connection closed by peer", "Connection reset", "Broken pipe", "Connection refused", "gloo", "NCCL", "abort")
SPEAKERS = tuple(Path(torch.__file__).parent / part for part in ("distributed", "nn/parallel", "autograd"))
MET = "met"  # set by the first rank, once all have come
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from seqbench.ranks.follower import main; main(*map(int, sys.argv[2:]))"
)


class RankFailed(Exception):
    """A failure of another rank; `status` is the record's, `trace` its traceback."""

    def __init__(self, reason: str, *, status: Status = "failed", trace: str = "", step: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.trace, self.step = status, trace, step


class FirstGone(Exception):
    """The first rank has left an attempt before all had met; it says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a rank says of its failure."""

    rank: int
    kind: Literal["failed", "out_of_memory", "data", "stopped"]
    reason: str
    trace: str = ""
    step: int | None = None


# -- how many ----------------------------------------------------------------------------------------------------------
def size_of(config: RunConfig, place: Place | None) -> int:
    """Ranks of a run: those of the environment, else `trainer.devices` of this machine.

    Raises ConfigError where the config asks for other numbers than the environment has, or for machines that nobody
    has started processes on.
    """
    trainer = config.trainer
    if place is not None:
        wanted = trainer.devices if isinstance(trainer.devices, int) else place.size // place.nodes
        nodes = trainer.nodes if isinstance(trainer.nodes, int) else place.nodes
        if wanted * nodes != place.size or nodes != place.nodes:
            raise ConfigError(
                f"trainer.devices: {trainer.devices} x trainer.nodes {trainer.nodes}, but {place.size} processes were "
                f"started on {place.nodes} node{'s' if place.nodes > 1 else ''}\n"
                f"use trainer.devices={place.size // place.nodes} trainer.nodes={place.nodes}, or auto for both"
            )
        return place.size
    if isinstance(trainer.nodes, int) and trainer.nodes > 1:
        raise ConfigError(
            f"trainer.nodes: {trainer.nodes}, but nobody has started processes on other machines\n"
            "use a launcher (hydra/launcher=slurm, srun, torchrun), or trainer.nodes=1"
        )
    if isinstance(trainer.devices, int):
        return trainer.devices
    return max(1, torch.cuda.device_count()) if device_of(config) == "cuda" else 1


def threads_of(config: RunConfig, size: int, nodes: int) -> int | None:
    """CPU threads of each rank; None as torch takes them. Where nothing is said, the ranks of a machine share it."""
    if config.trainer.threads is not None or size == 1:
        return config.trainer.threads
    return max(1, min(torch.get_num_threads(), cores() // max(1, size // nodes)))


# -- orders ------------------------------------------------------------------------------------------------------------
def connected(address: str, port: int, *, host: bool) -> Any:
    """The store at an address, made there by the one that is its `host`; port 0: one that is free."""
    wait = timedelta(seconds=MEETING)
    return dist.TCPStore(address, port, is_master=host, timeout=wait, wait_for_workers=False)  # type: ignore[attr-defined]


class Orders:
    """A line of orders from the first rank to the others, in a store of torch.distributed."""

    def __init__(self, store: Any) -> None:
        self.store, self.count = store, 0

    def give(self, *order: Any) -> int:
        """The next one; returns its number."""
        self.store.set(f"order/{self.count}", pickle.dumps(order))
        self.count += 1
        return self.count - 1

    def take(self) -> tuple[Any, ...]:
        """Wait for the next one. Raises RuntimeError where the first rank is gone."""
        key = f"order/{self.count}"
        self.store.wait([key], LONG)
        self.count += 1
        return tuple(pickle.loads(self.store.get(key)))

    def end(self, said: Any, ranks: int) -> None:
        """The last one. Waits until all have taken it, since the store may end with this process."""
        number = self.give("end", said)
        late = time.monotonic() + GRACE
        while self.store.add(f"taken/{number}", 0) < ranks - 1 and time.monotonic() < late:
            time.sleep(TICK)

    def taken(self) -> None:
        """Say that the order taken last has been."""
        self.store.add(f"taken/{self.count - 1}", 1)

    def part(self, number: int) -> Any:
        """What the ranks of an attempt meet in."""
        return PrefixStore(f"attempt/{number}", self.store)


def report(store: Any, said: Report) -> None:
    """Say why this rank failed; of several only the first is heard."""
    if store.add("failures", 1) == 1:
        store.set("failure", pickle.dumps(said))


def meet_first(part: Any, rank: int) -> None:
    """Say that this rank is there, and wait until all are, so that none waits in gloo for a first one that failed.

    As long as that takes: the first one may be reading data. Raises FirstGone.
    """
    part.set(f"here/{rank}", b"")
    while not is_broken_off(part):
        if part.check([MET]):
            return
        time.sleep(TICK)
    raise FirstGone("the first rank has left before the others met it")


# -- the first rank ----------------------------------------------------------------------------------------------------
@dataclass
class _Led:
    """The crew that a launcher has started, for as long as the first rank has something to do with it."""

    place: Place
    orders: Orders


_led: _Led | None = None
_store: Any = None  # of the launcher's crew, for the life of this process
_taken = 0  # orders that were given or taken in it


def store_of(place: Place) -> Any:
    """The store of a launcher's crew, made once in a process."""
    global _store
    if _store is None:
        host = place.rank == 0 and not place.hosted
        store = connected(place.address, place.port, host=host)
        _store = PrefixStore(f"seqbench/{place.again}", store)
    return _store


def is_follower() -> bool:
    """Whether a launcher has started this process as a rank that waits for orders."""
    place = placed()
    return place is not None and place.rank > 0


@contextmanager
def leading() -> Iterator[list[Any]]:
    """Lead the crew of the environment, if there is one: at the end the others are told what is in the list given.

    Does nothing within another leading().
    """
    global _led, _taken
    place = placed()
    said: list[Any] = [None]
    if place is None or _led is not None:
        yield said
        return
    _led = _Led(place, Orders(store_of(place)))
    _led.orders.count = _taken
    try:
        yield said
    finally:
        _led.orders.end(_portable(said[0]), _led.place.size)
        _taken = _led.orders.count
        _led = None


def _portable(said: Any) -> Any:
    """The same; in place of an error that can't be sent to another process, what it says."""
    try:
        pickle.loads(pickle.dumps(said))
    except Exception:
        return RecordError(f"the first rank: {type(said).__name__}: {said}")
    return said


@contextmanager
def summoned(config: RunConfig, *, withhold: bool) -> Iterator[Ranks]:
    """The ranks of an attempt: this one alone, or with the others at work on the same.

    An error of another rank is raised in place of the lost connection that this one sees: RankFailed, or what it
    stands for (DataError, process.Stopped).
    """
    place = placed()
    size = size_of(config, place)
    if size == 1:
        yield ALONE
        return
    local: list[_Follower] = []
    if _led is not None:
        orders, nodes = _led.orders, _led.place.nodes
    else:
        store = connected("127.0.0.1", 0, host=True)
        orders, nodes = Orders(store), 1
        local = [_Follower(rank, size, store.port) for rank in range(1, size)]
    part = orders.part(orders.give("attempt", config, withhold))
    ranks = Ranks(rank=0, size=size, local=0, nodes=nodes, device=device_of(config), store=part)
    watch = _Watch(part, local, ranks)
    ranks.meet = watch.meet
    try:
        with watch:
            yield ranks
    except BaseException as error:
        break_off(part)
        if not isinstance(error, Exception):
            raise
        cause = watch.cause(error)
        if cause is error:
            raise
        raise cause from error
    finally:
        ranks.leave()
        if local:
            orders.end(None, 1)  # their processes' ends are waited for
            for follower in local:
                follower.gone()


class _Follower:
    """A rank that this process has started; it ends with its order, or with this process (its standard input)."""

    def __init__(self, rank: int, size: int, port: int) -> None:
        self.rank = rank
        self.output = tempfile.TemporaryFile()  # noqa: SIM115  # closed by gone()
        command = [sys.executable, *(f"-W{option}" for option in sys.warnoptions), "-c", START]
        self.process = subprocess.Popen(
            [*command, json.dumps([path or os.getcwd() for path in sys.path]), str(rank), str(size), str(port)],
            stdin=subprocess.PIPE,
            stdout=self.output,
            stderr=self.output,
            process_group=0,  # Ctrl-C reaches the first rank alone; the ranks agree on when to stop
        )

    def said(self) -> str:
        """The last line that it has printed."""
        lines = [
            line for line in os.pread(self.output.fileno(), 2**20, 0).decode(errors="replace").splitlines() if line
        ]
        return lines[-1] if lines else ""

    def gone(self) -> None:
        """Wait for its end; kill it if that takes longer."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE)
        self.process.kill()
        self.process.wait()
        text = os.pread(self.output.fileno(), 2**20, 0).decode(errors="replace").strip()
        if text:
            print("\n".join(f"rank {self.rank}: {line}" for line in text.splitlines()[-20:]), file=sys.stderr)
        self.output.close()


class _Watch:
    """Notices other ranks' failures, also where this one waits for them in vain."""

    def __init__(self, part: Any, local: list[_Follower], ranks: Ranks) -> None:
        self.part, self.local, self.ranks = part, local, ranks
        self.kills = casualty.oom_kills()
        self.alarm = Alarm(self.trouble, device=ranks.device)

    def __enter__(self) -> None:
        self.alarm.__enter__()

    def __exit__(self, *_: object) -> None:
        self.alarm.__exit__()

    def meet(self) -> None:
        """Wait until all ranks are there. Raises what has become of one that isn't."""
        end = time.monotonic() + MEETING
        wanted = [f"here/{rank}" for rank in range(1, self.ranks.size)]
        while not self.part.check(wanted):
            trouble = self.trouble()
            if trouble is not None:
                raise trouble
            if time.monotonic() > end:
                late = [rank for rank in range(1, self.ranks.size) if not self.part.check([f"here/{rank}"])]
                raise RankFailed(f"rank {late[0]} of {self.ranks.size} did not come within {MEETING:g} seconds")
            time.sleep(TICK)
        self.part.set(MET, b"")

    def trouble(self) -> BaseException | None:
        """What another rank has said of its failure, or how its process ended; None for nothing."""
        if self.part.check(["failure"]):
            return _told(pickle.loads(self.part.get("failure")), self.ranks.size)
        for follower in self.local:
            code = follower.process.poll()
            if code is not None:
                kills = casualty.oom_kills()
                memory = kills is not None and self.kills is not None and kills > self.kills
                status, reason = casualty.cause(code, memory=memory)
                said = f"; it said: {follower.said()}" if follower.said() else ""
                return RankFailed(f"{reason}, rank {follower.rank} of {self.ranks.size}{said}", status=status)
        return None

    def cause(self, error: Exception) -> BaseException:
        """The error itself, or the other rank's that it comes from."""
        if isinstance(error, RankFailed) or not (self.alarm.rung or is_lost(error)):
            return error
        end = time.monotonic() + GRACE
        while time.monotonic() < end:
            trouble = self.trouble()
            if trouble is not None:
                return trouble
            time.sleep(TICK)
        return RankFailed(f"the connection to another rank was lost: {str(error).splitlines()[0][:200]}")


def is_lost(error: BaseException) -> bool:
    """Whether an error says no more than that another rank is gone.

    Gloo says so by a bare RuntimeError, out of a call of torch's own; one that is raised elsewhere is somebody's
    mistake, whatever its words.
    """
    if isinstance(error, FirstGone | dist.DistError):
        return True
    frames = list(traceback.walk_tb(error.__traceback__))
    if type(error) is not RuntimeError or not frames:
        return False
    file = Path(frames[-1][0].f_code.co_filename)
    return any(file.is_relative_to(folder) for folder in SPEAKERS) and any(words in str(error) for words in LOST)


def _told(said: Report, size: int) -> BaseException:
    if said.kind == "data":
        return DataError(said.reason)
    if said.kind == "stopped":
        return process.Stopped(said.reason)
    reason = f"{said.reason} (rank {said.rank} of {size})"
    return RankFailed(reason, status=said.kind, trace=said.trace, step=said.step)
