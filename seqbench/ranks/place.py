"""Where a launcher has put this process among those of a run, by torchrun's variables or a SLURM step's."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

PORTS = 15000, 10000  # of a SLURM step whose environment names none: from, and how many by the job's number


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a launcher has put this process among those of a run."""

    rank: int
    size: int  # W
    local: int  # number among those of its machine
    nodes: int
    address: str  # of the first one
    port: int
    hosted: bool = False  # the launcher itself keeps the store (torchrun)
    again: str = "0"  # which start of the same processes it is, where a launcher starts them again


def placed(environment: Mapping[str, str] | None = None) -> Place | None:
    """This process's place by torchrun's variables, or by those of a SLURM step (srun); None for one alone.

    A step, not a job: in a batch script or an allocation without srun there is one process, whatever SLURM_NTASKS
    says. Raises ValueError for variables that are not whole.
    """
    env = os.environ if environment is None else environment
    if int(env.get("WORLD_SIZE", 1)) > 1 and "RANK" in env:
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in env]
        if missing:
            raise ValueError(f"RANK is set and {' and '.join(missing)} not; start the processes by torchrun or srun")
        size, rank = int(env["WORLD_SIZE"]), int(env["RANK"])
        here = int(env.get("LOCAL_WORLD_SIZE", size))
        return Place(
            rank=rank,
            size=size,
            local=int(env.get("LOCAL_RANK", rank % here)),
            nodes=max(1, size // here),
            address=env["MASTER_ADDR"],
            port=int(env["MASTER_PORT"]),
            hosted=env.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            again=env.get("TORCHELASTIC_RESTART_COUNT", "0"),
        )
    tasks = int(env.get("SLURM_STEP_NUM_TASKS", env.get("SLURM_NTASKS", 1)))
    if tasks > 1 and "SLURM_PROCID" in env and "SLURM_STEP_ID" in env:
        hosts = env.get("SLURM_STEP_NODELIST", env.get("SLURM_NODELIST", "127.0.0.1"))
        first, several = PORTS
        step = env["SLURM_STEP_ID"]
        number = int(env.get("SLURM_JOB_ID", 0)) * 7 + (int(step) if step.isdecimal() else 0)
        return Place(
            rank=int(env["SLURM_PROCID"]),
            size=tasks,
            local=int(env.get("SLURM_LOCALID", 0)),
            nodes=int(env.get("SLURM_STEP_NUM_NODES", env.get("SLURM_NNODES", 1))),
            address=env.get("MASTER_ADDR") or first_host(hosts),
            port=int(env.get("MASTER_PORT") or first + number % several),
        )
    return None


def first_host(hosts: str) -> str:
    """Of SLURM's short form: n1 of `n[1-3,7],m2`, gpu-07 of `gpu-[07-09]`."""
    found = re.match(r"([^,\[]+)(?:\[([^,\-\]]+)[^\]]*\]([^,]*))?", hosts)
    return "".join(part or "" for part in found.groups()) if found else hosts
