"""Compares the history of the clients with the log, piece by piece, and collects faults."""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from eventjobs.domain.codec import decode
from eventjobs.domain.events import (
    ArtifactStored,
    CancelRequested,
    Event,
    JobCancelled,
    JobRetried,
    JobSubmitted,
)
from eventjobs.domain.job import Job, evolve
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import CorruptLog

from .history import FAULTS_MAX, Claim, Due, Stream
from .rules import violation

COMMITMENT = b"eventjobs/body/v1\0"
READ = """
SELECT position, job_id, version, type, at_us, actor, facts, body, salt, commitment
FROM events
WHERE position > ?
ORDER BY position
"""
LOG_ID = "SELECT value FROM meta WHERE name = 'log_id'"


class Row(NamedTuple):
    """One row of the log, as it is stored."""

    position: int
    job_id: str
    version: int
    type: str
    at_us: int
    actor: str
    facts: bytes
    body: bytes | None
    salt: bytes | None
    commitment: bytes


def read_log(data: Path, after: int) -> tuple[str, list[Row]]:
    """The id of the log, and its rows above position *after*.

    The database is closed again: an open connection at the moment of a kill would spare the next
    start its recovery.
    """
    uri = f"{(data / 'log.db').absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        [(log_id,)] = connection.execute(LOG_ID).fetchall()
        return log_id, [Row(*each) for each in connection.execute(READ, (after,)).fetchall()]


class Place(NamedTuple):
    """The event at one position, and the state of its job after it."""

    job_id: str
    version: int
    status: str
    finished: bool
    attempt: int
    cancelled: bool  # by this event or an earlier one
    line: int  # hash of the event as clients read it


