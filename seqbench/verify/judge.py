"""One record verified: rebuilt, run again in a fresh folder, compared, and the verdict written beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from seqbench import run as runs
from seqbench.build import is_trivial
from seqbench.errors import ConfigError, RecordError
from seqbench.ranks.crew import size_of
from seqbench.record import Environment, Record
from seqbench.records import lineage, provenance
from seqbench.records.verified import Compared, Verdict, Verified, sha256_of
from seqbench.training.facts import device_of, now, strategy_of
from seqbench.training.progress import Watch
from seqbench.verify import compare, details
from seqbench.verify import trials as tuned
from seqbench.verify.rebuild import Impossible, Rebuilt, check_data, check_id, rebuild
from tasks.base import DataError

COMPARABLE = ("finished", "diverged")  # what a run comes to by itself; the other ends come from outside
# Packages that numbers pass through; a version of another one (loggers, templates) changes no score.
NUMERIC = {"torch", "pytorch-lightning", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "datasets", "evaluate"}
NUMERIC |= {"tokenizers", "sacrebleu", "seqeval"}
LISTED = 8  # changed files named one by one


def verify(
    path: Path,
    record: Record,
    *,
    allowed: Sequence[str],
    tolerance: float,
    trials: tuned.Which = "chosen",
    data: Sequence[Path] = (),
    watch: Watch | None = None,
) -> Verified:
    """Run a record again and say what came of it. Writes nothing but a temporary folder, which is removed.

    `path` is the record's file; predictions beside it are compared if they are there. `trials`: which of a tuned run
    are made again. `data`: where files of own data are looked for, by their checksums. Raises KeyboardInterrupt.
    """
    judgement = _Judgement(path, record, tolerance)
    try:
        if record.status not in COMPARABLE:
            raise Impossible(f"the run {record.status.replace('_', ' ')}: there is nothing to compare")
        if record.status == "finished" and not record.scores:
            raise Impossible("the record has no scores: there is nothing to compare")
        with tempfile.TemporaryDirectory(prefix="seqbench-verify-") as folder:
            rebuilt = rebuild(record, results=Path(folder), allowed=allowed, data=data)
            judgement.environment_now(rebuilt)
            judgement.differences += rebuilt.notes
            judgement.differences += check_data(record, rebuilt)
            judgement.differences += check_id(record, rebuilt)
            table = compare.own_predictions(record, path.parent)
            if table is not None:
                compare.check_scores(record, table, rebuilt.task)
            again = runs.run(rebuilt.config, watch=watch).record
            if again.status == record.status:
                judgement.tuning = tuned.differences(
                    record, rebuilt.config, which=trials, tolerance=judgement.owed, watch=watch
                )
            if record.status == "diverged" or again.status != record.status:
                return judgement.ends(again)
            found = compare.rows(record, table, again, Path(folder) / again.id)
            return judgement.compared(again, found)
    except Impossible as error:
        judgement.differences += [line for line in error.details if line not in str(error)]
        return judgement.verdict("impossible", str(error))
    except compare.Damaged as error:
        return judgement.verdict("different", str(error))
    except (ConfigError, DataError, RecordError) as error:
        return judgement.verdict("impossible", " ".join(str(error).split()))


class _Judgement:
    """What is known of a verification so far, and how it becomes a verdict."""

    def __init__(self, path: Path, record: Record, tolerance: float) -> None:
        self.record, self.tolerance = record, tolerance
        self.sha256 = sha256_of(path)
        self.changes = lineage.changes(record)
        self.differences = described(record, self.changes)
        if unsealed := details.unsealed(path, record):
            self.differences.append(unsealed)
        self.sealed = details.sealed(path)
        self.tuning: tuple[list[str], list[str]] = ([], [])  # trials.differences
        self.here: Environment | None = None

    def environment_now(self, rebuilt: Rebuilt) -> None:
        """This machine, as the run will see it."""
        config = rebuilt.config
        size = 1 if is_trivial(config) else size_of(config, None)
        self.here = provenance.environment(
            device=device_of(config),
            devices=size,
            strategy="single" if size == 1 else strategy_of(config),
            threads=config.trainer.threads or 1,
            precision=config.trainer.precision,
            deterministic=config.deterministic,
        )
        then = self.record.environment
        if config.budget.seconds is not None:
            self.differences.append(
                f"budget.seconds: {config.budget.seconds:g}, and no two runs by the clock are the same"
            )
        for what, a, b in (
            ("machine class", _alone(then.machine_class), _alone(self.here.machine_class)),
            ("device", then.device, self.here.device),
            ("devices", then.devices, self.here.devices),
            ("nodes", then.nodes, self.here.nodes),
            ("python", then.python, self.here.python),
            ("platform", then.platform, self.here.platform),
        ):
            if a != b:
                self.differences.append(f"{what}: {a} -> {b}")

    @property
    def same_class(self) -> bool:
        """Whether this machine is of the record's class."""
        return self.here is not None and _alone(self.here.machine_class) == _alone(
            self.record.environment.machine_class
        )

    @property
    def exact(self) -> bool:
        """Whether the same bits are owed: same machine class, CPU, as many ranks, deterministic, packages, not timed.

        Changed code excuses nothing: then it is the code that makes the difference.
        """
        return (
            not self._elsewhere
            and self.record.config["budget"].get("seconds") is None
            and bool(self.record.config.get("deterministic", True))
        )

    @property
    def owed(self) -> float | None:
        """The tolerance; None where the same bits are owed."""
        return None if self.exact else self.tolerance

    @property
    def _elsewhere(self) -> list[str]:
        """Fields of the record's environment by which it was made elsewhere, so that the same bits are not owed."""
        then, here = self.record.environment, self.here
        if here is None:
            return ["machine_class"]
        fields = {
            "machine_class": not self.same_class,
            "device": not then.device == here.device == "cpu",
            "devices": (then.devices, then.nodes) != (here.devices, here.nodes),
            "python": then.python.split(".")[:2] != here.python.split(".")[:2],
            "packages": bool(NUMERIC & set(self.changes.packages)),
        }
        return [name for name, other in fields.items() if other]

    def ends(self, again: Record) -> Verified:
        """Verdict by how both ended, where one of them has no scores."""
        one, other = _end(self.record), _end(again)
        if one == other and (wrong := self._facts(again)):
            return self.verdict("different", f"{one}, again, but {_listed(wrong)}")
        if one == other:
            return self.verdict("identical", f"{one}, again")
        return self.verdict("different", f"{one} -> {other}{': ' + again.reason if again.reason else ''}")

    def _facts(self, again: Record) -> list[str]:
        """What the record says beside its scores and is another, a line each; all of it is told."""
        wrong, told = details.differences(self.record, again, self.owed)
        wrong, told = [*wrong, *self.tuning[0]], [*told, *self.tuning[1]]
        deterministic = self.record.environment.deterministic
        if deterministic != self.record.config.get("deterministic", True):
            wrong.append(f"environment: deterministic {deterministic}, against the record's own config")
        if not self.sealed and self._elsewhere:
            told.append(
                f"environment: {', '.join(self._elsewhere)} of a record without a seal is why the tolerance"
                f" {self.tolerance:g} was taken, not the same bits; nothing vouches for it"
            )
        self.differences += [line for line in (*wrong, *told) if line not in self.differences]
        return wrong

    def compared(self, again: Record, rows: compare.Rows) -> Verified:
        """Verdict by scores and predictions."""
        scores = compare.scores(self.record, again, self.owed)
        equal = all(score.passed and score.difference == 0 for score in scores)
        unmoved = rows.same_bytes or (rows.compared > 0 and rows.moved == 0)
        alone = self.record.predictions is None
        counted = f"{len(scores)} scores" + (f", {rows.compared:,} predictions" if rows.compared else "")
        wrong = self._facts(again)
        verdict: Verdict
        if wrong and all(score.passed for score in scores) and (unmoved or alone or not self.exact):
            verdict, reason = "different", f"{counted} are as recorded, but {_listed(wrong)}"
        elif equal and (unmoved or alone):
            verdict, reason = "identical", counted + (" (the record has no predictions)" if alone else "")
        elif all(score.passed for score in scores) and not self.exact:
            verdict, reason = "within_tolerance", f"{counted}{_moved(rows)}; tolerance {self.tolerance:g}"
            if not self.sealed and self._elsewhere:
                reason += ", by the word of a record without a seal"
        else:
            verdict, reason = "different", _worst(scores) + _moved(rows)
        return self.verdict(verdict, reason, scores=scores, rows=rows)

    def verdict(
        self, verdict: Verdict, reason: str, *, scores: Sequence[Compared] = (), rows: compare.Rows | None = None
    ) -> Verified:
        """The typed outcome."""
        differences = [score.difference for score in scores if score.difference is not None]
        return Verified(
            id=self.record.id,
            record_sha256=self.sha256,
            verdict=verdict,
            reason=reason,
            time=now(),
            machine_class=self.here.machine_class if self.here else provenance.cpu_model(),
            same_machine_class=self.same_class,
            code=provenance.code().model_copy(update={"files": {}}),
            packages=self.changes.packages,
            differences=self.differences,
            scores=list(scores),
            rows=rows.compared if rows else 0,
            rows_moved=rows.moved if rows else 0,
            largest_difference=max(differences) if differences else None,
            tolerance=self.tolerance,
        )


