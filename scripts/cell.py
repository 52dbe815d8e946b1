"""One cell of a batch that was submitted to a cluster: `python scripts/cell.py results/slurm/BATCH [INDEX]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seqbench.cluster.job import main

if __name__ == "__main__":
    sys.exit(main())
