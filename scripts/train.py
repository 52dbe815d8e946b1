"""One run, a sweep or a study: `python scripts/train.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seqbench.garbage import uncollected

with uncollected():
    from seqbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
