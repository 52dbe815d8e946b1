"""The batch script of a sweep's job array, and the options with which it is submitted."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from seqbench.cluster.site import Settings, Site

ROOT = Path(__file__).resolve().parents[2]
CELL = ROOT / "scripts" / "cell.py"  # a script, not -m: the checkout need not be installed


def script(folder: Path, settings: Settings, site: Site) -> str:
    """Bash: the site's lines, then the cell in place of the shell, so that signals reach it and nothing between.

    Several processes are started by srun, which counts them and gives each its rank.
    """
    words = [*site.command, site.python or sys.executable, str(CELL), str(folder)]
    if settings.ranks > 1:
        words = ["srun", "--kill-on-bad-exit=1", f"--cpus-per-task={settings.cpus}", *words]
    lines = [
        "#!/bin/bash",
        f"# A cell of {folder.name}: task $SLURM_ARRAY_TASK_ID of cells.json. Written by seqbench/cluster/script.py.",
        *site.before,
        f"export OMP_NUM_THREADS={settings.cpus}",
        f"exec {shlex.join(words)}",
    ]
    return "\n".join(lines) + "\n"


def options(folder: Path, name: str, cells: int, settings: Settings, site: Site, after: str | None) -> list[str]:
    """Arguments of sbatch, the script's path excluded. `after`: the job whose end it waits for."""
    log = str(folder).replace("%", "%%") + "/%a.log"
    batch = "B:" if settings.ranks == 1 else ""  # to the batch process, which the cell is; to all of srun's
    named = {
        "job-name": name,
        "array": f"0-{cells - 1}%{settings.at_once}",
        "output": log,
        "open-mode": "append",  # a requeued job goes on in the same file
        "nodes": settings.nodes,
        "ntasks-per-node": settings.tasks,
        "cpus-per-task": settings.cpus,
        "time": settings.minutes,
        "signal": f"{batch}USR1@{settings.warning}",
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "mem": settings.memory,
        "gpus-per-node": settings.gpus or None,
        "dependency": f"afterany:{after}" if after else None,
    }
    given = [f"--{key}={value}" for key, value in named.items() if value is not None]
    return ["--parsable", "--requeue", *given, *site.options]
