"""Measures eventjobs against floors and raw limits: `python -m eventjobs.tools.bench`."""
