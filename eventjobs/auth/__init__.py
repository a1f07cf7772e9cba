"""Secrets and tokens: the master key of a data directory and what is derived from it."""
