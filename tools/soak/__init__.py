"""Campaigns that look for broken promises; `python -m tools.soak` runs them."""
