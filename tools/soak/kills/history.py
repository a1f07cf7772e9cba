"""What clients sent, what was answered, and what their streams delivered."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

#: Faults that are kept; the first ones say the most.
FAULTS_MAX = 20


class Claim(NamedTuple):
    """A response to *who* about a job: at *position* the job was at *version*, and so on.

    It acknowledges the submission with *token*; with *cancelled*, a cancel.
    """

    who: str
    job_id: str
    position: int
    version: int | None = None
    status: str | None = None
    attempt: int | None = None
    token: str | None = None
    cancelled: bool = False


class Stream:
    """The events that one reader received, over all its connections.

    Of jobs with *ids*, of *types*, or, without either, of all jobs.
    """

    def __init__(
        self, name: str, ids: Iterable[str] | None = None, types: Iterable[str] | None = None
    ) -> None:
        self.name = name
        self.ids = None if ids is None else frozenset(ids)
        self.types = None if types is None else frozenset(types)
        #: (position, hash of the data), not compared with the log yet
        self.received: list[tuple[int, int]] = []
        self.events = 0
        self.newest = 0
        #: the service has ended the stream
        self.ended = False
        #: the newest position that was compared with the log
        self.confirmed = 0

    def receive(self, position: int, data: str) -> None:
        self.received.append((position, hash(data)))
        self.events += 1
        self.newest = position


class History:
    """Everything that the clients of a campaign sent and received."""

    def __init__(self) -> None:
        self.attempted: set[str] = set()
        self.faults: list[str] = []
        self.acknowledged = 0
        self.outcomes: Counter[str] = Counter()
        #: received, not compared with the log yet
        self.claims: list[Claim] = []
        #: tokens of requests without a response, since the last comparison
        self.unknown: set[str] = set()
        self.streams: list[Stream] = []
        self._ended_events = 0  # events of streams that ended
        #: by job, the newest version in a response
        self.versions: dict[str, int] = {}
        #: by job, the newest version that the reader of snapshots has seen
        self.snapshots: dict[str, int] = {}
        self.snapshots_seen = 0
        self.snapshots_newest = 0

    def fault(self, text: str) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(text)

    def attempt(self, token: str) -> str:
        """Note *token* before the request with it is sent; its event carries the token."""
        assert token not in self.attempted
        self.attempted.add(token)
        return token

    def acknowledge(self, claim: Claim) -> None:
        self.acknowledged += 1
        self.claims.append(claim)
        if claim.version is not None:
            self.versions[claim.job_id] = max(claim.version, self.versions.get(claim.job_id, 0))

    def snapshot(self, claim: Claim) -> None:
        """Note a snapshot: versions may be skipped, but never go back."""
        self.snapshots_seen += 1
        self.snapshots_newest = max(self.snapshots_newest, claim.position)
        self.claims.append(claim)
        assert claim.version is not None
        before = self.snapshots.get(claim.job_id, 0)
        if claim.version < before:
            change = f"from version {before} to {claim.version}"
            self.fault(f"{claim.who}: job {claim.job_id} went back {change}")
        self.snapshots[claim.job_id] = claim.version

    def stream(
        self, name: str, ids: Iterable[str] | None = None, types: Iterable[str] | None = None
    ) -> Stream:
        stream = Stream(name, ids, types)
        self.streams.append(stream)
        return stream

    @property
    def delivered(self) -> int:
        return sum(each.events for each in self.streams) + self._ended_events

    def remove(self, ended: Iterable[Stream]) -> None:
        removed = set(ended)
        self._ended_events += sum(each.events for each in removed)
        self.streams = [each for each in self.streams if each not in removed]


class Due(NamedTuple):
    """The claims that the log has to confirm after the next start: a part of a History."""

    claims: list[Claim]
    unknown: set[str]
    #: each stream with its (position, hash) pairs, and whether it has ended
    streams: list[tuple[Stream, list[tuple[int, int]], bool]]

    @classmethod
    def of(cls, history: History) -> "Due":
        """Take the claims since the last call out of *history*."""
        claims, history.claims = history.claims, []
        unknown, history.unknown = history.unknown, set()
        streams = []
        for each in history.streams:
            received, each.received = each.received, []
            streams.append((each, received, each.ended))
        history.remove(each for each, _, ended in streams if ended)
        return cls(claims, unknown, streams)
