"""The scheduler's job that this process is in."""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict

LOG = "SEQBENCH_LOG"  # set by seqbench.cluster.job


class Start(BaseModel):
    """A start of a job, as `checkpoints/attempts` keeps it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: str  # 12_3, or 12
    restarts: int  # how often it had been put back into the queue by then
    nodes: str
    log: str | None = None


def here() -> Start | None:
    """What SLURM's variables say; None outside a job."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return None
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    return Start(
        job=job_id() or job,
        restarts=int(restarts) if restarts.isdecimal() else 0,
        nodes=os.environ.get("SLURM_JOB_NODELIST", ""),
        log=os.environ.get(LOG),
    )


def job_id() -> str | None:
    """`12_3` for a task of an array, `12` for another job; None outside one."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID")
