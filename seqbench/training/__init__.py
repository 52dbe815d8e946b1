"""One training: from its first batch to its record, or to what is kept of it when it ends before."""
