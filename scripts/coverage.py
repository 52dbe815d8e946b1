"""Coverage of the board's intervals by simulation: `python scripts/coverage.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seqbench.coverage import main

if __name__ == "__main__":
    sys.exit(main())
