"""The end of a completion hook, as sentences; and when a job is over."""

import pytest

from eventjobs.domain import events as e
from eventjobs.domain.decisions import end_hook, submit
from eventjobs.domain.hook_results import HookResult
from eventjobs.domain.job import Job, fold
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import JobExists, JobNotFound, WrongState
from tests.support.decisions import as_recorded, given

SPEC = JobSpec("csv", {"rows": 3}, max_attempts=1, hooks=("story", "mail"))

submitted = e.JobSubmitted(SPEC)
started = e.AttemptStarted(1, "worker-1")
completed = e.JobCompleted(1, None)
story = e.HookCompleted("story", "7", "/stories/7")
other_story = e.HookCompleted("story", "8")
failed = e.HookFailed("story", "busy", "The database is busy.")
mail = e.HookCompleted("mail")


def job_of(*events: e.Event) -> Job:
    job = fold(as_recorded(submitted, started, *events))
    assert job is not None
    return job


def test_a_hook_ends_once_with_a_record() -> None:
    given(submitted, started, completed).when(end_hook, story).then(story)
    given(submitted, started, completed, story).when(end_hook, story).then_nothing()
    given(submitted, started, completed, story).when(end_hook, other_story).then_nothing()
    given(submitted, started, completed, story).when(end_hook, failed).then_nothing()
    given(submitted, started, completed, story).when(end_hook, mail).then(mail)


def test_a_failed_hook_may_make_its_record_later() -> None:
    given(submitted, started, completed, failed).when(end_hook, failed).then(failed)
    given(submitted, started, completed, failed).when(end_hook, story).then(story)


def test_a_hook_of_a_hidden_job_ends() -> None:
    given(submitted, started, completed, e.JobExpired("ttl")).when(end_hook, story).then(story)


def test_only_a_hook_of_a_completed_job_ends() -> None:
    given().when(end_hook, story).refused(JobNotFound)
    given(submitted, started).when(end_hook, story).refused(WrongState)
    given(submitted, e.JobCancelled()).when(end_hook, story).refused(WrongState)
    unknown = e.HookCompleted("chart", "7")
    given(submitted, started, completed).when(end_hook, unknown).refused(WrongState)


def test_other_hooks_make_no_other_submission() -> None:
    given(submitted).when(submit, JobSpec("csv", {"rows": 3}, max_attempts=1)).then_nothing()
    given(submitted).when(submit, JobSpec("csv", {"rows": 4}, max_attempts=1)).refused(JobExists)


@pytest.mark.parametrize(
    ("events", "is_over"),
    [
        ([], False),
        ([e.AttemptFailed(1, "bad", False)], True),
        ([completed], False),
        ([completed, story], False),
        ([completed, story, mail], True),
        ([completed, failed, mail], True),
        ([completed, e.JobExpired("ttl")], True),
    ],
)
def test_a_job_is_over_when_all_its_hooks_have_ended(events: list[e.Event], is_over: bool) -> None:
    assert job_of(*events).is_over is is_over


def test_a_record_takes_the_place_of_a_failure() -> None:
    job = job_of(completed, failed, mail, story)
    assert job.hooks == (HookResult("mail"), HookResult("story", "7", "/stories/7"))
    assert [each.link for each in job.hooks] == [None, "/stories/7"]
