"""Published figures beside ours: `python scripts/calibration.py list | run [LINE ...] | publish [LINE ...]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seqbench.calibration import main

if __name__ == "__main__":
    sys.exit(main())
