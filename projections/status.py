"""The current state of every job, with columns and indexes to list, filter and count jobs."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson

from eventjobs.domain.hook_results import HookResult
from eventjobs.domain.job import DEFAULT_QUEUE, Job
from eventjobs.domain.json_fields import as_fragments
from eventjobs.domain.spec import Artifact, JobSpec
from eventjobs.domain.steps import Step
from eventjobs.projections.change import JobChange, Statement, rows

NAME = "status"
VERSION = 8

SCHEMA = """
CREATE TABLE jobs (
  born       INTEGER PRIMARY KEY,  -- position of the job's first event: its place in time order
  job_id     TEXT    NOT NULL UNIQUE,
  type       TEXT    NOT NULL,
  owner      TEXT,
  queue      TEXT,                 -- NULL: the default one
  created_us INTEGER NOT NULL,
  status     TEXT,                 -- NULL: hidden
  listed     INTEGER NOT NULL,     -- 0: hidden; changes once, and so costs these indexes nothing
  state      TEXT    NOT NULL,
  outcome    TEXT,                 -- how it ended, hidden or not; 'stopping' when it was asked to
  parent     TEXT,
  ended_us   INTEGER,              -- of a job to be hidden as the settings say
  expires_us INTEGER               -- of one that says by itself when to hide it
) STRICT;
CREATE INDEX jobs_status ON jobs (status, born);
-- What is hidden is in none of those that lists go over: most jobs there ever were are hidden.
CREATE INDEX jobs_listed ON jobs (born, created_us) WHERE listed;
CREATE INDEX jobs_type ON jobs (type, born) WHERE listed;
CREATE INDEX jobs_owner ON jobs (owner, born) WHERE listed AND owner IS NOT NULL;
CREATE INDEX jobs_queue ON jobs (queue, born) WHERE listed AND queue IS NOT NULL;
CREATE INDEX jobs_parent ON jobs (parent, born) WHERE listed AND parent IS NOT NULL;
CREATE INDEX jobs_ended ON jobs (ended_us) WHERE ended_us IS NOT NULL;
CREATE INDEX jobs_expires ON jobs (expires_us) WHERE expires_us IS NOT NULL;

-- Beside the state and not in it: a payload is written once, not at every change.
CREATE TABLE specs (
  born INTEGER PRIMARY KEY,
  spec TEXT NOT NULL
) STRICT;

CREATE TABLE tags (
  tag  TEXT    NOT NULL,
  born INTEGER NOT NULL,
  PRIMARY KEY (tag, born)
) STRICT, WITHOUT ROWID;

CREATE TABLE counts (
  type   TEXT    NOT NULL,
  status TEXT    NOT NULL,
  jobs   INTEGER NOT NULL,
  PRIMARY KEY (type, status)
) STRICT, WITHOUT ROWID;
"""

ADD_JOBS = """
WITH new AS MATERIALIZED (SELECT value FROM json_each(?1))
INSERT INTO jobs
SELECT value ->> 0, value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 1,
  value ->> 1 IS NOT NULL, value -> 2, value ->> 3, value ->> 11, value ->> 4, value ->> 5
FROM new
"""
HIDE_JOBS = "UPDATE jobs SET listed = 0 WHERE born IN (SELECT value FROM json_each(?1))"
#: A hidden job is shown again when it is imported again.
SHOW_JOBS = "UPDATE jobs SET listed = 1 WHERE born IN (SELECT value FROM json_each(?1))"
#: Apart from ADD_JOBS: to extract a value from JSON costs more than to store it.
CHANGE_JOBS = """
WITH changed AS MATERIALIZED (SELECT value FROM json_each(?1))
UPDATE jobs SET status = new.status, state = new.state, outcome = new.outcome,
  ended_us = new.ended_us, expires_us = new.expires_us
FROM (
  SELECT value ->> 0 AS born, value ->> 1 AS status, value -> 2 AS state, value ->> 3 AS outcome,
    value ->> 4 AS ended_us, value ->> 5 AS expires_us
  FROM changed) AS new
WHERE jobs.born = new.born
"""
ADD_SPECS = """
WITH new AS MATERIALIZED (SELECT value FROM json_each(?1))
INSERT INTO specs SELECT value ->> 0, value -> 1 FROM new
"""
ADD_TAGS = "INSERT OR IGNORE INTO tags SELECT value ->> 0, value ->> 1 FROM json_each(?1)"
ADD_COUNTS = """
INSERT INTO counts SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1) WHERE true
ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs
"""
# A count of zero leaves no row, so the rows do not depend on how the log is cut into batches.
DELETE_ZERO_COUNTS = "DELETE FROM counts WHERE jobs = 0"

SELECT_JOBS = """
SELECT json_group_array(json_array(
  job_id, born, created_us, json(state), json(spec), length(state) + length(spec)))
