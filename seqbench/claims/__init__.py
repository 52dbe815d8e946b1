"""A published system's central statement as a comparison of runs, and the verdict as it falls."""
