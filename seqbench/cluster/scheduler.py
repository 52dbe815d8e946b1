"""What is asked of SLURM's commands, and what they answer."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seqbench.errors import ConfigError

PATIENCE = 120.0  # seconds that a command may take: a busy controller answers late
OVER = (  # states that a job does not leave any more
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "DEADLINE",
    "NODE_FAIL",
    "BOOT_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
)
NEVER = ("DependencyNeverSatisfied", "BadConstraints", "PartitionNodeLimit", "PartitionTimeLimit", "AccountNotAllowed")
ARRAY_SIZE = 1001  # SLURM's default for MaxArraySize


class Unanswered(ConfigError):
    """A command of SLURM's is missing, or fails."""


@dataclass(frozen=True, slots=True)
class Job:
    """A task of a job array, as squeue has it."""

    id: str  # 12_3
    state: str
    reason: str = ""
    nodes: str = ""

    @property
    def over(self) -> bool:
        """Whether it won't run again."""
        return self.state in OVER

    @property
    def stuck(self) -> bool:
        """Whether it waits for somebody's hand: held (by a user, or after a start that failed), or never to fit."""
        words = self.reason.lower()
        waits = self.state in ("PENDING", "REQUEUE_HOLD", "SPECIAL_EXIT", "REQUEUED")
        return waits and ("held" in words or "hold" in words or self.reason in NEVER)


@dataclass(frozen=True, slots=True)
class End:
    """What the scheduler says of a job that has ended."""

    state: str
    code: int  # of the process; negative: a signal
    nodes: str
    reason: str


def submit(options: Sequence[str], script: str) -> str:
    """Submit a script and return the job's id. Raises Unanswered with what sbatch says."""
    answer = _ask(["sbatch", *options, script]).strip().splitlines()
    number = answer[-1].partition(";")[0] if answer else ""  # `12;cluster`
    if not number.isdecimal():
        raise Unanswered(f"sbatch: gave no job id: {' '.join(answer)[:200]}")
    return number


def queue(names: Iterable[str]) -> dict[tuple[str, int], Job]:
    """The array tasks of jobs by (job name, index): all that SLURM still knows, also those that are over.

    Raises Unanswered; no answer is not an empty one.
    """
    wanted = sorted(set(names))
    found = {}
    for start in range(0, len(wanted), 100):
        some = ",".join(wanted[start : start + 100])
        command = ["squeue", "--me", "--array", "--states=all", "--noheader", f"--name={some}"]
        for line in _ask([*command, "--format=%j|%F|%K|%T|%r|%N"]).splitlines():
            name, job, index, state, reason, nodes = (*line.strip().split("|"), "", "", "", "", "")[:6]
            if index.isdecimal():
                found[name, int(index)] = Job(id=f"{job}_{index}", state=state, reason=reason, nodes=nodes)
    return found


def end_of(job: str) -> End | None:
    """How a job ended: by the controller's memory (minutes), then the accounting, if there is one; None: forgotten."""
    try:
        text = _ask(["scontrol", "show", "job", "--oneliner", job])
        fields = dict(re.findall(r"(\w+)=(\S*)", text))
        return _end(fields["JobState"], fields["ExitCode"], fields.get("NodeList", ""), fields.get("Reason", ""))
    except (Unanswered, KeyError):
        pass  # forgotten there
    try:
        text = _ask(["sacct", "-X", "-n", "-P", "-j", job, "-o", "State,ExitCode,NodeList,Reason"])
    except Unanswered:
        return None  # no accounting
    rows = [line.split("|") for line in text.splitlines() if line.count("|") == 3]
    return _end(rows[-1][0].split()[0], *rows[-1][1:]) if rows else None


def _end(state: str, code: str, nodes: str, reason: str) -> End:
    status, _, number = code.partition(":")  # `exit:signal`
    signal = int(number) if number.isdecimal() else 0
    value = -signal if signal else int(status) if status.isdecimal() else 0
    return End(state=state, code=value, nodes="" if nodes == "(null)" else nodes, reason=reason)


def requeue(job: str) -> str | None:
    """Put a running job back into the queue, which ends it; what is wrong if that fails."""
    try:
        _ask(["scontrol", "requeue", job])
    except Unanswered as error:
        return str(error)
    return None


def largest_array() -> int:
    """How many tasks a job array may have."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _ask(["scontrol", "show", "config"]), re.MULTILINE)
    return max(1, (int(found.group(1)) if found else ARRAY_SIZE) - 1)  # the largest index is one less than the number


def _ask(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise Unanswered(
            f"hydra/launcher: slurm, but {command[0]} is not found; use it where SLURM's commands are"
        ) from None
    except subprocess.TimeoutExpired:
        raise Unanswered(f"{command[0]}: no answer within {PATIENCE:g} seconds") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise Unanswered(f"{command[0]}: {said[:300]}")
    return done.stdout
