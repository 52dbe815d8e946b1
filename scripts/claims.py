"""A claim's runs and its verdict: `python scripts/claims.py claim=NAME`; `--help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seqbench.claims.command import main

if __name__ == "__main__":
    sys.exit(main())
