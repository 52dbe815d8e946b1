"""Start-up of fresh processes, help, a config error and a first step, against importing torch (and Lightning)."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from seqbench.benchmark.base import Row, Settings, alternate, compared

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / "scripts" / "train.py"
# A process is timed to its end. These end at once, so that no time to tidy up counts, on either side.
TORCH = "import os, torch; os._exit(0)"
LIGHTNING = "import os, torch, pytorch_lightning; os._exit(0)"
FIRST_STEP = f"""
import os, runpy, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: os._exit(77))
sys.argv[0] = {str(TRAIN)!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# A cell of configs/study/quickstart.yaml
CELL = [
    *("encoder=encoder_only", "encoder.dim=64", "encoder.depth=2", "encoder.heads=2", "encoder.hidden=128"),
    *("encoder.dropout=0.0", "task=listops", "task.data.train=5000", "optimizer.lr=3.0e-3", "trainer.threads=1"),
    *("budget.steps=500", "budget.eval_every=100", "budget.eval_limit=256"),
]


def measure(settings: Settings) -> list[Row]:
    """Seconds from the start of a process to its end, or to its first optimizer step."""
    repeats = settings.pairs(11)

    def timed(command: Sequence[str], expected: int) -> Callable[[], float]:
        def call() -> float:
            with tempfile.TemporaryDirectory() as folder:
                start = _now(settings)
                done = subprocess.run(
                    [sys.executable, *command], cwd=folder, capture_output=True, text=True, env=_environment(settings)
                )
                seconds = _now(settings) - start
            if done.returncode != expected:
                raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
            return seconds

        return call

    torch, lightning = timed(["-c", TORCH], 0), timed(["-c", LIGHTNING], 0)
    rows = [
        ("--help, to importing torch", timed([str(TRAIN), "--help"], 0), torch, 0.5),
        ("no such key, to importing torch", timed([str(TRAIN), "encoder.dpeth=3"], 2), torch, 0.5),
        ("a value of a wrong type, to importing torch", timed([str(TRAIN), "encoder.dim=wide"], 2), torch, 0.5),
        (
            "first optimizer step, to importing torch and pytorch_lightning",
            timed(["-c", FIRST_STEP, *CELL, "results=results"], 77),
            lightning,
            1.5,
        ),
    ]
    return [
        compared(what, alternate(ours, peer, repeats=repeats), unit="s", goal=goal, better="lower")
        for what, ours, peer, goal in rows
    ]


def _now(settings: Settings) -> float:
    """Seconds of the clock; of the processor: those of child processes that have ended."""
    if settings.clock == "wall":
        return time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _environment(settings: Settings) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(settings.threads)}
