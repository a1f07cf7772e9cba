"""Malformed, ambiguous and hostile requests; afterwards the service is as healthy as before."""
