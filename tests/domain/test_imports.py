"""Jobs of other stores: what an import decides, and the state that results from it."""

from dataclasses import replace
from typing import Any

import pytest

from eventjobs.domain import decisions
from eventjobs.domain import events as e
from eventjobs.domain.job import Job, Status
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import JobExists, JobGone, StaleAttempt, WrongState
from eventjobs.projections.attempt_progress import Progress, advance
from eventjobs.projections.explanation import explain_imported
from eventjobs.projections.history import describe_history
from eventjobs.projections.receipt import describe_receipt
from tests.support.decisions import as_recorded, given

YEAR_2025_US = 1_735_689_600_000_000
DONE_US = YEAR_2025_US + 60_000_000
RECORD: dict[str, Any] = {
    "status": "completed",
    "result": {"suggestions": [1]},
    "payload": {"text": "a protocol"},
    "progress": 75.5,
}
TIMES = YEAR_2025_US, DONE_US
done = e.JobImported("imported", "completed", "jobs/1.json", *TIMES, None, DONE_US, record=RECORD)
running = replace(done, status="running", finished_us=None, record={"progress": 40})
queued = replace(done, status="queued", finished_us=None, record={})
failed = replace(done, status="failed", record={"error_message": "no more paper"})


def job_after(*events: e.Event) -> Job:
    job = given(*events).job
    assert job is not None
    return job


def test_an_imported_job_has_the_state_and_the_times_of_its_store() -> None:
    job = job_after(done)
    assert (job.status, job.created_us, job.updated_us) == (Status.COMPLETED, *TIMES)
    assert (job.finished_us, job.result, job.spec.payload) == (
        DONE_US,
        {"suggestions": [1]},
        {"text": "a protocol"},
    )
    failure = job_after(failed).error
    assert failure is not None
    assert (failure["code"], failure["message"]) == ("failed_elsewhere", "no more paper")


def test_the_same_file_again_changes_nothing_and_another_one_is_an_event() -> None:
    given(running).when(decisions.import_job, running).then_nothing()
    given(running).when(decisions.import_job, done).then(done)
    job = job_after(running, failed, queued)
    assert (job.status, job.error, job.finished_us, job.version) == (Status.QUEUED, None, None, 3)


def test_old_history_is_recorded_once() -> None:
    first, second = replace(queued, line=1), replace(running, line=2)
    given(first).when(decisions.import_job, second, newest=False).then(second)
    given(first, second).when(decisions.import_job, first, newest=False).then_nothing()
    # A history that was cut counts, although its line was recorded before.
    given(first, second).when(decisions.import_job, replace(done, line=1)).then(
        replace(done, line=1)
    )


def test_a_job_of_this_service_is_not_overwritten() -> None:
    given(e.JobSubmitted(JobSpec("csv"))).when(decisions.import_job, done).refused(JobExists)


@pytest.mark.parametrize("imported", [queued, running])
def test_a_job_that_another_program_runs_is_not_changed_here(imported: e.JobImported) -> None:
    for decision in (decisions.cancel, decisions.retry):
        given(imported).when(decision).refused(WrongState)
    given(imported).when(decisions.start, 10**18, "worker").refused(WrongState)
    given(imported).when(decisions.expire, "deleted").refused(WrongState)
    given(imported).when(decisions.complete, 0, "forged").refused(StaleAttempt)
    job = job_after(imported)
    assert (job.waits, job.runs, job.can_retry) == (False, False, False)


def test_an_imported_failure_cannot_be_retried_and_can_be_hidden() -> None:
    given(failed).when(decisions.retry).refused(WrongState)
    given(failed).when(decisions.expire, "deleted").then(e.JobExpired("deleted"))
    hidden = job_after(failed, e.JobExpired("deleted"))
    assert hidden.expired_us is not None
    assert job_after(failed, e.JobExpired("deleted"), done).expired_us is None


def test_its_time_to_live_counts_from_its_import() -> None:
    assert job_after(done).ended_us == 1_000_000  # of the event, not of the file
    assert job_after(running).ended_us is None


@pytest.mark.parametrize(
    ("value", "fraction"), [(75.5, 0.755), (0, 0.0), (250, 1.0), (-3, 0.0), ("half", None)]
)
def test_its_progress_is_that_of_the_record(value: object, fraction: float | None) -> None:
    [recorded] = as_recorded(replace(running, record={"progress": value, "message": "reading"}))
    progress = advance(None, recorded)
    expected = None if fraction is None else Progress(fraction, None, "reading", None, DONE_US)
    assert progress == expected


def test_people_read_where_it_came_from() -> None:
    events = as_recorded(running, done)
    texts = [each["text"] for each in describe_history(events)["entries"]]
    assert texts == [
        "imported from jobs/1.json: running, as of 2025-01-01T00:01:00.000000Z",
        "imported from jobs/1.json: completed, as of 2025-01-01T00:01:00.000000Z",
    ]
    assert describe_receipt(events)["text"] == [
        "imported from jobs/1.json; another program runs it, or ran it"
    ]
    for events_seen, text in (
        (
            (running,),
            "it was imported from jobs/1.json, where it is running; another program runs it",
        ),
        (
            (running, done),
            "it was imported from jobs/1.json, where it is completed; another program ran it",
        ),
    ):
        [reason] = explain_imported(job_after(*events_seen))
        assert (reason["code"], reason["source"]) == ("imported", "jobs/1.json")
        assert reason["text"] == text


def test_the_program_that_runs_a_job_may_delete_it_and_store_it_again() -> None:
    given(running).when(decisions.delete_import).then(e.JobExpired("deleted"))
    given(e.JobSubmitted(JobSpec("csv"))).when(decisions.delete_import).refused(WrongState)
    deleted = given(running, e.JobExpired("deleted"))
    deleted.when(decisions.delete_import).refused(JobGone)
    deleted.when(decisions.import_job, running).then_nothing()
    deleted.when(decisions.import_job, running, revive=True).then(running)
