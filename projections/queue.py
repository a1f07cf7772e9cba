"""The queue: the durable list of the jobs that wait, which the ready queue in memory is read from.

docs/internals/ready-queue.md explains the order and what reads it.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from eventjobs.domain.job import Job, Status
from eventjobs.projections.change import JobChange, Statement, rows

NAME = "queue"
VERSION = 6

PRIORITY_MAX = 1000
#: One step of priority is worth this much waiting, so that nothing starves: a job of priority 0
#: that has waited for ten minutes starts before a new one of priority 9.
AGEING_US = 60_000_000

SCHEMA = """
CREATE TABLE queue (
  born   INTEGER PRIMARY KEY,
  job_id TEXT    NOT NULL,
  type   TEXT    NOT NULL,
  queue  TEXT    NOT NULL,
  key    TEXT    NOT NULL,  -- of those with the same, only so many run at once; empty: none
  due_us INTEGER NOT NULL,
  rank   INTEGER NOT NULL,  -- due_us less what priority is worth: the order, fixed once
  later  INTEGER NOT NULL,  -- 1 when it was not due yet when it was queued
  branch INTEGER,           -- of a job with a parent: less the place of that, the order of children
  waits  INTEGER NOT NULL   -- 1 while it waits for other jobs; see dependencies.py
) STRICT;
CREATE INDEX queue_rank ON queue (type, queue, rank, born) WHERE NOT waits;
CREATE INDEX queue_key ON queue (type, queue, key, rank, born) WHERE key != '' AND NOT waits;
CREATE INDEX queue_branch ON queue (type, branch, born) WHERE branch IS NOT NULL AND NOT waits;
CREATE INDEX queue_later ON queue (due_us, born) WHERE later AND NOT waits;

-- The time of the newest event, as far as the clock went on.
CREATE TABLE queue_time (us INTEGER NOT NULL) STRICT;
INSERT INTO queue_time VALUES (0);

CREATE TABLE queue_counts (
  queue  TEXT    NOT NULL,
  status TEXT    NOT NULL,  -- queued or running: what has ended is in no queue
  jobs   INTEGER NOT NULL,
  PRIMARY KEY (queue, status)
) STRICT, WITHOUT ROWID;
"""

DELETE_FROM_QUEUE = "DELETE FROM queue WHERE born IN (SELECT value FROM json_each(?1))"
ADD_TO_QUEUE = """
INSERT INTO queue
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
  value ->> 7,
  CASE WHEN value ->> 8 IS NOT NULL THEN -coalesce(
    (SELECT born FROM jobs WHERE job_id = value ->> 8 AND born < value ->> 0), 0) END,
  0
FROM json_each(?1)
"""
SELECT_NEWEST_TIME = "SELECT json_quote(us) FROM queue_time"
ADVANCE_NEWEST_TIME = "UPDATE queue_time SET us = max(us, ?1)"
ADD_COUNTS = """
INSERT INTO queue_counts SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1) WHERE true
ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs
"""
DELETE_ZERO_COUNTS = "DELETE FROM queue_counts WHERE jobs = 0"
SELECT_QUEUE_COUNTS = "SELECT json_group_array(json_array(queue, status, jobs)) FROM queue_counts"

#: The types and queues of the jobs that wait for no other job.
SELECT_LINES = """
WITH RECURSIVE lines (type, queue) AS (
  SELECT * FROM (SELECT type, queue FROM queue WHERE NOT waits ORDER BY type, queue LIMIT 1)
  UNION ALL
  SELECT other.type, other.queue
  FROM lines CROSS JOIN queue AS other ON other.born = coalesce(
    (SELECT born FROM queue WHERE NOT waits AND type = lines.type AND queue > lines.queue
     ORDER BY queue, rank, born LIMIT 1),
    (SELECT born FROM queue WHERE NOT waits AND type > lines.type
     ORDER BY type, queue, rank, born LIMIT 1))
)
SELECT json_group_array(json_array(type, queue)) FROM lines
"""
_ROWS = """
SELECT json_group_array(
  json_array(born, job_id, type, queue, nullif(key, ''), due_us, rank, later, branch))
