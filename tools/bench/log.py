"""The log and the views by themselves, and plain sqlite3 on the same rows."""

import asyncio
import hashlib
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count, islice
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from eventjobs.auth.master_key import MasterKey
from eventjobs.domain.codec import decode, encode
from eventjobs.domain.events import (
    AttemptFailed,
    AttemptStarted,
    Event,
    JobCompleted,
    JobSubmitted,
    LogWritten,
    ProgressReported,
)
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.log.commitment import COMMITMENT
from eventjobs.log.sqlite import SQLiteLog
from eventjobs.log.sqlite_authorizer import SCHEMA
from eventjobs.log.tail import Tail
from eventjobs.projections import Views
from eventjobs.projections.store import Store

from .processes import Answer, Bench, Children, Sample, Stopwatch, now_s, run, say
from .report import EVENTS, Floor, Row, percentile

PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 4000",
    "PRAGMA recursive_triggers = ON",
)
INSERT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
SELECT = """
SELECT position, job_id, version, at_us, actor, type, facts, body
FROM events
ORDER BY position
"""
#: Copies the first events for other jobs, which is much faster than making new ones.
AGAIN = """
INSERT INTO events
SELECT position + ?1 * ?2, printf('%08x', ?1) || substr(job_id, 9), version, type,
  at_us + 100 * ?1 * ?2, actor, facts, body, salt, commitment
FROM events
WHERE position <= ?2
ORDER BY position
"""
MADE = 20_000
#: Drops the triggers, for the figure without them.
DROPS = (
    "DROP TRIGGER events_insert",
    "DROP TRIGGER events_delete",
    "DROP TRIGGER events_update",
)
ACTOR = "bench"
START_US = 1_735_689_600_000_000
LATER_US = 4_102_444_800_000_000
#: A type of jobs that only remote workers run.
REMOTE = "remote"
#: Jobs that are unfinished at one time in a generated log.
OPEN = 100

Entry = tuple[str, int, Event]  # job id, version, event


# --- events


def noop(job_id: str) -> Iterator[Entry]:
    """The events of a job without work."""
    yield job_id, 1, JobSubmitted(JobSpec("noop", {"n": 1}, max_attempts=3))
    yield job_id, 2, AttemptStarted(1, "worker-01234567")
    yield job_id, 3, JobCompleted(1)


def story(number: int, job_id: str) -> Iterator[Entry]:
    """The events of a usual job: mostly three; one in ten has reports, one in twenty a retry."""
    payload = {"file": f"upload-{number}.csv", "columns": ["a", "b"], "rows": number}
    spec = JobSpec(f"type-{number % 4}", payload, tags=(f"tag-{number % 7}",), max_attempts=3)
    events: list[Event] = [JobSubmitted(spec), AttemptStarted(1, "worker-01234567")]
    attempt = 1
    if number % 10 == 3:
        for done in range(1, 7):
            stage = "read" if done < 4 else "write"
            events.append(ProgressReported(1, done, 6, stage, f"{done} of 6 parts"))
        events.append(LogWritten(1, "info", "all parts are there", {"parts": 6}))
    if number % 20 == 7:
        attempt = 2
        events.append(AttemptFailed(1, "timeout", True, START_US, "it took too long"))
        events.append(AttemptStarted(2, "worker-01234567"))
    events.append(JobCompleted(attempt, {"rows": number, "sum": number * 1.5}))
    return ((job_id, version, event) for version, event in enumerate(events, 1))


def waiting(number: int, job_id: str) -> Iterator[Entry]:
    """The event of a job that waits: for a remote worker, or for its time."""
    spec = JobSpec(REMOTE) if number % 2 else JobSpec("noop", run_at_us=LATER_US)
    yield job_id, 1, JobSubmitted(spec)


def reports(writers: int) -> Iterator[Entry]:
    """Endless reports of *writers* concurrent jobs."""
    jobs = [str(uuid4()) for _ in range(writers)]
    version = 0
    while True:
        version += 1
        for job_id in jobs:
            yield job_id, version, report(version)


def report(number: int) -> Event:
    return ProgressReported(1, number, 1000, "reading", f"line {number} of 1000")


