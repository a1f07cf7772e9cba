"""Dependencies (`after`) and parents of unfinished jobs.

Which jobs wait, and which must be cancelled, follows from the current states of both jobs alone.
So it does not depend on how the log is cut into batches.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from eventjobs.domain.job import Job, Status
from eventjobs.projections.change import JobChange, Statement, rows
from eventjobs.projections.queue import SELECT_MOVED, has_relatives
from eventjobs.projections.status import outcome

NAME = "ties"
VERSION = 1

#: The job waits until the other is completed; until it has ended; or is the other's child.
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

-- Jobs whose dependencies have changed in this batch; empty between batches.
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

COUNT_DEPENDENTS = "SELECT count(DISTINCT born) FROM ties"
SELECT_UNMET = """
SELECT json_group_array(json_array(other, unmet.status))
FROM jobs JOIN unmet USING (born) WHERE job_id = ?1
"""
#: Rows of CancelCause, one for each dependency: a job may be in it twice.
SELECT_TO_CANCEL = """
SELECT json_group_array(json_array(job_id, kind, other, outcome)) FROM (
  SELECT jobs.job_id, kind, other, dooming.outcome
  FROM doomed CROSS JOIN jobs USING (born) CROSS JOIN dooming USING (born)
  ORDER BY doomed.born LIMIT ?1)
"""


class CancelCause(NamedTuple):
    """*job_id* must be cancelled, because of the *outcome* of the *other* job."""

    job_id: str
    kind: str
    other: str
    outcome: str


def apply(changes: Iterable[JobChange]) -> Iterator[Statement]:
    dependencies: list[tuple[str, int, str]] = []
    dependents: list[int] = []
    new_outcomes: list[str] = []
    for change in changes:
        job = change.after
        current = _dependencies_of(job)
        if current or has_dependencies(change.before):
            dependencies += current
            dependents.append(job.born)
        if outcome(job) != _outcome_before(change):
            new_outcomes.append(job.job_id)
    if dependents:
        yield DELETE_DEPENDENCIES, rows(dependents)
        yield ADD_DEPENDENCIES, rows(dependencies)
    if dependents or new_outcomes:
        yield MARK_CHANGED, (*rows(dependents), *rows(new_outcomes))
        yield UPDATE_WAITS, ()
        yield SELECT_MOVED, ()
        yield CLEAR_CANCEL_MARKS, ()
        yield MARK_TO_CANCEL, ()
        yield CLEAR_CHANGED, ()


def has_dependencies(job: Job | None) -> bool:
    """Whether the table has rows of it."""
    return job is not None and bool(_dependencies_of(job))


def may_move_others(changes: Iterable[JobChange], dependents: int) -> bool:
    """Whether the place of a job in the queue, or whether it is to be cancelled, may depend on
    *changes*. *dependents* is the number of jobs with dependencies.
    """
    return any(
        has_relatives(change.after)
        or (dependents > 0 and outcome(change.after) != _outcome_before(change))
        for change in changes
    )


def _outcome_before(change: JobChange) -> str | None:
    return None if change.before is None else outcome(change.before)


def _dependencies_of(job: Job) -> list[tuple[str, int, str]]:
    """Rows of the table, as the current state of *job* has them."""
    spec = job.spec
    if (not spec.after and spec.parent is None) or job.finished:
        return []
    dependencies = []
    if job.status == Status.QUEUED:
        kind = AFTER if spec.after_failure is None else AFTER_ANY
        dependencies = [(other, job.born, kind) for other in spec.after]
    if spec.parent is not None and job.cancel_requested_us is None:
        dependencies.append((spec.parent, job.born, CHILD))
    return dependencies
