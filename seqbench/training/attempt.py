"""One attempt at a run: data, encoder, training, scores, cost; its record, also when it fails."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from encoders.base import Encoder
from encoders.trivial import Trivial
from seqbench import invariance, process, randomness
from seqbench.build import build_encoder, is_trivial, judge
from seqbench.config import RunConfig, default_allowed
from seqbench.costs import cost, spent
from seqbench.errors import ConfigError, RecordError, Unwritable, place_in
from seqbench.matching import match
from seqbench.pretraining import check_finished, take_all, take_over, teach
from seqbench.ranks.crew import RankFailed, size_of, summoned, threads_of
from seqbench.ranks.group import ALONE, Ranks
from seqbench.ranks.place import placed
from seqbench.record import Artefact, Cost, Point, Record, ScoreFacts, Status, TuningFacts
from seqbench.records import predictions, provenance
from seqbench.records.store import Store, reason_of, write_atomic
from seqbench.training.casualty import cluster_of, is_memory, oom_kills, saved_in
from seqbench.training.facts import device_of, facts, now
from seqbench.training.fit import Fitted, fit
from seqbench.training.health import Deadline, Diverged, TimedOut
from seqbench.training.ledger import Progress
from seqbench.training.loggers import About, Sink, open_sinks
from seqbench.training.progress import Bar, Event, Lines, Watch, ignore
from seqbench.training.resume import Checkpoints, State, weights
from tasks.base import DataError, Score, Task

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # no model causes these: the results' disk is full or locked
SCORED = ("valid", "test")
WEIGHTS = "weights.safetensors"


class Attempt:
    """One try at a run, whose folder this process has claimed. `found` holds what is known of the record so far."""

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        run_id: str,
        store: Store,
        *,
        known: Record | None,
        watch: Watch | None,
        jobs: int,
        tuning: TuningFacts | None = None,
        first: Record | None = None,
        trained: bool = False,
        withhold: bool = False,
        note: str = "",
    ) -> None:
        self.config, self.task, self.store = config, task, store
        self.folder = store.folder(run_id)
        self.watch = watch or _bar(config, task, note)
        self.ranks = ALONE
        self.compilations = cost.compilations() if config.trainer.compile else {}
        self.size = 1 if is_trivial(config) else size_of(config, placed())
        self.deadline = Deadline(config.trainer.time_limit)
        self.oom_kills = oom_kills()
        self.sinks: list[Sink] = []
        place = placed() if self.size > 1 else None
        nodes = place.nodes if place else 1
        self.threads = threads_of(config, self.size, nodes)
        self.found = facts(
            config, task, run_id, known, threads=self.threads, jobs=jobs, devices=self.size, nodes=nodes
        ) | {"tuning": tuning, "parents": [] if first is None else [first.id]}
        self.first = first  # whose weights it begins with
        self.trained = trained  # which are all it needs: it is only tested
        self.withhold = withhold  # a trial: the test split is not read
        self.progress = Progress(started=self.found.pop("started"))
        self.checkpoints = Checkpoints(self.folder / "checkpoints", _stamp(self.found))

    def run(self, *, afresh: bool) -> Record:
        """Try, and write down what came of it. `afresh`: not from a checkpoint that may be there.

        Raises ConfigError, DataError and RecordError without a record, KeyboardInterrupt with one.
        """
        record, came = None, []
        try:
            for left in self.folder.rglob(".*.tmp"):  # of a process that was killed while it wrote
                left.unlink(missing_ok=True)
            if afresh:
                self.checkpoints.clear()
            with (
                process.signals() as came,
                self.deadline.enforced(),
                process.settings(
                    threads=self.threads,
                    deterministic=self.config.deterministic,
                    tf32=self.config.trainer.tf32,
                ),
            ):
                self._guarded(self._begin)
                if self.first is not None:
                    check_finished(self.first)  # before other ranks wait for this one
                with self._ranks() as self.ranks:
                    self._work()
                process.hold(firmly=True)  # a record of a finished run is not taken back
                self.deadline.hear()
                record = self._write("finished")
            self.checkpoints.clear()
        except (ConfigError, DataError) as error:
            self.checkpoints.forget()
            if came:
                raise KeyboardInterrupt(came[0]) from error
            raise
        except RecordError:
            raise
        except (process.Stopped, KeyboardInterrupt, SystemExit) as error:
            by = error.args[0] if isinstance(error, process.Stopped) else "the user"
            with process.signals():
                process.hold(firmly=True)  # who interrupts twice shall have a record, too
                by_clock = by == "SIGUSR1"  # of a job whose time is over (seqbench.cluster.job)
                why = f"the time of its job is over ({by}); it goes on" if by_clock else f"stopped by {by}"
                record = self._write("timed_out" if by_clock else "interrupted", why, self.progress.step)
            raise KeyboardInterrupt(by) from None
        except Exception as error:
            record = self._fail(error)
            if record.status != "timed_out":
                self.checkpoints.forget()  # the next attempt begins anew
        finally:
            for sink in self.sinks:
                self._guarded(functools.partial(sink.finish, record))
            self.watch(Event(kind="end"))
        if came:  # it waited in a step that failed, or came when all was done: a sweep shall stop nevertheless
            raise KeyboardInterrupt(came[0])
        return record

    def _begin(self) -> None:
        self.progress.resumed = self.checkpoints.begin(self.progress.started)

    def _ranks(self) -> AbstractContextManager[Ranks]:
        return nullcontext(ALONE) if self.size == 1 else summoned(self.config, withhold=self.withhold)

    # -- what is done ----------------------------------------------------------------------------------------------
    def _work(self) -> None:
        config, task = self.config, self.task
        device = torch.device(device_of(config))
        held = cost.reset_peak_memory(device)
        randomness.seed_all(randomness.derive(config.seed, "data"))
        task.setup(withhold=self.withhold)
        self.found["splits"] = provenance.split_facts(task)
        encoder = make_encoder(config, task)
        if self.first is not None:
            if self.trained:
                take_all(encoder, task, self.first, self.store.root)
            elif config.pretrain is not None and config.pretrain.teacher is not None:
                teach(task, config, self.first, self.store.root)
            else:
                take_over(encoder, self.first, self.store.root)
        self.found["encoder"] = self.found["encoder"].model_copy(update={"family": encoder.family})
        given: dict[str, dict[int, Any]]
        if isinstance(encoder, Trivial):
            given = {split: task.trivial(encoder.rule, split, config.seed) for split in SCORED}
            scores = {split: task.score(split, given[split]) for split in SCORED}
            measured: dict[str, Any] = cost.parameters(encoder, None)
            measured["peak_memory_mib"] = cost.peak_memory_mib(device, held)
        else:
            fitted = self._fit(encoder)
            if self.withhold:
                self._score_trial(encoder, fitted)
                return
            seconds = {}
            given, scores = {}, {}
            for split in SCORED:
                self.watch(
                    Event(kind="score", step=self.progress.step, steps=config.budget.steps or self.progress.step)
                )
                evaluation = fitted.evaluator.run(split)
                given[split], seconds[split] = evaluation.predictions, evaluation.seconds
                scores[split] = task.score(split, evaluation.predictions)
            peak = cost.peak_memory_mib(device, held)  # before what measures the rest
            measured = spent.all_told(
                config,
                encoder,
                fitted,
                self.progress,
                examples_per_second=len(given["test"]) / max(seconds["test"], 1e-9),
                compilations=self.compilations,
                devices=self.size,
            )
            measured["peak_memory_mib"] = peak
            if config.trainer.invariance_rows:
                self.found["invariance"] = invariance.check(
                    fitted.evaluator,
                    given["test"],
                    rows=config.trainer.invariance_rows,
                    precision=config.trainer.precision,
                    seconds=self.progress.look(),
                )
            self.found["checkpoint"] = self._keep(fitted)
            self.found["match"] = match.facts(config, encoder, task)
        told = {name: number for name, number in encoder.told().items() if np.isfinite(number)}
        self.found["encoder"] = self.found["encoder"].model_copy(update={"told": told})
        self.found["scores"] = {split: {n: _score_facts(s) for n, s in by.items()} for split, by in scores.items()}
        self.found["predictions"] = predictions.write(self.folder, task, given, scores)
        if not isinstance(encoder, Trivial):
            self.found["one_class"] = predictions.one_class(task, given)
        measured["wall_seconds"] = self.progress.look()
        self.found["cost"] = Cost(**measured)

    def _score_trial(self, encoder: Encoder, fitted: Fitted) -> None:
        """The validation score of a trial, and what it took."""
        task = self.task
        del self.found["splits"]["test"]
        scores = task.score("valid", fitted.evaluator.run("valid").predictions)
        self.found["scores"] = {"valid": {name: _score_facts(score) for name, score in scores.items()}}
        measured = spent.on_training(self.config, encoder, fitted, self.progress)
        self.found["cost"] = Cost(**measured, wall_seconds=self.progress.look())

    def _fit(self, encoder: Encoder) -> Fitted:
        config = self.config
        state = self._state(encoder)
        about = About(
            id=self.found["id"],
            folder=self.folder,
            label=self.found["encoder"].label,
            encoder=config.names.encoder,
            task=config.names.task,
            study=config.names.study,
            seed=config.seed,
            config=self.found["config"],
            metrics=[metric.name for metric in self.task.metrics],
            start_step=state["progress"]["step"] - state["progress"]["pending"] if state else 0,
        )
        self.sinks = open_sinks(config.logger.model_dump(exclude_none=True), about)
        return fit(
            config,
            self.task,
            encoder,
            checkpoints=self.checkpoints,
            state=state,
            progress=self.progress,
            sinks=self.sinks,
            watch=self.watch,
            deadline=self.deadline,
            ranks=self.ranks,
            done=self.trained,
        )

    def _state(self, encoder: Encoder) -> State | None:
        """The checkpoint to go on from. What there is to say about it goes to stderr and into the record."""
        both = nn.ModuleDict({"encoder": encoder, "task": self.task})
        shapes = {name: value.shape for name, value in both.state_dict().items()}
        state, notes = self.checkpoints.resume(shapes, best=self.config.budget.select == "best")
        for note in notes:
            print(note, file=sys.stderr)
        self.progress.notes += [note.replace(f"{self.checkpoints.folder}{os.sep}", "") for note in notes]
        return state

    def _keep(self, fitted: Fitted) -> Artefact:
        """The tested weights, as safetensors."""
        content = safetensors.torch.save(weights(fitted.module))
        write_atomic(self.folder / WEIGHTS, content)
        return Artefact(path=WEIGHTS, sha256=hashlib.sha256(content).hexdigest())

    # -- what is written -------------------------------------------------------------------------------------------
    def _fail(self, error: Exception) -> Record:
        """The record of a failure; RecordError for a disk that takes none."""
        if isinstance(error, OSError) and error.errno in FULL:
            raise self._unwritable(error) from None
        if isinstance(error, Diverged):
            saved = self.progress.saved
            healthy = "no checkpoint before that" if saved is None else f"last healthy checkpoint: step {saved}"
            return self._write("diverged", f"{error}; {healthy}", error.step)
        if isinstance(error, RankFailed):
            if error.trace and error.status == "failed":
                self._guarded(lambda: write_atomic(self.folder / "error.log", error.trace.encode()))
            step = self.progress.step + 1 if error.step is None else error.step
            return self._write(error.status, str(error), step)
        if isinstance(error, TimedOut):
            return self._write("timed_out", f"{error}; the same command goes on", self.progress.step)
        lines = f"{type(error).__name__}: {error}".strip().splitlines()[:2]
        reason = "\n".join(lines)[:400]
        step = self.progress.step + 1
        if is_memory(error, killed=(oom_kills() or 0) > (self.oom_kills or 0)):
            return self._write("out_of_memory", reason, step)
        own = place_in(error, [package for package in self.config.allowed if package not in default_allowed()])
        if own:  # where in the user's code: torch's words alone say little of it
            reason = "\n".join([f"{lines[0][:300]} (in {own})", *lines[1:]])[:400]
        text = traceback.format_exc().encode()
        self._guarded(lambda: write_atomic(self.folder / "error.log", text))
        return self._write("failed", reason, step)

    def _write(self, status: Status, reason: str | None = None, step: int | None = None) -> Record:
        progress = self.progress
        record = Record(
            status=status,
            reason=reason,
            failed_at_step=step,
            curves=[Point(**point) for point in progress.curve],
            best_step=progress.best_step,
            resumed=progress.resumed,
            cluster=cluster_of(self.checkpoints, self.folder),
            notes=progress.notes,
            started=progress.started,
            saved=None if status == "finished" else saved_in(self.folder, progress.saved),
            ended=now(),
            **self.found,
        )
        self._guarded(lambda: self.store.write(record))
        return record

    def _guarded(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> RecordError:
        return Unwritable(
            f"results: {self.folder} cannot be written to ({reason_of(error)});"
            " make room, then the same command goes on from the last checkpoint"
        )


def make_encoder(config: RunConfig, task: Task) -> Encoder:
    """The encoder and, in the task, the head: each a function of the seed alone."""
    randomness.seed_all(randomness.derive(config.seed, "encoder"))
    encoder = build_encoder(config, task.spec)
    names = config.names
    judge(encoder, task, task.spec, encoder_name=names.encoder, task_name=names.task)
    randomness.seed_all(randomness.derive(config.seed, "head"))
    task.attach(encoder)
    return encoder


def _stamp(found: dict[str, Any]) -> dict[str, str]:
    """What a checkpoint says of where it was made (seqbench.training.resume.NAMES)."""
    environment = found["environment"]
    return {
        "run": found["id"],
        "torch": environment.packages.get("torch", torch.__version__),
        "device": environment.device,
        "platform": environment.platform,
        "threads": str(environment.threads),
        "ranks": str(environment.devices),
        "source": found["code"].source_sha256[:12],
    }


def _score_facts(score: Score) -> ScoreFacts:
    metric = score.metric
    return ScoreFacts(
        value=float(score.value) if np.isfinite(score.value) else None,
        n=score.n,
        best=metric.best,
        unit=metric.unit,
        target=f"{type(metric).__module__}.{type(metric).__qualname__}",
        along=[float(part) if np.isfinite(part) else None for part in metric.along(score.statistics)],
    )


def _bar(config: RunConfig, task: Task, note: str) -> Watch:
    """Where it is wanted, a bar on a terminal, lines elsewhere."""
    if not config.trainer.progress:
        return ignore
    names = config.names
    kind = Bar if sys.stderr.isatty() else Lines
    title = f"{config.label or names.encoder} {names.task} seed {config.seed}"
    return kind(f"{title}, {note}" if note else title, task.headline.name)
