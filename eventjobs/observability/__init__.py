"""The log lines of the service, captured lines of handlers, tracebacks, and redaction."""
