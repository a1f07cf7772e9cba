"""The prefix of what an event's commitment hashes. A commitment outlives an erased body."""

COMMITMENT = b"eventjobs/body/v1\0"
