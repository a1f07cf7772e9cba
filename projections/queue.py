"""Which jobs are due, by priority and age. This is the queue: claiming is an append."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import orjson

from eventjobs.job import Job, Status
from projections.touched import Statement, Touched, rows

NAME = "queue"
VERSION = 3

PRIORITY_MAX = 1000
#: One step of priority is worth this much waiting, so that nothing starves: a job of priority 0
#: that has waited ten minutes goes before one of priority 9 that has just come.
AGEING_US = 60_000_000

SCHEMA = """
CREATE TABLE queue (
  born   INTEGER PRIMARY KEY,
  job_id TEXT    NOT NULL,
  type   TEXT    NOT NULL,
  queue  TEXT    NOT NULL,
  key    TEXT,              -- of those with the same, only so many run at once
  due_us INTEGER NOT NULL,
  rank   INTEGER NOT NULL,  -- due_us less what priority is worth: the order, fixed once
  later  INTEGER NOT NULL,  -- 1 when it was not due yet as it was queued
  waits  INTEGER NOT NULL   -- 1 while it waits for other jobs; see ties.py
) STRICT;
CREATE INDEX queue_rank ON queue (rank, born) WHERE NOT waits;
CREATE INDEX queue_later ON queue (due_us) WHERE later;

CREATE TABLE queue_counts (
  queue  TEXT    NOT NULL,
  status TEXT    NOT NULL,  -- queued or running: what has ended is in no queue
  jobs   INTEGER NOT NULL,
  PRIMARY KEY (queue, status)
) STRICT, WITHOUT ROWID;
"""

PUT = """
INSERT OR REPLACE INTO queue
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
  value ->> 7, 0
FROM json_each(?1)
"""
REMOVE = "DELETE FROM queue WHERE born IN (SELECT value FROM json_each(?1))"
ADD_COUNTS = """
INSERT INTO queue_counts SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1) WHERE true
ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs
"""
DROP_ZEROES = "DELETE FROM queue_counts WHERE jobs = 0"
COUNTS = "SELECT json_group_array(json_array(queue, status, jobs)) FROM queue_counts"

#: A rank above now by more than the largest priority is worth cannot be due. What is held or
#: paused is left out here and not by whoever reads: a thousand of those hide nobody behind them.
DUE = """
SELECT json_group_array(json_array(job_id, type, queue, key, rank, born)) FROM (
  SELECT job_id, type, queue, key, rank, born FROM queue
  WHERE NOT waits AND rank <= :now_us + :slack_us AND due_us <= :now_us
    AND (rank, born) > (:after_rank, :after_born)
    AND type IN (SELECT value FROM json_each(:types))
    AND job_id NOT IN (SELECT value FROM json_each(:taken))
    AND (key IS NULL OR key NOT IN (SELECT value FROM json_each(:keys)))
    AND queue NOT IN (SELECT value FROM json_each(:queues))
    AND queue NOT IN (SELECT name FROM pauses WHERE kind = 'queue')
    AND type NOT IN (SELECT name FROM pauses WHERE kind = 'type')
  ORDER BY rank, born LIMIT :limit)
"""
NEXT_DUE = "SELECT min(due_us) FROM queue WHERE later AND due_us > ?1"


class Due(NamedTuple):
    """A job that may start, and its place in the order."""

    job_id: str
    type: str
    queue: str
    key: str | None
    rank: int
    born: int


class Held(NamedTuple):
    """Queues and concurrency keys of which no more may start now."""

    queues: Collection[str] = ()
    keys: Collection[str] = ()


NOTHING_HELD = Held()


def due(
    now_us: int,
    types: Iterable[str],
    taken: Iterable[str],
    held: Held,
    after: Due | None,
    limit: int,
) -> dict[str, Any]:
    """What DUE is bound to."""
    return {
        "now_us": now_us,
        "slack_us": PRIORITY_MAX * AGEING_US,
        "after_rank": -(2**62) if after is None else after.rank,
        "after_born": 0 if after is None else after.born,
        "types": orjson.dumps(list(types)).decode(),
        "taken": orjson.dumps(list(taken)).decode(),
        "queues": orjson.dumps(list(held.queues)).decode(),
        "keys": orjson.dumps(list(held.keys)).decode(),
        "limit": limit,
    }


def apply(touched: Iterable[Touched]) -> Iterator[Statement]:
    put = []
    gone = []
    counts: dict[tuple[str, str], int] = {}
    for each in touched:
        job = each.after
        if _waits(job):
            rank = job.due_us - job.spec.priority * AGEING_US
            later = int(job.due_us > job.updated_us)
            spec = job.spec
            named = (job.born, job.job_id, spec.type, job.queue, spec.concurrency_key)
            put.append((*named, job.due_us, rank, later))
        elif each.before is not None and _waits(each.before):
            gone.append(job.born)
        was = each.before and each.before.status
        if was != job.status:
            for status, change in ((was, -1), (job.status, +1)):
                if status in _COUNTED:
                    key = job.queue, status
                    counts[key] = counts.get(key, 0) + change
    if put:
        yield PUT, rows(put)
    if gone:
        yield REMOVE, rows(gone)
    if counts:
        yield ADD_COUNTS, rows([(*key, change) for key, change in counts.items()])
        yield DROP_ZEROES, ()


_COUNTED = (Status.QUEUED, Status.RUNNING)


def _waits(job: Job) -> bool:
    return job.status == Status.QUEUED
