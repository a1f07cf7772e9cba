"""Which jobs a filter matches, and which of their events it selects."""

import pytest

from eventjobs.domain.events import Event, JobExpired, JobSubmitted, LogWritten
from eventjobs.domain.job import Job, evolve
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.http.streams.job_filter import JobFilter
from tests.support.histories import START_US, job_id, record

SPEC = JobSpec("a", tags=("t", "u"), owner="ann", queue="mail", parent=job_id(9))


def at_head(event: Event, job: Job | None = None) -> Recorded:
    return record(event, job_id(0), job, 1 if job is None else job.position + 1, START_US)


def a_job(spec: JobSpec = SPEC) -> Job:
    return evolve(None, at_head(JobSubmitted(spec)))


@pytest.mark.parametrize(
    ("field", "matching", "other"),
    [
        ("ids", frozenset({job_id(0)}), frozenset({job_id(1)})),
        ("type", frozenset({"a", "b"}), frozenset({"b"})),
        ("owner", "ann", "bob"),
        ("queue", "mail", "default"),
        ("parent", job_id(9), job_id(8)),
        ("tag", "u", "v"),
    ],
)
def test_each_field_limits(field: str, matching: object, other: object) -> None:
    job = a_job()
    assert JobFilter(**{field: matching}).matches(job)  # type: ignore[arg-type]
    assert not JobFilter(**{field: other}).matches(job)  # type: ignore[arg-type]
    assert not JobFilter(**{field: other}).matches_everything  # type: ignore[arg-type]


def test_a_filter_without_fields_matches_everything_that_is_there() -> None:
    assert JobFilter().matches_everything
    assert JobFilter().matches(a_job())
    assert not JobFilter().matches(None)


def test_a_change_matches_by_the_status_before_or_after() -> None:
    queued = JobFilter(status=frozenset({"queued"}))
    assert queued.matches_change(a_job(), ["queued", "running"])
    assert queued.matches_change(a_job(), ["running", "queued"])
    assert not queued.matches_change(a_job(), ["running"])
    assert queued.matches_change(a_job())


def test_jobs_of_the_service_are_shown_to_those_who_name_them() -> None:
    delivery = a_job(JobSpec("eventjobs.delivery"))
    assert not JobFilter().matches_change(delivery)
    assert JobFilter(type=frozenset({"eventjobs.delivery"})).matches_change(delivery)
    assert JobFilter(ids=frozenset({job_id(0)})).matches_change(delivery)


def test_among_named_jobs_the_other_fields_choose_once() -> None:
    ids = frozenset({job_id(0), job_id(1)})
    status = frozenset({"queued"})
    job_filter = JobFilter(ids=ids, type=frozenset({"a"}), status=status, logs=True)
    left = JobFilter(ids=frozenset({job_id(0)}), status=status, logs=True)
    assert job_filter.among([a_job()]) == left
    assert JobFilter(tag="t").among([]) == JobFilter(tag="t")


def test_a_stream_of_logs_has_lines_alone() -> None:
    job = a_job()
    events = [at_head(LogWritten(1, "info", "a"), job), at_head(JobExpired("over"), job)]
    assert JobFilter(logs=True).select(events) == events[:1]
    assert JobFilter().select(events) == events