def described(record: Record, changes: lineage.Changes) -> list[str]:
    """What differs in code and packages, a line each."""
    names = [*changes.task, *changes.encoder, *changes.harness]
    lines = [f"code: {name} changed" for name in names[:LISTED]]
    rest = len(names) - LISTED
    if rest > 0:
        lines.append(f"code: {rest} more files that the run stands on changed")
    if changes.other:
        lines.append(f"code: {len(changes.other)} files that the run does not stand on changed")
    here = provenance.code()
    if not changes.known and here.source_sha256 != record.code.source_sha256:
        then, commit = (record.code.commit or "unknown")[:12], (here.commit or "unknown")[:12]
        lines.append(f"code: commit {then} -> {commit}; the record has no checksums of single files")
    return [*lines, *(f"package {name}: {then} -> {now}" for name, (then, now) in changes.packages.items())]


def _alone(machine_class: str) -> str:
    """Without the runs beside it, which change costs but no score."""
    head, comma, tail = machine_class.rpartition(", ")
    return head if comma and tail.endswith("jobs at once") else machine_class


def _end(record: Record) -> str:
    at = f" at step {record.failed_at_step}" if record.failed_at_step is not None else ""
    return record.status.replace("_", " ") + at


def _moved(rows: compare.Rows) -> str:
    if not rows.compared:
        return "; predictions differ" if not rows.same_bytes else ""
    if not rows.moved:
        return ""
    first = f", first {rows.first}" if rows.first else ""
    return f"; {rows.moved:,} of {rows.compared:,} predictions moved{first}"


def _worst(scores: Sequence[Compared]) -> str:
    failed = [score for score in scores if not score.passed]
    if not failed:
        return "scores are the same"
    worst = max(failed, key=lambda score: float("inf") if score.difference is None else score.difference)
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return f"{worst.split}/{worst.metric} {_number(worst.recorded)} -> {_number(worst.again)}{more}"


def _listed(lines: Sequence[str]) -> str:
    return lines[0] + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}" if abs(value) < 1e6 else f"{value:g}"
