"""How boards and plans grow with records: `python scripts/scaling.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seqbench.benchmark.curve import main

if __name__ == "__main__":
    sys.exit(main())
