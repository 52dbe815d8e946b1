"""A study of 10,000 cells planned, from the command line to the first cell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqbench.benchmark.base import Row, Settings, alone

ROOT = Path(__file__).resolve().parents[2]
GOAL = 2.0  # s
ENCODERS = [
    *("lstm", "gru", "bilstm", "bigru", "tcn"),
    *("tcn_centred", "encoder_only", "decoder_only", "encoder_decoder", "s4d"),
]
TASKS = [
    *("atis_slots", "dailydialog_plusplus", "digits", "etth1", "etth1_192", "etth1_336", "etth1_720", "fsdd", "g2p"),
    *("jsb_chorales", "listops", "listops_lra", "ml_100k", "mqar", "mr", "multi30k", "python_code", "python_code_lm"),
    *("scan", "scan_jump", "scan_length", "sst2", "subj", "tinyshakespeare", "trec"),
]
SMALL = ["listops", "scan", "mqar", "digits", "python_code"]
# The process says what planning took of it, and what it needed, and ends where the first cell would begin.
PLANNED = f"""
import json, os, resource, runpy, sys, time
clock = time.perf_counter if sys.argv.pop(1) == "wall" else lambda: sum(os.times()[:4])  # with its processes
import torch, seqbench.run, seqbench.studies.sweep as sweep
began, plan = clock(), sweep.plan_sweep
def planned(*given, **keys):
    began = clock()
    made = plan(*given, **keys)
    found["seconds"], found["cells"] = clock() - began, len(made.cells)
    return made
def here(cells, leaving):
    found["mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found["all"] = clock() - began
    print(json.dumps(found), flush=True)
    os._exit(0)
found = {{}}
sweep.plan_sweep, sweep._here = planned, here
sys.argv[0] = {str(ROOT / "scripts" / "train.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """What it took."""

    cells: int
    seconds: float  # planning alone
    all: float  # from the imports to the first cell
    mib: float


def grid(encoders: int, tasks: int, seeds: int) -> dict[str, Any]:
    """A block of a study: rows of ten encoders in several widths (25 tasks) or at several learning rates (5)."""
    names = ENCODERS[:encoders]
    each = max(1, encoders // len(names))
    wide = tasks > len(SMALL)
    vary = {"encoder.dim": [64 + 32 * i for i in range(each)]} if wide else {}
    rates = {} if wide else {"optimizer.lr": [round(1e-4 * (i + 1), 6) for i in range(each)]}
    chosen = (TASKS if wide else SMALL)[:tasks]
    return {"encoder": names, **vary, **rates, "task": chosen, "seed": list(range(seeds))}


def plan(block: dict[str, Any], clock: str) -> Planned:
    """Plan a study of one block in a process of its own. Raises CalledProcessError where that fails."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study" / "many.yaml"
        path.parent.mkdir()
        path.write_text(json.dumps({"name": "many", "title": "Many", "grid": [block]}), encoding="utf-8")
        words = ["--config-dir", folder, "-m", "study=many", f"results={folder}/results", "jobs=1"]
        ran = subprocess.run(
            [sys.executable, "-c", PLANNED, clock, *words],
            check=True,
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )
    return Planned(**json.loads(ran.stdout.splitlines()[-1]))


def measure(settings: Settings) -> list[Row]:
    """Seconds from the imports of torch and SeqBench to the first cell, for two shapes; and the imports."""
    repeats = settings.pairs(5)
    imports = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch, seqbench.run, os; os._exit(0)"], check=True, cwd=ROOT)
        imports.append(time.perf_counter() - start)
    rows = [alone("start of the process, with torch", imports, unit="s", goal=None, better="lower")]
    for shape in ((2, 2, 2),) if settings.quick else ((400, 5, 5), (40, 25, 10)):
        made = [plan(grid(*shape), settings.clock) for _ in range(repeats)]
        what = f"study of {' x '.join(map(str, shape))} planned"
        note = f"{made[0].cells:,} cells, start aside"
        rows.append(alone(what, [one.all for one in made], unit="s", goal=GOAL, better="lower", note=note))
    return rows
