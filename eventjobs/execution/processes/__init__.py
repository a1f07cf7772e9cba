"""Handlers in processes of their own, which a cancel or a timeout can kill.

docs/internals/processes.md explains the pool, the reaper and the messages.
"""
