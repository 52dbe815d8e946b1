"""The harness against its peers, measured here: `python scripts/benchmark.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seqbench.benchmark.command import main

if __name__ == "__main__":
    sys.exit(main())
