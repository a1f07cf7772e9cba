"""What was done to workers and to the service, and when: the other side of what the log tells."""

from dataclasses import dataclass, field

#: Never, or not yet.
NEVER_US = 2**63


@dataclass
class Fate:
    """The times of one worker, by the wall clock in microseconds."""

    #: from SIGSTOP to SIGCONT
    pauses: list[tuple[int, int]] = field(default_factory=list)
    ended_us: int = NEVER_US

    def silences(self) -> list[tuple[int, int]]:
        """When nothing can have been heard from it."""
        return [*self.pauses, (self.ended_us, NEVER_US)]


@dataclass
class Fates:
    """Of all that took part. Workers that are not known were never started."""

    lease_us: int
    workers: dict[str, Fate] = field(default_factory=dict)
    #: by life, when the service was ready, and when it was killed
    lives: list[tuple[int, int]] = field(default_factory=list)

    def last_ready_us(self, before_us: int) -> int:
        """When the service that ran then had begun to listen."""
        return max((ready for ready, _ in self.lives if ready <= before_us), default=0)

    def died_within(self, from_us: int, to_us: int) -> bool:
        """Whether the service was killed in that time."""
        return any(from_us <= died <= to_us for _, died in self.lives)
