"""Holds the clients' history against the log, a piece at a time, and complains."""

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

from .crash_history import FAULTS_MAX, Claim, Due, Stream
from .crash_rules import illegal

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


def stored(data: Path, after: int) -> tuple[str, list[Row]]:
    """The log's name, and its rows above position *after*.

    Nothing of the database stays open: whoever holds it while the service is killed spares the
    next start its recovery.
    """
    uri = f"{(data / 'log.db').absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        [(log_id,)] = connection.execute(LOG_ID).fetchall()
        return log_id, [Row(*each) for each in connection.execute(READ, (after,)).fetchall()]


class Place(NamedTuple):
    """What is known of one position: the event there, and the job after it."""

    job_id: str
    version: int
    status: str
    finished: bool
    attempt: int
    cancelled: bool  # somebody asked for it, here or before
    line: int  # hash of the event as everybody reads it


class Checker:
    """Reads the log in order, once; *faults* is what cannot be."""

    def __init__(self, attempted: set[str]) -> None:
        self.faults: list[str] = []
        self.jobs: dict[str, Job] = {}
        self.recovered = 0
        self.artifacts: set[str] = set()
        self._attempted = attempted
        #: tokens found in the log, with the job of each
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
        """Read *rows*, the log above *head*; then all that is *due* has to be true."""
        if log_id != (self._log_id or log_id):
            self.fault(f"the log {self._log_id} became another one, {log_id}")
        self._log_id = log_id
        known = set(self._tokens)
        for row in rows:
            if not self._read(row):
                return
        for claim in due.claims:
            self._confirm(claim)
        for stream, received, ended in due.streams:
            self._compare(stream, received)
            if ended:
                self._end(stream)
        told = {claim.token for claim in due.claims}
        for token in due.unknown & (self._tokens.keys() - known) - told:
            self._unanswered(token)

    def _unanswered(self, token: str) -> None:
        """It happened, and whoever asked for it was never told: the connection was cut off."""
        self.recovered += 1

    # --- the log by itself

    def _read(self, row: Row) -> bool:
        """Take one row; False where what follows could not be judged."""
        if row.position != self.head + 1:
            self.fault(f"position {self.head + 1} is missing: {row.position} follows")
            return False
        where = f"position {row.position}, {row.type} of job {row.job_id}"
        job = self.jobs.get(row.job_id)
        version = job.version + 1 if job is not None else 1
        if row.version != version:
            self.fault(f"{where}: version {version} is missing, {row.version} follows")
        if not _committed(row):
            self.fault(f"{where}: the body is not the one that was committed to")
        try:
            event = decode(row.type, row.facts, row.body)
        except CorruptLog as error:
            self.fault(f"{where}: {error.message}")
            return False
        recorded = Recorded(*row[:3], row.at_us, row.actor, event, row.type, row.facts, row.body)
        if (why := illegal(job, recorded)) is not None:
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
        """What clients did carries a token: it was attempted, and it happened once."""
        if isinstance(recorded.event, ArtifactStored):
            self.artifacts.add(recorded.event.sha256)
        token = token_of(recorded.event)
        if token is None:
            return
        if token not in self._attempted:
            self.fault(f"{where}: nobody attempted {token!r}")
        if token in self._tokens:
            self.fault(f"{where}: {token!r} happened before, to job {self._tokens[token]}")
        self._tokens[token] = recorded.job_id

    def _place(self, recorded: Recorded, job: Job) -> None:
        places = self._by_job.setdefault(job.job_id, [])
        asked = isinstance(recorded.event, CancelRequested | JobCancelled)
        cancelled = asked or (bool(places) and self._places[places[-1] - 1].cancelled)
        line = hash(recorded.json().decode())
        places.append(recorded.position)
        self._places.append(
            Place(job.job_id, job.version, job.status, job.finished, job.attempt, cancelled, line)
        )

    # --- what clients were told

    def _confirm(self, claim: Claim) -> None:
        told = f"{claim.who} was told of job {claim.job_id} at position {claim.position}"
        if not 1 <= claim.position <= self.head:
            self.fault(f"{told}, which is lost: the log ends at {self.head}")
            return
        place = self._places[claim.position - 1]
        if place.job_id != claim.job_id:
            self.fault(f"{told}, where the log has job {place.job_id}")
            return
        for name in ("version", "status", "attempt"):
            said = getattr(claim, name)
            if said is not None and said != getattr(place, name):
                self.fault(f"{told}: {name} {said}, but it was {getattr(place, name)}")
        if claim.token is not None and self._tokens.get(claim.token) != claim.job_id:
            self.fault(f"{told}: {claim.token!r} is lost, though it was acknowledged")
        if claim.cancelled and not place.cancelled:
            self.fault(f"{told}: cancelled, but nothing had asked it to stop")

    def _compare(self, stream: Stream, received: list[tuple[int, int]]) -> None:
        """What *stream* got is the log's own slice: in order, no gap, no repeat, no change."""
        wanted = self._slice(stream)
        for position, line in received:
            if position <= stream.confirmed:
                self.fault(f"{stream.name} was given position {position} again")
                return
            expected = next(wanted, None)
            if expected is None:
                self.fault(f"{stream.name} was given position {position}, which is not there")
                return
            if position != expected:
                self.fault(f"{stream.name} was given position {position} instead of {expected}")
                return
            if line != self._places[position - 1].line:
                self.fault(f"{stream.name} was given another event at position {position}")
            stream.confirmed = position

    def _slice(self, stream: Stream) -> Iterator[int]:
        """The positions that *stream* has yet to be given."""
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
        """A stream ends only when each of its jobs had ended by what was delivered."""
        for job_id in stream.ids or ():
            mine = [each for each in self._by_job.get(job_id, ()) if each <= stream.confirmed]
            if not mine or not self._places[mine[-1] - 1].finished:
                self.fault(f"{stream.name} ended before job {job_id} did")

    # --- at the end

    def finish(self, streams: Iterable[Stream], snapshots: dict[str, int], data: Path) -> None:
        """The service was left to drain: nothing is left over, nowhere."""
        for job in self.jobs.values():
            if not job.finished:
                self.fault(f"job {job.job_id} is still {job.status} in attempt {job.attempt}")
            if snapshots.get(job.job_id, 0) != job.version:
                seen = snapshots.get(job.job_id)
                self.fault(f"the last snapshot of job {job.job_id} was {seen}, not {job.version}")
        for stream in streams:
            if stream.ids is None and (missed := next(self._slice(stream), None)) is not None:
                self.fault(f"{stream.name} was never given position {missed}")
        for sha256 in self.artifacts:
            path = data / "artifacts" / sha256[:2] / sha256
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                self.fault(f"artifact {sha256} is not there as it was stored")


def token_of(event: Event) -> str | None:
    """What the client that caused *event* called it."""
    match event:
        case JobSubmitted(spec=spec):
            return str(spec.payload["token"])
        case (
            CancelRequested(reason=reason) | JobCancelled(reason=reason) | JobRetried(reason=reason)
        ):
            return reason
        case _:
            return None


def _committed(row: Row) -> bool:
    if row.salt is None or row.body is None:
        return False
    return hashlib.sha256(COMMITMENT + row.salt + row.body).digest() == row.commitment
