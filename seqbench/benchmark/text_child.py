"""A process that trains one side of the text benchmark and tells its peak memory."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from seqbench.benchmark.base import Settings


def main(argv: Sequence[str]) -> int:
    """Arguments: data set, folder that `text` has prepared, side, steps. Prints JSON, the peak in MiB."""
    name, folder, side, steps = argv[0], Path(argv[1]), argv[2], int(argv[3])
    settings = Settings(repeats=None, quick=False, threads=1, seed=0, clock="wall")
    if side.startswith("ours"):
        from seqbench.benchmark.text_ours import Ours

        Ours(name, folder, rows=64).train(settings, steps=steps, seed=0, packed=side == "ours packed")
    else:
        from seqbench.benchmark.text import peer_of

        sampling = "group_by_length" if side.endswith("grouped") else "random"
        peer_of(name, folder).train(settings, steps=steps, seed=0, sampling=sampling)
    print(json.dumps({"peak_mib": peak_mib()}))
    return 0


def peak_mib() -> float:
    """Peak of this process's resident set.

    Not what getrusage tells where it can be had otherwise: on Linux that begins with the peak of who started the
    process.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
