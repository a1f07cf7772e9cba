"""What the service does by itself: cascading cancels, expiry, schedules."""
