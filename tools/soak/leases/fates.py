"""When workers were paused and killed, and when the service ran."""

from dataclasses import dataclass, field

#: Not yet.
NEVER_US = 2**63


@dataclass
class Fate:
    """The pauses and the end of one worker, in microseconds of the wall clock."""

    #: from SIGSTOP to SIGCONT
    pauses: list[tuple[int, int]] = field(default_factory=list)
    ended_us: int = NEVER_US

    def silences(self) -> list[tuple[int, int]]:
        """The times in which it cannot have reported."""
        return [*self.pauses, (self.ended_us, NEVER_US)]


@dataclass
class Fates:
    """The fates of all workers that were started, by name, and the lives of the service."""

    lease_us: int
    workers: dict[str, Fate] = field(default_factory=dict)
    #: of each life of the service, when it was ready and when it was killed
    lives: list[tuple[int, int]] = field(default_factory=list)

    def last_ready_us(self, before_us: int) -> int:
        """When the service that ran at *before_us* was ready."""
        return max((ready for ready, _ in self.lives if ready <= before_us), default=0)

    def died_within(self, from_us: int, to_us: int) -> bool:
        """Whether the service was killed in that time."""
        return any(from_us <= died <= to_us for _, died in self.lives)
