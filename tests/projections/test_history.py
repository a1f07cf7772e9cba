"""The history of a job for a person."""

import orjson
from hypothesis import given

from eventjobs.domain import events as e
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.projections.history import describe_history
from tests.support.decisions import as_recorded
from tests.support.histories import histories

submitted = e.JobSubmitted(JobSpec("csv"))
started = e.AttemptStarted(1, "worker-1")


def sentences(*events: e.Event) -> list[str]:
    return [each["text"] for each in describe_history(as_recorded(*events))["entries"]]


def test_steps_breakers_and_late_reports_are_told() -> None:
    step = e.StepCompleted(1, "fetch", 0, {"rows": 3})
    breaker = e.BreakerChanged(1, "llm", "open", 5)
    ended = e.AttemptFailed(1, "io", False)
    late = e.LateReportRefused(1, "complete")
    texts = sentences(
        submitted, started, step, breaker, ended, late, e.JobRetried(from_step="fetch")
    )
    assert texts[2:] == [
        "completed the step fetch",
        "the circuit breaker of llm is open",
        "attempt 1 failed with io; the job has failed",
        "attempt 1 came too late with complete, and was refused",
        "queued again by hand from the step fetch",
    ]
    [attempt] = describe_history(as_recorded(submitted, started, ended, late))["attempts"]
    assert attempt["reports"] == 0, "what is refused was no report"


def test_an_attempt_that_was_handed_over_is_its_services() -> None:
    handed = e.AttemptHandedOver(1, "service analysis.example", 900.0)
    assert sentences(submitted, started, handed)[2:] == [
        "attempt 1 was handed over to service analysis.example"
    ]
    [attempt] = describe_history(as_recorded(submitted, started, handed))["attempts"]
    assert (attempt["worker"], attempt["reports"]) == ("service analysis.example", 0)


def test_nothing_has_no_history() -> None:
    assert describe_history([]) == {"entries": [], "attempts": [], "waited_s": None}


def test_each_event_is_a_sentence() -> None:
    assert sentences(
        submitted,
        started,
        e.ArtifactStored(1, "a.csv", "00", 12, "text/csv"),
        e.AttemptFailed(1, "io", True, 1_735_689_600_000_000, "why"),
        e.AttemptStarted(2, "worker-2"),
        e.AttemptReleased(2, "shutdown"),
        e.AttemptStarted(3, "worker-1"),
        e.AttemptFailed(3, "bug", False, None, "why"),
        e.JobRetried("mended"),
        e.AttemptStarted(4, "worker-1"),
        e.JobCompleted(4),
        e.JobExpired("ttl"),
    ) == [
        "submitted as csv",
        "attempt 1 started on worker-1",
        "stored a.csv (12 bytes)",
        "attempt 1 failed with io; to be retried at 2025-01-01T00:00:00.000000Z",
        "attempt 2 started on worker-2",
        "attempt 2 was given back: shutdown",
        "attempt 3 started on worker-1",
        "attempt 3 failed with bug; the job has failed",
        "queued again by hand: mended",
        "attempt 4 started on worker-1",
        "completed by attempt 4",
        "hidden: ttl",
    ]


def test_a_reason_is_told_where_there_is_one() -> None:
    assert sentences(submitted, e.JobCancelled(None, "enough")) == [
        "submitted as csv",
        "cancelled: enough",
    ]
    assert sentences(submitted, started, e.CancelRequested(), e.JobCancelled(1))[2:] == [
        "asked to stop",
        "cancelled",
    ]


def test_the_end_of_a_completion_hook_is_a_sentence() -> None:
    hooks = (
        e.HookCompleted("story", "7", "/stories/7"),
        e.HookCompleted("story", "7"),
        e.HookCompleted("mail"),
        e.HookFailed("story", "busy", "The database is busy."),
        e.HookFailed("mail", "no_route"),
    )
    assert sentences(submitted, started, e.JobCompleted(1), *hooks)[3:] == [
        "the completion hook story made the record /stories/7",
        "the completion hook story made the record 7",
        "the completion hook mail made the record",
        "the completion hook story failed with busy: The database is busy.",
        "the completion hook mail failed with no_route",
    ]


def test_reports_and_logs_are_counted_not_told() -> None:
    texts = describe_history(
        as_recorded(
            submitted, started, e.ProgressReported(1), e.LogWritten(1, "info"), e.JobCompleted(1)
        )
    )
    assert len(texts["entries"]) == 3
    assert texts["attempts"][0]["reports"] == 2


def test_each_attempt_has_its_outcome_and_duration() -> None:
    texts = describe_history(
        as_recorded(
            submitted,
            started,
            e.AttemptFailed(1, "io", True, 0, "why"),
            e.AttemptStarted(2, "worker-2"),
            e.ProgressReported(2),
            e.JobCompleted(2),
            e.JobExpired("ttl"),
        )
    )
    assert texts["attempts"] == [
        {
            "attempt": 1,
            "worker": "worker-1",
            "started_at": "1970-01-01T00:00:02.000000Z",
            "ended_at": "1970-01-01T00:00:03.000000Z",
            "duration_s": 1.0,
            "outcome": "failed",
            "error": {"code": "io", "message": "why"},
            "reports": 0,
        },
        {
            "attempt": 2,
            "worker": "worker-2",
            "started_at": "1970-01-01T00:00:04.000000Z",
            "ended_at": "1970-01-01T00:00:06.000000Z",
            "duration_s": 2.0,
            "outcome": "completed",
            "error": None,
            "reports": 1,
        },
    ]
    assert texts["waited_s"] == 1.0


def test_an_attempt_that_runs_has_not_ended() -> None:
    [attempt] = describe_history(as_recorded(submitted, started))["attempts"]
    assert (attempt["outcome"], attempt["ended_at"], attempt["duration_s"]) == (
        "running",
        None,
        None,
    )


def test_a_job_cancelled_before_it_ran_has_no_attempts() -> None:
    texts = describe_history(as_recorded(submitted, e.JobCancelled()))
    assert (texts["attempts"], texts["waited_s"]) == ([], None)


def test_who_did_it_and_when_is_told() -> None:
    [entry] = describe_history(as_recorded(submitted))["entries"]
    assert entry == {
        "position": 1,
        "version": 1,
        "at": "1970-01-01T00:00:01.000000Z",
        "actor": "tester",
        "type": "JobSubmitted",
        "text": "submitted as csv",
    }


@given(histories(jobs_max=1))
def test_any_history_can_be_told_and_put_into_json(history: list[Recorded]) -> None:
    texts = describe_history(history)
    assert orjson.loads(orjson.dumps(texts)) == texts
    starts = [each for each in history if isinstance(each.event, e.AttemptStarted)]
    assert [each["attempt"] for each in texts["attempts"]] == list(range(1, len(starts) + 1))
    assert all(each["outcome"] != "running" for each in texts["attempts"][:-1])
    reports = sum(each["reports"] for each in texts["attempts"])
    told_by_attempts = (
        e.ProgressReported | e.LogWritten | e.ArtifactStored | e.StepCompleted | e.BreakerChanged
    )
    assert reports == sum(isinstance(each.event, told_by_attempts) for each in history)
