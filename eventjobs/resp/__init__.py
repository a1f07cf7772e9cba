"""A read-only listener for redis-cli: jobs as keys, in the protocol of Redis (RESP2)."""
