"""The service is killed, or stopped, under load; see the package above."""
