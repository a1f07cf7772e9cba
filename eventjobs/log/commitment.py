"""The commitment of an event's body, which outlives an erased body."""

COMMITMENT = b"eventjobs/body/v1\0"
