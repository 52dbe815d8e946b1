"""Records to a board: `python scripts/leaderboard.py --help`."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seqbench.garbage import leave
from seqbench.leaderboard import main

if __name__ == "__main__":
    kept: list[Any] = []
    leave(main(kept=kept))
