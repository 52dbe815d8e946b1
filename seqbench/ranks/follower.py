"""A rank that is not the first: it does its part of each attempt that it is ordered, and writes nothing."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
from typing import Any, Literal

from seqbench import process, randomness
from seqbench.config import RunConfig
from seqbench.ranks import crew
from seqbench.ranks.alarm import Alarm, is_broken_off
from seqbench.ranks.crew import Orders, Report, is_lost, report
from seqbench.ranks.group import Ranks
from seqbench.ranks.place import Place, placed
from tasks.data.base import DataError


def main(rank: int, size: int, port: int) -> None:
    """The whole life of a rank that the first one has started (seqbench.ranks.crew)."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    store = crew.connected("127.0.0.1", port, host=False)
    place = Place(rank=rank, size=size, local=rank, nodes=1, address="127.0.0.1", port=port)
    _follow(place, Orders(store))


def follow() -> Any:
    """Serve the crew of the environment until the first rank says that it is over; what it says."""
    place = placed()
    assert place is not None
    orders = Orders(crew.store_of(place))
    orders.count = crew._taken
    try:
        return _follow(place, orders)
    finally:
        crew._taken = orders.count


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # until the first rank closes it, or dies
    os._exit(1)


def _follow(place: Place, orders: Orders) -> Any:
    for number in (signal.SIGINT, signal.SIGTERM):
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, signal.SIG_IGN)  # between attempts the first rank decides
    while True:
        number_of = orders.count
        what, *rest = orders.take()
        if what == "end":
            orders.taken()
            return rest[0]
        config, withhold = rest
        part = orders.part(number_of)
        _serve(place, config, withhold, part)
        gc.collect()


def _serve(place: Place, config: RunConfig, withhold: bool, part: Any) -> None:
    """One attempt. A failure is reported; then this rank is ready for the next order."""
    from seqbench.training.casualty import is_memory
    from seqbench.training.facts import device_of

    ranks = Ranks(
        rank=place.rank,
        size=place.size,
        local=place.local,
        nodes=place.nodes,
        device=device_of(config),
        store=part,
    )
    ranks.meet = lambda: crew.meet_first(part, place.rank)
    step: list[int] = [0]
    alarm = Alarm(lambda: is_broken_off(part), device=ranks.device)
    try:
        with alarm:
            _work(config, withhold, ranks, step)
    except process.Stopped as error:
        report(part, Report(rank=place.rank, kind="stopped", reason=str(error)))
    except DataError as error:
        report(part, Report(rank=place.rank, kind="data", reason=str(error)))
    except Exception as error:
        if not (alarm.rung or is_lost(error)):
            reason = "\n".join(f"{type(error).__name__}: {error}".strip().splitlines()[:2])[:400]
            kind: Literal["failed", "out_of_memory"] = "out_of_memory" if is_memory(error, killed=False) else "failed"
            text = traceback.format_exc()
            report(part, Report(rank=place.rank, kind=kind, reason=reason, trace=text, step=step[0] + 1))
    finally:
        ranks.leave()


def _work(config: RunConfig, withhold: bool, ranks: Ranks, step: list[int]) -> None:
    from seqbench.build import build_task
    from seqbench.training.attempt import SCORED, make_encoder
    from seqbench.training.fit import fit
    from seqbench.training.health import Deadline
    from seqbench.training.ledger import Progress
    from seqbench.training.progress import Event

    def watch(event: Event) -> None:
        step[0] = event.step

    threads = crew.threads_of(config, ranks.size, ranks.nodes)
    with (
        process.signals(),
        process.settings(threads=threads, deterministic=config.deterministic, tf32=config.trainer.tf32),
    ):
        task = build_task(config)
        task.data.check()
        randomness.seed_all(randomness.derive(config.seed, "data"))
        task.setup(withhold=withhold)
        encoder = make_encoder(config, task)
        fitted = fit(
            config,
            task,
            encoder,
            checkpoints=None,
            state=None,
            progress=Progress(),
            sinks=[],
            watch=watch,
            deadline=Deadline(None),
            ranks=ranks,
        )
        for split in ("valid",) if withhold else SCORED:
            fitted.evaluator.run(split)
