"""The queue: which jobs are due, by priority and age.

docs/internals/due-query.md explains the lanes, the triggers and the query.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import orjson

from eventjobs.domain.job import Status
from eventjobs.projections.change import JobChange, Statement, rows

NAME = "queue"
VERSION = 5

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
  later  INTEGER NOT NULL,  -- 1 until there is an event of the time at which it is due
  branch INTEGER,           -- of a job with a parent: less the place of that, the order of children
  waits  INTEGER NOT NULL   -- 1 while it waits for other jobs; see ties.py
) STRICT;
CREATE INDEX queue_lane ON queue (type, queue, key, rank, born) WHERE NOT waits AND NOT later;
CREATE INDEX queue_branch ON queue (branch, born) WHERE branch IS NOT NULL AND NOT waits;
CREATE INDEX queue_later ON queue (due_us) WHERE later;

-- The first job of each lane, among those that wait for nothing else. What keeps one job of a lane
-- from starting keeps all of them: a look passes over the first, however many are behind it.
CREATE TABLE lanes (
  type  TEXT    NOT NULL,
  queue TEXT    NOT NULL,
  key   TEXT    NOT NULL,
  rank  INTEGER NOT NULL,
  born  INTEGER NOT NULL,
  PRIMARY KEY (type, queue, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX lanes_rank ON lanes (type, rank, born);

CREATE TRIGGER queue_put AFTER INSERT ON queue WHEN NOT new.waits AND NOT new.later BEGIN
  INSERT INTO lanes VALUES (new.type, new.queue, new.key, new.rank, new.born)
  ON CONFLICT DO UPDATE SET rank = excluded.rank, born = excluded.born
  WHERE (excluded.rank, excluded.born) < (rank, born);
END;
CREATE TRIGGER queue_removed AFTER DELETE ON queue WHEN NOT old.waits AND NOT old.later BEGIN
  DELETE FROM lanes
  WHERE type = old.type AND queue = old.queue AND key = old.key AND born = old.born;
  INSERT OR IGNORE INTO lanes
  SELECT type, queue, key, rank, born FROM queue
  WHERE NOT waits AND NOT later AND type = old.type AND queue = old.queue AND key = old.key
  ORDER BY rank, born LIMIT 1;
END;
CREATE TRIGGER queue_changed AFTER UPDATE OF waits, later ON queue
WHEN (new.waits OR new.later) IS NOT (old.waits OR old.later) BEGIN
  DELETE FROM lanes WHERE type = new.type AND queue = new.queue AND key = new.key;
  INSERT INTO lanes
  SELECT type, queue, key, rank, born FROM queue
  WHERE NOT waits AND NOT later AND type = new.type AND queue = new.queue AND key = new.key
  ORDER BY rank, born LIMIT 1;
END;

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
MARK_DUE = "UPDATE queue SET later = 0 WHERE later AND due_us <= (SELECT us FROM queue_time)"
ADD_COUNTS = """
INSERT INTO queue_counts SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1) WHERE true
ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs
"""
DELETE_ZERO_COUNTS = "DELETE FROM queue_counts WHERE jobs = 0"
SELECT_QUEUE_COUNTS = "SELECT json_group_array(json_array(queue, status, jobs)) FROM queue_counts"

#: Begins with the best lane of each type. From the best row so far it continues with the next lane
#: of the type and the next job of the lane. So it visits no more jobs than it returns, and no more
#: lanes than are better than those.
SELECT_DUE = """
WITH RECURSIVE
types AS (
  SELECT value AS type FROM json_each(:types)
  WHERE value NOT IN (SELECT name FROM pauses WHERE kind = 'type')
),
shut AS (
  SELECT value AS queue FROM json_each(:queues)
  UNION ALL SELECT name FROM pauses WHERE kind = 'queue'
),
open AS NOT MATERIALIZED (
  SELECT type, rank, born FROM lanes
  WHERE queue NOT IN shut AND key NOT IN (SELECT value FROM json_each(:keys))
    AND (type, key) NOT IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys_of_types))
),
best (rank, born, type, queue, key, nth) AS (
  SELECT rank, born, type, queue, key, 1 FROM types CROSS JOIN queue USING (type)
  WHERE born = (SELECT born FROM open WHERE type = types.type ORDER BY rank, born LIMIT 1)
  UNION ALL  -- jobs that became due since the newest event are in no lane yet
  SELECT rank, born, type, queue, key, NULL FROM queue
  WHERE later AND due_us <= :now_us AND NOT waits AND type IN types AND queue NOT IN shut
    AND key NOT IN (SELECT value FROM json_each(:keys))
    AND (type, key) NOT IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys_of_types))
  UNION ALL
  SELECT other.rank, other.born, other.type, other.queue, other.key, 1
  FROM best CROSS JOIN queue AS other ON other.born = (
    SELECT born FROM open WHERE type = best.type AND (rank, born) > (best.rank, best.born)
    ORDER BY rank, born LIMIT 1)
  WHERE nth = 1
  UNION ALL
  SELECT other.rank, other.born, other.type, other.queue, other.key, nth + 1
  FROM best CROSS JOIN queue AS other ON other.born = (
    SELECT born FROM queue
    WHERE type = best.type AND queue = best.queue AND key = best.key
      AND (rank, born) > (best.rank, best.born) AND NOT waits AND NOT later
    ORDER BY rank, born LIMIT 1)
  WHERE nth < CASE best.key WHEN '' THEN 9e18 ELSE :key_max END
  ORDER BY 1, 2
  LIMIT -1  -- without a limit SQLite drops the order
)
SELECT json_group_array(json_array(job_id, type, queue, key)) FROM (
  SELECT job_id, best.type, best.queue, nullif(best.key, '') AS key
  FROM best CROSS JOIN queue USING (born)
  WHERE due_us <= :now_us AND job_id NOT IN (SELECT value FROM json_each(:taken))
  LIMIT :limit)
