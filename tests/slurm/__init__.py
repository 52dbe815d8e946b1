"""Sweeps on a real SLURM of two nodes on this machine: `make test-slurm`."""
