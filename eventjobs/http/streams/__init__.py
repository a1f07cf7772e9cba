"""Server-sent events: facts and snapshots, live and from any position."""
