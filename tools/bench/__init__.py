"""Measures this machine against the floors: `python -m tools.bench`."""
