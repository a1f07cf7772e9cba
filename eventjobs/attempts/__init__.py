"""Which worker runs a job, and which of its reports count: claims, limits, leases, fencing.

Design: docs/internals/claims.md and docs/internals/leases.md.
"""
