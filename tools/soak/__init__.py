"""Campaigns that look for broken promises; `python -m eventjobs.tools.soak` runs them."""