class Checker:
    """Reads the log once, in order; *faults* are the broken promises."""

    def __init__(self, attempted: set[str]) -> None:
        self.faults: list[str] = []
        self.jobs: dict[str, Job] = {}
        self.recovered = 0
        self.artifacts: set[str] = set()
        self._attempted = attempted
        #: tokens in the log, with the job of each
        self._tokens: dict[str, str] = {}
        self._places: list[Place] = []
        self._by_job: dict[str, list[int]] = {}
        self._log_id: str | None = None

    @property
    def head(self) -> int:
        return len(self._places)

    def fault(self, text: str) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(text)

    def check(self, log_id: str, rows: Iterable[Row], due: Due) -> None:
        """Read *rows*, the log above *head*, and compare it with the claims that are *due*."""
        if log_id != (self._log_id or log_id):
            self.fault(f"the log {self._log_id} was replaced by another one, {log_id}")
        self._log_id = log_id
        earlier = set(self._tokens)
        for row in rows:
            if not self._read(row):
                return
        for claim in due.claims:
            self._confirm(claim)
        for stream, received, ended in due.streams:
            self._compare(stream, received)
            if ended:
                self._end(stream)
        acknowledged = {claim.token for claim in due.claims}
        for token in due.unknown & (self._tokens.keys() - earlier) - acknowledged:
            self._count_unanswered(token)

    def _count_unanswered(self, token: str) -> None:
        """The request was recorded, and the connection cut off before the response."""
        self.recovered += 1

    # --- the log by itself

    def _read(self, row: Row) -> bool:
        """Take one row; False when later rows cannot be judged."""
        if row.position != self.head + 1:
            self.fault(f"position {self.head + 1} is missing: {row.position} follows")
            return False
        where = f"position {row.position}, {row.type} of job {row.job_id}"
        job = self.jobs.get(row.job_id)
        version = job.version + 1 if job is not None else 1
        if row.version != version:
            self.fault(f"{where}: version {version} is missing, {row.version} follows")
        if not matches_commitment(row):
            self.fault(f"{where}: the body is not the one that was committed to")
        try:
            event = decode(row.type, row.facts, row.body)
        except CorruptLog as error:
            self.fault(f"{where}: {error.message}")
            return False
        recorded = Recorded(*row[:3], row.at_us, row.actor, event, row.type, row.facts, row.body)
        if (why := violation(job, recorded)) is not None:
            self.fault(f"{where}: {why}")
        try:
            self.jobs[row.job_id] = job = evolve(job, recorded)
        except AssertionError as error:
            self.fault(f"{where}: {error}")
            return False
        self._find(recorded, where)
        self._place(recorded, job)
        return True

    def _find(self, recorded: Recorded, where: str) -> None:
        """Each request carries a token: it was sent, and it has one effect."""
        if isinstance(recorded.event, ArtifactStored):
            self.artifacts.add(recorded.event.sha256)
        token = token_of(recorded.event)
        if token is None:
            return
        if token not in self._attempted:
            self.fault(f"{where}: no client sent {token!r}")
        if token in self._tokens:
            self.fault(f"{where}: {token!r} happened before, to job {self._tokens[token]}")
        self._tokens[token] = recorded.job_id

    def _place(self, recorded: Recorded, job: Job) -> None:
        places = self._by_job.setdefault(job.job_id, [])
        requested = isinstance(recorded.event, CancelRequested | JobCancelled)
        cancelled = requested or (bool(places) and self._places[places[-1] - 1].cancelled)
        line = hash(recorded.json().decode())
        places.append(recorded.position)
        self._places.append(
            Place(job.job_id, job.version, job.status, job.finished, job.attempt, cancelled, line)
        )

    # --- responses and streams

    def _confirm(self, claim: Claim) -> None:
        response = f"{claim.who} received job {claim.job_id} at position {claim.position}"
        if not 1 <= claim.position <= self.head:
            self.fault(f"{response}, which is lost: the log ends at {self.head}")
            return
        place = self._places[claim.position - 1]
        if place.job_id != claim.job_id:
            self.fault(f"{response}, where the log has job {place.job_id}")
            return
        for name in ("version", "status", "attempt"):
            value, recorded = getattr(claim, name), getattr(place, name)
            if value is not None and value != recorded:
                self.fault(f"{response}: {name} {value}, but it was {recorded}")
        if claim.token is not None and self._tokens.get(claim.token) != claim.job_id:
            self.fault(f"{response}: {claim.token!r} is lost, though it was acknowledged")
        if claim.cancelled and not place.cancelled:
            self.fault(f"{response}: cancelled, but no cancel was requested")

    def _compare(self, stream: Stream, received: list[tuple[int, int]]) -> None:
        """*stream* received a slice of the log: in order, no gap, no repeat, no change."""
        wanted = self._slice(stream)
        for position, line in received:
            if position <= stream.confirmed:
                self.fault(f"{stream.name} received position {position} again")
                return
            expected = next(wanted, None)
            if expected is None:
                self.fault(f"{stream.name} received position {position}, which does not exist")
                return
            if position != expected:
                self.fault(f"{stream.name} received position {position} instead of {expected}")
                return
            if line != self._places[position - 1].line:
                self.fault(f"{stream.name} received another event at position {position}")
            stream.confirmed = position

    def _slice(self, stream: Stream) -> Iterator[int]:
        """The positions that *stream* has yet to receive."""
        after = stream.confirmed
        if stream.ids is not None:
            mine = (each for job_id in stream.ids for each in self._by_job.get(job_id, ()))
            yield from sorted(each for each in mine if each > after)
            return
        for position in range(after + 1, self.head + 1):
            job = self.jobs[self._places[position - 1].job_id]
            if stream.types is None or job.spec.type in stream.types:
                yield position

    def _end(self, stream: Stream) -> None:
        """A stream ends only after it has delivered the end of each of its jobs."""
        for job_id in stream.ids or ():
            mine = [each for each in self._by_job.get(job_id, ()) if each <= stream.confirmed]
            if not mine or not self._places[mine[-1] - 1].finished:
                self.fault(f"{stream.name} ended before job {job_id} did")

    # --- at the end

    def finish(self, streams: Iterable[Stream], snapshots: dict[str, int], data: Path) -> None:
        """After the service has drained: every job ended, and every stream is complete."""
        for job in self.jobs.values():
            if not job.finished:
                self.fault(f"job {job.job_id} is still {job.status} in attempt {job.attempt}")
            if snapshots.get(job.job_id, 0) != job.version:
                seen = snapshots.get(job.job_id)
                self.fault(f"the last snapshot of job {job.job_id} was {seen}, not {job.version}")
        for stream in streams:
            if stream.ids is None and (missed := next(self._slice(stream), None)) is not None:
                self.fault(f"{stream.name} never received position {missed}")
        for sha256 in self.artifacts:
            path = data / "artifacts" / sha256[:2] / sha256
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                self.fault(f"artifact {sha256} is missing or changed")


def token_of(event: Event) -> str | None:
    """The token of the request that caused *event*."""
    match event:
        case JobSubmitted(spec=spec):
            return str(spec.payload["token"])
        case (
            CancelRequested(reason=reason) | JobCancelled(reason=reason) | JobRetried(reason=reason)
        ):
            return reason
        case _:
            return None


def matches_commitment(row: Row) -> bool:
    if row.salt is None or row.body is None:
        return False
    return hashlib.sha256(COMMITMENT + row.salt + row.body).digest() == row.commitment
