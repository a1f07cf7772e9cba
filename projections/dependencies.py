"""What unfinished jobs have to do with others: those they wait for, and those they are a part of.

Which jobs wait, and which of them wait in vain, follows from the present state of both ends
alone, so it does not matter into which batches the log was cut.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from eventjobs.domain.job import Job, Status
from eventjobs.projections.change import JobChange, Statement, rows
from eventjobs.projections.status import outcome

NAME = "ties"
VERSION = 1

#: It waits for the other to be completed; or to have ended, however; or is the other's child.
AFTER, AFTER_ANY, CHILD = "after", "after any", "child"

SCHEMA = """
CREATE TABLE ties (
  other TEXT    NOT NULL,  -- id of the job it depends on
  born  INTEGER NOT NULL,  -- the job itself
  kind  TEXT    NOT NULL,
  PRIMARY KEY (other, born, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX ties_born ON ties (born);

-- What keeps a job waiting.
CREATE VIEW unmet AS
SELECT ties.born, ties.other, coalesce(jobs.status, jobs.outcome) AS status
FROM ties LEFT JOIN jobs ON jobs.job_id = ties.other
WHERE CASE ties.kind
  WHEN 'after' THEN jobs.outcome IS NOT 'completed'
  WHEN 'after any' THEN jobs.outcome IS NULL OR jobs.outcome = 'stopping'
  ELSE false END;

-- What is a reason to cancel it.
CREATE VIEW dooming AS
SELECT ties.born, ties.kind, ties.other, jobs.outcome
FROM ties JOIN jobs ON jobs.job_id = ties.other
WHERE CASE ties.kind
  WHEN 'after' THEN jobs.outcome IN ('failed', 'cancelled')
  WHEN 'child' THEN jobs.outcome IN ('stopping', 'cancelled')
  ELSE false END;

-- Jobs that are to be cancelled because of another one.
CREATE TABLE doomed (born INTEGER PRIMARY KEY) STRICT;

-- Jobs to look at anew; empty between batches.
CREATE TABLE moved (born INTEGER PRIMARY KEY) STRICT;
"""

DELETE_DEPENDENCIES = "DELETE FROM ties WHERE born IN (SELECT value FROM json_each(?1))"
ADD_DEPENDENCIES = """
INSERT OR IGNORE INTO ties
SELECT value ->> 0, value ->> 1, value ->> 2
FROM json_each(?1)
"""
MARK_CHANGED = """
INSERT OR IGNORE INTO moved
SELECT value FROM json_each(?1)
UNION ALL
SELECT born FROM ties WHERE other IN (SELECT value FROM json_each(?2))
"""
#: A job that is hidden has no status of its own column any more; its state still tells.
UPDATE_WAITS = """
UPDATE queue SET waits = EXISTS (SELECT 1 FROM unmet WHERE unmet.born = queue.born)
WHERE born IN (SELECT born FROM moved)
"""
CLEAR_CANCEL_MARKS = "DELETE FROM doomed WHERE born IN (SELECT born FROM moved)"
MARK_TO_CANCEL = """
INSERT INTO doomed
SELECT born FROM moved WHERE EXISTS (SELECT 1 FROM dooming WHERE dooming.born = moved.born)
"""
CLEAR_CHANGED = "DELETE FROM moved"

SELECT_UNMET = """
SELECT json_group_array(json_array(other, unmet.status))
FROM jobs JOIN unmet USING (born) WHERE job_id = ?1
"""
#: As Dooms; one for each tie, so a job may be in it twice.
SELECT_TO_CANCEL = """
SELECT json_group_array(json_array(job_id, kind, other, outcome)) FROM (
  SELECT jobs.job_id, kind, other, dooming.outcome
  FROM doomed CROSS JOIN jobs USING (born) CROSS JOIN dooming USING (born)
  ORDER BY doomed.born LIMIT ?1)
"""


class CancelCause(NamedTuple):
    """That *job_id* is to be cancelled, because of what became of an *other* one."""

    job_id: str
    kind: str
    other: str
    outcome: str


def apply(touched: Iterable[JobChange]) -> Iterator[Statement]:
    put: list[tuple[str, int, str]] = []
    tied: list[int] = []
    turned: list[str] = []
    for each in touched:
        job, before = each.after, each.before
        has = _ties(job)
        if has or (before is not None and _ties(before)):
            put += has
            tied.append(job.born)
        if outcome(job) != (None if before is None else outcome(before)):
            turned.append(job.job_id)
    if tied:
        yield DELETE_DEPENDENCIES, rows(tied)
        yield ADD_DEPENDENCIES, rows(put)
    if tied or turned:
        yield MARK_CHANGED, (*rows(tied), *rows(turned))
        yield UPDATE_WAITS, ()
        yield CLEAR_CANCEL_MARKS, ()
        yield MARK_TO_CANCEL, ()
        yield CLEAR_CHANGED, ()


def _ties(job: Job) -> list[tuple[str, int, str]]:
    """Those that matter to *job* as it is now."""
    spec = job.spec
    if (not spec.after and spec.parent is None) or job.finished:
        return []
    ties = []
    if job.status == Status.QUEUED:
        kind = AFTER if spec.after_failure is None else AFTER_ANY
        ties = [(other, job.born, kind) for other in spec.after]
    if spec.parent is not None and job.cancel_requested_us is None:
        ties.append((spec.parent, job.born, CHILD))
    return ties
