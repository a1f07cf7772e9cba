"""Server-sent events: the log's events and jobs' snapshots, live and from any position."""
