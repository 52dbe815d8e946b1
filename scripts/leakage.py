"""What a task's data gives away: `python scripts/leakage.py task=NAME`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seqbench.leakage_command import main

if __name__ == "__main__":
    sys.exit(main())
