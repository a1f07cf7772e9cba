"""Background work of the service: cascading cancels, expiry, schedules."""
