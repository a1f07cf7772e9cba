"""Locks by key, batches of concurrent calls, threads, and forked processes."""