def interleave(stories: Iterator[Iterator[Entry]]) -> Iterator[Entry]:
    """The events of OPEN jobs at a time in turn, as in a busy log."""
    unfinished = deque(islice(stories, OPEN))
    while unfinished:
        job = unfinished.popleft()
        if (entry := next(job, None)) is not None:
            yield entry
            unfinished.append(job)
        elif (following := next(stories, None)) is not None:
            unfinished.append(following)


def new_id(number: int) -> str:
    """A UUID that begins with a time, as those of the service."""
    drawn = os.urandom(10).hex()
    time = f"{START_US // 1000 + number:012x}"
    return f"{time[:8]}-{time[8:]}-7{drawn[:3]}-8{drawn[3:6]}-{drawn[6:18]}"


# --- plain sqlite3

LogRow = tuple[Any, ...]


def rows_of(entries: Iterator[Entry]) -> Iterator[LogRow]:
    """The rows of *entries*, as the service stores them."""
    for position, (job_id, version, event) in enumerate(entries, 1):
        type, facts, body = encode(event)
        salt = os.urandom(16)
        commitment = hashlib.sha256(COMMITMENT + salt + body).digest()
        at_us = START_US + position * 100
        yield position, job_id, version, type, at_us, ACTOR, facts, body, salt, commitment


@contextmanager
def plain_log(path: Path, *, triggers: bool = True) -> Iterator[sqlite3.Connection]:
    """The table of the log in a new file, written without the service."""
    path.touch(0o600)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(SCHEMA)
        for statement in (*PRAGMAS, *(() if triggers else DROPS)):
            connection.execute(statement)
        yield connection


