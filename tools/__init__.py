"""Scripts that stand on the log and the projections alone."""