FROM jobs JOIN specs USING (born) WHERE job_id IN (SELECT value FROM json_each(?1))
"""
SELECT_TYPES = """
SELECT json_group_array(json_array(job_id, type))
FROM jobs WHERE job_id IN (SELECT value FROM json_each(?1))
"""
SELECT_RUNNING = "SELECT json_group_array(job_id) FROM jobs WHERE status = 'running'"
#: Including hidden jobs.
SELECT_NEWEST_TAGGED = """
SELECT json_quote((
  SELECT job_id FROM tags JOIN jobs USING (born) WHERE tag = ?1 ORDER BY born DESC LIMIT 1))
"""
#: Each half uses its own index.
SELECT_EXPIRING = """
SELECT json_group_array(job_id) FROM (
  SELECT job_id FROM (
    SELECT job_id FROM jobs WHERE ended_us > :ended_after_us AND ended_us <= :ended_us
    ORDER BY ended_us LIMIT :limit)
  UNION ALL
  SELECT job_id FROM (
    SELECT job_id FROM jobs WHERE expires_us > :after_us AND expires_us <= :now_us
    ORDER BY expires_us LIMIT :limit))
"""
SELECT_COUNTS = "SELECT json_group_array(json_array(type, status, jobs)) FROM counts"
SELECT_OWNER_COUNTS = """
SELECT json_group_array(json_array(type, status, jobs)) FROM (
  SELECT type, status, count(*) AS jobs FROM jobs WHERE listed AND owner = ?1
  GROUP BY type, status)
"""
#: With the position of the views, at which they are counted.
SELECT_QUEUED_BY_OWNER = """
SELECT json_array(
  (SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'position'),
  (SELECT json_group_object(owner, jobs) FROM (
    SELECT owner, count(*) AS jobs FROM jobs
    WHERE status = 'queued' AND owner IS NOT NULL AND state ->> 'imported' IS NULL
    GROUP BY owner)))
"""

#: Fields of a Job that are not in the column `state`.
_NOT_IN_STATE = ("job_id", "spec", "born", "created_us")


def apply(changes: Iterable[JobChange]) -> Iterator[Statement]:
    added = []
    changed = []
    hidden = []
    shown = []
    specs = []
    tags = []
    counts: dict[tuple[str, str], int] = {}
    for change in changes:
        job, before = change.after, change.before
        state = job.__dict__.copy()
        for name in _NOT_IN_STATE:
            del state[name]
        listed, listed_before = _listed_status(job), None
        row = (job.born, listed, state, outcome(job), *_end(job))
        if before is None:
            spec = job.spec
            columns = (job.job_id, spec.type, spec.owner, _queue(spec.queue), job.created_us)
            added.append((*row, *columns, spec.parent))
            specs.append((job.born, change.submission))
            tags += [(tag, job.born) for tag in spec.tags]
        else:
            changed.append(row)
            listed_before = _listed_status(before)
            if listed is None and listed_before is not None:
                hidden.append(job.born)
            elif listed is not None and listed_before is None:
                shown.append(job.born)
        if listed_before != listed:
            for status, difference in ((listed_before, -1), (listed, +1)):
                if status is not None:
                    key = job.spec.type, status
                    counts[key] = counts.get(key, 0) + difference
    if added:
        yield ADD_JOBS, rows(added)
    if changed:
        yield CHANGE_JOBS, rows(changed)
    if hidden:
        yield HIDE_JOBS, rows(hidden)
    if shown:
        yield SHOW_JOBS, rows(shown)
    if specs:
        yield ADD_SPECS, rows(specs)
    if tags:
        yield ADD_TAGS, rows(tags)
    if counts:
        yield ADD_COUNTS, rows([(*key, difference) for key, difference in counts.items()])
        yield DELETE_ZERO_COUNTS, ()


def _listed_status(job: Job) -> str | None:
    """The status that lists show; None for a hidden job."""
    return None if job.expired_us is not None else job.status


def outcome(job: Job) -> str | None:
    """The outcome that dependents wait for; "stopping" while a cancelled job still runs."""
    if job.finished_us is not None:
        return job.status
    return None if job.cancel_requested_us is None else "stopping"


def _end(job: Job) -> tuple[int | None, int | None]:
    """(ended_us, None), or (None, expires_us) with a time to live of its own.

    (None, None) when the job is not to be hidden.
    """
    if (ended_us := job.ended_us) is None or job.expired_us is not None:
        return None, None
    if job.spec.ttl_s is None:
        return ended_us, None
    return None, ended_us + int(job.spec.ttl_s * 1e6)


def _queue(name: str | None) -> str | None:
    return None if name == DEFAULT_QUEUE else name


def job_from_row(row: list[Any]) -> Job:
    """The job of a row of SELECT_JOBS."""
    job_id, born, created_us, state, spec = row
    if "artifacts" in state:
        state["artifacts"] = tuple(Artifact(**each) for each in state["artifacts"])
    if "steps" in state:
        state["steps"] = tuple(Step(**each) for each in state["steps"])
    if "hooks" in state:
        state["hooks"] = tuple(HookResult(**each) for each in state["hooks"])
    if "late" in state:
        state["late"] = tuple(map(tuple, state["late"]))
    spec = JobSpec(**as_fragments(JobSpec, spec))
    as_fragments(Job, state)
    job = object.__new__(Job)
    job.__dict__.update(job_id=job_id, spec=spec, born=born, created_us=created_us, **state)
    return job


# --- listing

_LIST = """
SELECT json_group_array(json_array(
  job_id, born, created_us, json(state), (SELECT json(spec) FROM specs WHERE born = page.born)))
