"""What the harness costs beside its peers: a module a measurement, `python scripts/benchmark.py` runs them."""