def commit(connection: sqlite3.Connection, rows: Sequence[LogRow]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(INSERT, rows)
    connection.execute("COMMIT")


def plain(directory: str, events: int, batch: int, writers: int, triggers: bool = True) -> Answer:
    """Events a second when prepared rows are committed *batch* at a time.

    The rows are reports of *writers* jobs, or, with 0 writers, jobs without work.
    """
    entries = reports(writers) if writers else interleave(map(noop, map(new_id, range(events))))
    rows = list(rows_of(islice(entries, events)))
    with (
        TemporaryDirectory(dir=directory) as data,
        plain_log(Path(data) / "log.db", triggers=triggers) as connection,
        Stopwatch() as watch,
    ):
        for begin in range(0, events, batch):
            commit(connection, rows[begin : begin + batch])
    return watch.sample(events)


def commits(directory: str, seconds: float) -> Answer:
    """Milliseconds of three commits one after another, the least that one job needs."""
    rows = rows_of(interleave(map(noop, map(new_id, count()))))
    spent = []
    with (
        TemporaryDirectory(dir=directory) as data,
        plain_log(Path(data) / "log.db") as connection,
    ):
        until_s = now_s() + seconds
        while now_s() < until_s:
            three = list(islice(rows, 3))
            began_s = now_s()
            for row in three:
                commit(connection, [row])
            spent.append(now_s() - began_s)
    return {"p50": percentile(spent, 0.5) * 1000, "p99": percentile(spent, 0.99) * 1000}


# --- the log


@contextmanager
def seen_commits() -> Iterator[list[tuple[float, int]]]:
    """The times and sizes of commits, as the logs of this process publish them."""
    seen: list[tuple[float, int]] = []
    publish = Tail.publish

    def note_and_publish(tail: Tail, batch: Sequence[Recorded]) -> None:
        seen.append((now_s(), len(batch)))
        publish(tail, batch)

    Tail.publish = note_and_publish  # type: ignore[method-assign, assignment]
    try:
        yield seen
    finally:
        Tail.publish = publish  # type: ignore[method-assign]


def append(directory: str, seconds: float, writers: int) -> Answer:
    """Acknowledged events a second of *writers* concurrent writers, each waiting for its own."""

    async def work() -> Answer:
        with TemporaryDirectory(dir=directory) as data, seen_commits() as seen:
            log = await SQLiteLog.open(Path(data) / "log.db")

            async def write(job_id: str, until_s: float) -> None:
                version = 0
                while not version or now_s() < until_s:
                    await log.append(job_id, version, report(version), actor=ACTOR)
                    version += 1

            with Stopwatch() as watch:
                until_s = now_s() + seconds
                await asyncio.gather(*(write(str(uuid4()), until_s) for _ in range(writers)))
            await log.close()
        return {"batch": mean(size for _, size in seen), **watch.sample(log.head)}

    return run(work())


# --- the views


#: Jobs of a generated log: their events, and how many each has on average.
KINDS: dict[str, tuple[Callable[[int, str], Iterator[Entry]], float]] = {
    "usual": (story, 3.8),
    "finished": (lambda _, job_id: noop(job_id), 3),
    "waiting": (waiting, 1),
}


def make(directory: str, data: str, events: int, kind: str = "usual") -> Answer:
    """Make a data directory with about *events* events of jobs of a kind, without the service."""
    MasterKey.open(Path(data) / "secret.key")
    job, events_of_job = KINDS[kind]
    stories = (job(n, new_id(n)) for n in range(round(min(events, MADE) / events_of_job)))
    rows = rows_of(interleave(stories))
    with plain_log(Path(data) / "log.db") as connection:
        connection.execute("PRAGMA synchronous = OFF")
        count = 0
        while batch := list(islice(rows, 10_000)):
            commit(connection, batch)
            count += len(batch)
        for number in range(1, round(events / count)):
            connection.execute(AGAIN, (number, count))
    return rebuild(directory, data)


def rebuild(directory: str, data: str) -> Answer:
    """Events a second of a rebuild of all views."""
    path = Path(data) / "views.db"

    async def work() -> Answer:
        log = await SQLiteLog.open(Path(data) / "log.db")
        Store.remove(path)
        with Stopwatch() as watch:
            views = await Views.open(path, log)
            following = asyncio.create_task(views.run())
            await views.wait_for_position(log.head)
        following.cancel()
        await views.close()
        await log.close()
        return {"events": log.head, **watch.sample(log.head)}

    return run(work())


def read(directory: str, data: str) -> Answer:
    """Events a second that plain sqlite3 reads and the codec decodes."""
    with closing(sqlite3.connect(Path(data) / "log.db")) as connection, Stopwatch() as watch:
        position = 0
        for position, job_id, version, at_us, actor, type, facts, body in connection.execute(
            SELECT
        ):
            event = decode(type, facts, body)
            Recorded(position, job_id, version, at_us, actor, event, type, facts, body)
    return watch.sample(position)


CHILDREN: Children = {
    "append": append,
    "commits": commits,
    "make": make,
    "plain": plain,
    "read": read,
    "rebuild": rebuild,
}


# --- the sections


def appends(bench: Bench) -> list[Row]:
    size = bench.size
    rows = []
    for writers in size.writers:
        what = f"durable events appended by {writers:,} concurrent writers"
        same = Row(what, EVENTS, "plain sqlite3, same table and batches", Floor(share=0.5))
        bare = Row("the same", EVENTS, "plain sqlite3, same batches, no triggers")
        for number in range(size.runs):
            say(f"appends, {writers} writers, run {number + 1}")
            ours = bench.once("append", seconds=size.seconds, writers=writers)
            batch = round(ours["batch"])
            for row, triggers in ((same, True), (bare, False)):
                raw = bench.once(
                    "plain", events=size.plain, batch=batch, writers=writers, triggers=triggers
                )
                row.add(sample(ours), sample(raw))
            same.what = f"{what}, {batch} a commit"
        rows += [same, bare]
    return rows


def rebuilds(bench: Bench) -> list[Row]:
    say("rebuild: making a log")
    data = bench.data()
    events = bench.once("make", data=data, events=bench.size.rebuilt)["events"]
    what = f"rebuild of all views from {events:,} events"
    row = Row(what, EVENTS, "read by plain sqlite3 and decoded", Floor(share=0.27))
    for number in range(bench.size.runs):
        say(f"rebuild, run {number + 1}")
        ours = bench.once("rebuild", data=data)
        row.add(sample(ours), sample(bench.once("read", data=data)))
    return [row]


def sample(result: Answer) -> Sample:
    return Sample(result["rate"], result["cpu_us"])
