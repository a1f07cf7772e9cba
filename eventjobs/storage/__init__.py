"""Files on this machine: SQLite connections, the data directory, artifacts, scratch space."""
