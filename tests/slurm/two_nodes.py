"""A SLURM of two nodes on this machine, with keys, ports and files of its own; all of it ends with `stop()`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "srun", "scancel")
CONFIG = """
ClusterName=seqbench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=30
SlurmdTimeout=15
MinJobAge=600
SchedulerParameters=sched_interval=2,bf_interval=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs=1 RealMemory=2000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2} CPUs=1 RealMemory=2000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""
# Nodes are found by address and port: their names need not resolve, and no file of the system's is touched.


def missing() -> str | None:
    """Why no SLURM can be started here; None if one can."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    lacking = [name for name in NEEDED if not shutil.which(name, path=path)]
    if lacking:
        return f"SLURM is not installed ({', '.join(lacking)}); make test-slurm installs it where apt-get and root can"
    return None if os.geteuid() == 0 else "slurmd and munged of two nodes want root"


def wait(what: str, until: Callable[[], object], seconds: float = 300.0) -> None:
    """Until something is so; an error that says what was not."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, f"not within {seconds:g} seconds: {what}"
        time.sleep(0.3)


class TwoNodes:
    """The cluster, in a folder of its own whose path is short: sockets take 107 characters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.over = threading.Event()
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))},
            "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
            "SLURM_CONF": str(folder / "slurm.conf"),
        }

    def start(self) -> None:
        """Start all daemons, and wait until both nodes are idle."""
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        ports = free_ports(3)
        text = CONFIG.format(
            host=socket.gethostname().partition(".")[0],
            folder=self.folder,
            **dict(zip(("ctld", "n1", "n2"), ports, strict=True)),
        )
        (self.folder / "slurm.conf").write_text(text)
        own = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        files = [f"--{option}={self.folder}/munge.{name}" for option, name in own.items()]
        self._daemon("munged", "--foreground", "--force", *files)
        wait("munge's socket", (self.folder / "munge.socket").exists)
        self._daemon("slurmctld", "-D")
        for node in ("n1", "n2"):
            self.up(node)
        threading.Thread(target=self._hasten, daemon=True).start()

    def up(self, node: str) -> None:
        """Start a node's daemon, and wait until the node is idle."""
        self._daemon("slurmd", "-D", "-N", node, name=node)

        def idle() -> bool:
            state = self.ask("sinfo", "-h", "-n", node, "-o", "%T")
            if "down" in state:
                self.ask("scontrol", "update", f"nodename={node}", "state=resume")
            return state == "idle"

        wait(f"{node} is idle", idle)

    def down(self, node: str) -> None:
        """A power cut: the node's daemon, and whatever runs on it, get SIGKILL."""
        daemon = self.daemons.pop(node)
        daemon.kill()
        daemon.wait()
        there = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("SLURMD_NODENAME") == node:
                    there.append(process)
        for process in there:  # first slurmstepd, who would report the death of the rest; it hides its environment
            with contextlib.suppress(psutil.Error):
                if (parent := process.parent()) and "slurmstepd" in " ".join(parent.cmdline()):
                    parent.kill()
        for process in there:
            with contextlib.suppress(psutil.Error):
                process.kill()

    def processes(self) -> Iterator[psutil.Process]:
        """What was started by this cluster's daemons, and commands that ask it."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get("SLURM_CONF") == str(
                    self.folder / "slurm.conf"
                ):
                    yield process

    def ask(self, *command: str) -> str:
        """What a command of SLURM's says, '' where it fails."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)
        return done.stdout.strip() if done.returncode == 0 else ""

    def state(self, job: str) -> str:
        """`RUNNING`, of `12_3`."""
        return self.ask("squeue", "-h", "--states=all", "--array", "-j", job, "-o", "%T")

    def node(self, job: str) -> str:
        """Where it runs."""
        return self.ask("squeue", "-h", "--array", "-j", job, "-o", "%N")

    def _hasten(self) -> None:
        """SLURM lets a requeued job wait for two minutes; here it needn't."""
        while not self.over.wait(1.0):
            for line in self.ask("squeue", "-h", "--array", "-t", "PENDING", "-o", "%F_%K %r").splitlines():
                job, _, reason = line.partition(" ")
                if reason == "BeginTime":
                    self.ask("scontrol", "update", f"jobid={job}", "starttime=now")

    def _daemon(self, *command: str, name: str | None = None) -> None:
        log = (self.folder / f"{name or command[0]}.out").open("ab")
        program = shutil.which(command[0], path=self.environment["PATH"])
        assert program is not None
        self.daemons[name or command[0]] = subprocess.Popen(
            [program, *command[1:]], env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        log.close()

    def stop(self) -> None:
        """End jobs and daemons; nothing of them is left."""
        self.over.set()
        if self.daemons:
            self.ask("scancel", "--user=root")
            self.ask("scancel", "--user=root", "--signal=KILL", "--full")
        for name in reversed(self.daemons):  # as they were started: munged ends last
            self.daemons[name].terminate()
            try:
                self.daemons[name].wait(20)
            except subprocess.TimeoutExpired:
                self.daemons[name].kill()
                self.daemons[name].wait()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)

    def told(self) -> str:
        """The ends of the daemons' logs, for a test that failed."""
        logs = [*self.folder.glob("*.log"), *self.folder.glob("*.out")]
        return "\n".join(
            f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:]) for log in logs
        )


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens to now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