FROM (SELECT * FROM queue INDEXED BY """
#: Pages of QueuedJobs behind a place of an order, of those due at a time.
#: A job that came after the search began is due later than the search goes, and is of the page all
#: the same: it may have been left to the table already.
SELECT_LINE = f"""{_ROWS} queue_rank
  WHERE type = ? AND queue = ? AND NOT waits AND (rank, born) > (?, ?)
    AND (NOT later OR due_us <= ?)
  ORDER BY rank, born LIMIT ?)"""
SELECT_LANE = f"""{_ROWS} queue_key
  WHERE type = ? AND queue = ? AND key = ? AND key != '' AND NOT waits
    AND (rank, born) > (?, ?) AND (NOT later OR due_us <= ?)
  ORDER BY rank, born LIMIT ?)"""
SELECT_CHILDREN = f"""{_ROWS} queue_branch
  WHERE type = ? AND branch IS NOT NULL AND NOT waits
    AND (branch, born) > (?, ?) AND (NOT later OR due_us <= ?)
  ORDER BY branch, born LIMIT ?)"""
#: The same of those that become due later, in that order.
SELECT_LATER = f"""{_ROWS} queue_later
  WHERE later AND NOT waits AND (due_us, born) > (?, ?) LIMIT ?)"""
#: Rows of MovedJob, of the jobs that dependencies.py has marked.
SELECT_MOVED = """
SELECT json_group_array(json_array(waits,
  json_array(born, job_id, type, queue, nullif(key, ''), due_us, rank, later, branch)))
FROM moved CROSS JOIN queue USING (born)
"""


class WaitingJob(NamedTuple):
    """A job that waits to start: what its order and its limits depend on."""

    born: int
    job_id: str
    type: str
    queue: str
    key: str | None
    due_us: int
    rank: int
    later: bool
    branch: int | None = None

    @classmethod
    def of(cls, job: Job) -> "WaitingJob":
        """Without the branch, which depends on the parent."""
        spec = job.spec
        rank = job.due_us - spec.priority * AGEING_US
        later = job.due_us > job.updated_us
        key = spec.concurrency_key
        return cls(job.born, job.job_id, spec.type, job.queue, key, job.due_us, rank, later)


class MovedJob(NamedTuple):
    """A queued job, and whether it waits for other jobs."""

    waits: bool
    job: WaitingJob


def has_relatives(job: Job) -> bool:
    """Whether its place in the queue depends on other jobs: those it waits for, or a parent."""
    return bool(job.spec.after) or job.spec.parent is not None


def apply(changes: Iterable[JobChange]) -> Iterator[Statement]:
    queued = []
    removed = []
    newest_us = 0
    counts: dict[tuple[str, str], int] = {}
    for change in changes:
        job = change.after
        for recorded in change.events:
            newest_us = max(newest_us, recorded.at_us)
        if job.imported is not None:
            continue  # it is in no queue of this service
        if change.before is not None and change.before.status == Status.QUEUED:
            removed.append(job.born)
        if job.status == Status.QUEUED:
            row = WaitingJob.of(job)
            queued.append((*row[:4], row.key or "", *row[5:7], int(row.later), job.spec.parent))
        status_before = change.before and change.before.status
        if status_before != job.status:
            for status, difference in ((status_before, -1), (job.status, +1)):
                if status in _COUNTED:
                    key = job.queue, status
                    counts[key] = counts.get(key, 0) + difference
    if removed:
        yield DELETE_FROM_QUEUE, rows(removed)
    if queued:
        yield ADD_TO_QUEUE, rows(queued)
    yield ADVANCE_NEWEST_TIME, (newest_us,)
    if counts:
        yield ADD_COUNTS, rows([(*key, difference) for key, difference in counts.items()])
        yield DELETE_ZERO_COUNTS, ()


_COUNTED = (Status.QUEUED, Status.RUNNING)
