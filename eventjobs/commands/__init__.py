"""The write side: each command loads a job, decides, and appends at most one event."""
