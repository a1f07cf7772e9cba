"""Handlers in processes of their own, which a cancel or a timeout can kill."""