"""
#: Jobs with a parent, the one with the newest parent first: a tree of jobs is run to the bottom
#: before it gets broader, so that few of its jobs wait for others at once.
SELECT_DUE_CHILDREN = """
SELECT json_group_array(json_array(job_id, type, queue, key)) FROM (
  SELECT job_id, type, queue, nullif(key, '') AS key FROM queue
  WHERE branch IS NOT NULL AND NOT waits AND due_us <= :now_us
    AND type IN (SELECT value FROM json_each(:types))
    AND job_id NOT IN (SELECT value FROM json_each(:taken))
    AND key NOT IN (SELECT value FROM json_each(:keys))
    AND (type, key) NOT IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys_of_types))
    AND queue NOT IN (SELECT value FROM json_each(:queues))
    AND queue NOT IN (SELECT name FROM pauses WHERE kind = 'queue')
    AND type NOT IN (SELECT name FROM pauses WHERE kind = 'type')
  ORDER BY branch, born LIMIT :limit)
"""
SELECT_NEXT_DUE_TIME = "SELECT min(due_us) FROM queue WHERE later AND due_us > ?1"


class DueJob(NamedTuple):
    """A due job, and what its limits apply to."""

    job_id: str
    type: str
    queue: str
    key: str | None


class FullLimits(NamedTuple):
    """Queues, concurrency keys and (type, key) pairs whose limit is full."""

    queues: Collection[str] = ()
    keys: Collection[str] = ()
    keys_of_types: Collection[tuple[str, str]] = ()


NO_FULL_LIMITS = FullLimits()


def due_parameters(
    now_us: int,
    types: Iterable[str],
    taken: Collection[str],
    held: FullLimits,
    limit: int,
    key_max: int,
) -> dict[str, Any]:
    """The parameters of SELECT_DUE and SELECT_DUE_CHILDREN."""
    return {
        "now_us": now_us,
        "types": orjson.dumps(list(dict.fromkeys(types))).decode(),
        "taken": orjson.dumps(list(taken)).decode(),
        "queues": orjson.dumps(list(held.queues)).decode(),
        "keys": orjson.dumps(list(held.keys)).decode(),
        "keys_of_types": orjson.dumps(list(held.keys_of_types)).decode(),
        "key_max": key_max,
        "limit": limit,
    }


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
            rank = job.due_us - job.spec.priority * AGEING_US
            later = int(job.due_us > job.updated_us)
            spec = job.spec
            columns = (job.born, job.job_id, spec.type, job.queue, spec.concurrency_key or "")
            queued.append((*columns, job.due_us, rank, later, spec.parent))
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
    yield MARK_DUE, ()
    if counts:
        yield ADD_COUNTS, rows([(*key, difference) for key, difference in counts.items()])
        yield DELETE_ZERO_COUNTS, ()


_COUNTED = (Status.QUEUED, Status.RUNNING)
