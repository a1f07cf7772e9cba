"""Running attempts: slots, the handler under its limits, its reports, its outcome.

docs/internals/slots.md explains slots and prefetch.
"""
