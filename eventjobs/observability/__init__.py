"""What the service says about itself: its log lines, captured handler logs, and redaction."""
