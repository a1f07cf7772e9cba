"""Commands beside the service: eventjobs-replay and eventjobs-audit, and tools of a checkout."""
