"""Measures this machine against the floors: `python -m eventjobs.tools.bench`."""
