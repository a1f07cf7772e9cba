"""Which jobs are due, by priority and age. This is the queue: claiming is an append."""

from collections.abc import Iterable, Iterator

from eventjobs.job import Job, Status
from projections.touched import Statement, Touched, rows

NAME = "queue"
VERSION = 2

PRIORITY_MAX = 1000
#: One step of priority is worth this much waiting, so that nothing starves: a job of priority 0
#: that has waited ten minutes goes before one of priority 9 that has just come.
AGEING_US = 60_000_000

SCHEMA = """
CREATE TABLE queue (
  born   INTEGER PRIMARY KEY,
  job_id TEXT    NOT NULL,
  type   TEXT    NOT NULL,
  due_us INTEGER NOT NULL,
  rank   INTEGER NOT NULL,  -- due_us less what priority is worth: the order, fixed once
  later  INTEGER NOT NULL,  -- 1 when it was not due yet as it was queued
  waits  INTEGER NOT NULL   -- 1 while it waits for other jobs; see ties.py
) STRICT;
CREATE INDEX queue_rank ON queue (rank, born) WHERE NOT waits;
CREATE INDEX queue_later ON queue (due_us) WHERE later;
"""

PUT = """
INSERT OR REPLACE INTO queue
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, 0
FROM json_each(?1)
"""
REMOVE = "DELETE FROM queue WHERE born IN (SELECT value FROM json_each(?1))"

#: A rank above now by more than the largest priority is worth cannot be due.
DUE = """
SELECT json_group_array(json_array(job_id, type)) FROM (
  SELECT job_id, type FROM queue
  WHERE NOT waits AND rank <= :now_us + :slack_us AND due_us <= :now_us
    AND type IN (SELECT value FROM json_each(:types))
    AND job_id NOT IN (SELECT value FROM json_each(:taken))
  ORDER BY rank, born LIMIT :limit)
"""
NEXT_DUE = "SELECT min(due_us) FROM queue WHERE later AND due_us > ?1"


def apply(touched: Iterable[Touched]) -> Iterator[Statement]:
    put = []
    gone = []
    for each in touched:
        job = each.after
        if _waits(job):
            rank = job.due_us - job.spec.priority * AGEING_US
            later = job.due_us > job.updated_us
            put.append((job.born, job.job_id, job.spec.type, job.due_us, rank, int(later)))
        elif each.before is not None and _waits(each.before):
            gone.append(job.born)
    if put:
        yield PUT, rows(put)
    if gone:
        yield REMOVE, rows(gone)


def _waits(job: Job) -> bool:
    return job.status == Status.QUEUED
