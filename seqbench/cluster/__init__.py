"""Cells of a sweep as jobs of a SLURM cluster: `hydra/launcher=slurm` (docs/cluster.md)."""