FROM (SELECT job_id, born, created_us, state FROM jobs WHERE listed
"""
#: Ids of the listed jobs born after :cursor, and where the last of them is.
SELECT_LISTED_IDS = """
SELECT json_array(json_group_array(job_id), max(born)) FROM (
  SELECT job_id, born FROM jobs
  WHERE listed AND born > :cursor AND type NOT GLOB 'eventjobs.*' ORDER BY born LIMIT :limit)
"""
SELECT_LISTED_IDS_OF_OWNER = SELECT_LISTED_IDS.replace("born >", "owner = :owner AND born >")
_FILTERS = {
    "status": "AND status IN (SELECT value FROM json_each(:status))",
    "type": "AND type IN (SELECT value FROM json_each(:type))",
    "owner": "AND owner = :owner",
    "parent": "AND parent = :parent",
    "queue": "AND queue = :queue",
    "tag": "AND born IN (SELECT born FROM tags WHERE tag = :tag)",
    "since_us": "AND created_us >= :since_us",
    "until_us": "AND created_us < :until_us",
    "job_id": "AND job_id IN (SELECT value FROM json_each(:job_id))",
}
_DEFAULT_QUEUE = "AND queue IS NULL"
#: The service's own jobs, such as deliveries of webhooks, are listed only by type or id.
_WITHOUT_OWN_JOBS = "AND type NOT GLOB 'eventjobs.*'"
# An index has the jobs of one status in order; those of two have to be sorted.
_SINGLE_VALUE = {
    "status": "AND status = :status",
    "type": "AND type = :type",
}
_ORDERS = {
    "newest": "AND born < :cursor ORDER BY born DESC LIMIT :limit) AS page",
    "oldest": "AND born > :cursor ORDER BY born LIMIT :limit) AS page",
}


def list_statement(
    filters: dict[str, Any], order: str, counts: Iterable[Sequence[Any]] = ()
) -> tuple[str, dict[str, Any]]:
    """The statement that lists jobs by *filters*, and its parameters. A None filters nothing.

    With *counts*, the rows of SELECT_COUNTS, it uses the index of the more selective filter.
    """
    clauses = []
    parameters: dict[str, Any] = {}
    less_selective = _less_selective(filters, counts)
    for name, value in sorted(filters.items()):
        if value is None:
            continue
        if name == "queue" and value == DEFAULT_QUEUE:
            clauses.append(_DEFAULT_QUEUE)
            continue
        clause = _FILTERS[name]
        parameters[name] = orjson.dumps(value).decode() if isinstance(value, list) else value
        if name in _SINGLE_VALUE and len(value) == 1:
            clause, [parameters[name]] = _SINGLE_VALUE[name], value
        # A + keeps SQLite from using the index: it does not know which filter is more selective.
        clauses.append(clause.replace("AND ", "AND +", 1) if name == less_selective else clause)
    if filters.get("type") is None and filters.get("job_id") is None:
        clauses.append(_WITHOUT_OWN_JOBS)
    return " ".join([_LIST, *clauses, _ORDERS[order]]), parameters


def _less_selective(filters: dict[str, Any], counts: Iterable[Sequence[Any]]) -> str | None:
    """The filter that leaves more jobs, "type" or "status"; None unless there are both."""
    types, statuses = filters.get("type"), filters.get("status")
    if types is None or statuses is None:
        return None
    of_type = sum(jobs for type, _, jobs in counts if type in types)
    of_status = sum(jobs for _, status, jobs in counts if status in statuses)
    return "type" if of_status < of_type else "status"
