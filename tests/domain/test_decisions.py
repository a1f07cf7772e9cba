"""A job's decisions, as sentences: given these events, when this is decided, then that event."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from eventjobs.domain import events as e
from eventjobs.domain.decisions import (
    Report,
    cancel,
    cancel_attempt,
    complete,
    expire,
    fail,
    hand_over,
    refuse,
    release,
    report,
    retry,
    start,
    submit,
)
from eventjobs.domain.job import Job, Status, evolve, fold
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import Artifact, JobSpec
from eventjobs.domain.steps import STEPS_MAX
from eventjobs.errors import (
    JobExists,
    JobGone,
    JobNotFound,
    Rejected,
    StaleAttempt,
    TooManySteps,
    UnknownStep,
    WrongState,
)
from tests.support.decisions import as_recorded, given
from tests.support.histories import COMMANDS, histories, record

LATER_US = 10**12
NOW_US = 10**9
SPEC = JobSpec("csv", {"rows": 3}, max_attempts=3)

submitted = e.JobSubmitted(SPEC)
scheduled = e.JobSubmitted(JobSpec("csv", max_attempts=3, run_at_us=LATER_US))
started = e.AttemptStarted(1, "worker-1")
started_again = e.AttemptStarted(2, "worker-2")
to_retry = e.AttemptFailed(1, "io", True, NOW_US)
failed = e.AttemptFailed(1, "bug", False)
completed = e.JobCompleted(1, "result")
asked_to_stop = e.CancelRequested("enough")
cancelled = e.JobCancelled(1)
released = e.AttemptReleased(1, "shutdown")
handed_over = e.AttemptHandedOver(1, "service analysis.example", 900.0)
hidden = e.JobExpired("ttl")


def attempt_failed(attempt: int, *, retryable: bool = True) -> e.AttemptFailed:
    """As the runner puts it: with the time of the next attempt, should there be one."""
    return e.AttemptFailed(attempt, "io", retryable, NOW_US, "why", {"at": 1})


# --- every status, every decision

STATUSES: dict[str, tuple[e.Event, ...]] = {
    "none": (),
    "queued": (submitted,),
    "scheduled": (scheduled,),
    "running": (submitted, started),
    "stopping": (submitted, started, asked_to_stop),
    "to-retry": (submitted, started, e.AttemptFailed(1, "io", True, LATER_US)),
    "completed": (submitted, started, completed),
    "failed": (submitted, started, failed),
    "cancelled": (submitted, e.JobCancelled()),
    "hidden": (submitted, started, completed, hidden),
}
DECISIONS: dict[str, Callable[[Job | None], e.Event | None]] = {
    "submit": lambda job: submit(job, job.spec if job else SPEC),
    "submit-other": lambda job: submit(job, JobSpec("other")),
    "start": lambda job: start(job, NOW_US, "worker-3"),
    "report": lambda job: report(job, e.ProgressReported(1)),
    "hand-over": lambda job: hand_over(job, handed_over),
    "complete": lambda job: complete(job, 1, None),
    "fail": lambda job: fail(job, attempt_failed(1)),
    "release": lambda job: release(job, 1, "shutdown"),
    "cancel": cancel,
    "stopped": lambda job: cancel_attempt(job, 1),
    "retry": retry,
    "refuse": lambda job: refuse(job, 1, "complete"),
    "expire": lambda job: expire(job, "ttl"),
}
TABLE = """
             none      queued     scheduled  running   stopping   to-retry   completed failed    cancelled hidden
submit       Submitted nothing    nothing    nothing   nothing    nothing    nothing   nothing   nothing   Gone
submit-other Submitted Exists     Exists     Exists    Exists     Exists     Exists    Exists    Exists    Gone
start        NotFound  Started    Wrong      Wrong     Wrong      Wrong      Wrong     Wrong     Wrong     Gone
report       NotFound  Stale      Stale      Progress  Progress   Stale      Stale     Stale     Stale     Stale
hand-over    NotFound  Stale      Stale      HandedOver HandedOver Stale      Stale     Stale     Stale     Stale
complete     NotFound  Stale      Stale      Completed Completed  Stale      Stale     Stale     Stale     Stale
fail         NotFound  Stale      Stale      Failed    Cancelled  Stale      Stale     Stale     Stale     Stale
release      NotFound  Stale      Stale      Released  Cancelled  Stale      Stale     Stale     Stale     Stale
cancel       NotFound  Cancelled  Cancelled  Requested nothing    Cancelled  Wrong     Wrong     nothing   Gone
stopped      NotFound  Stale      Stale      Cancelled Cancelled  Stale      Stale     Stale     Stale     Stale
retry        NotFound  nothing    nothing    Wrong     Wrong      nothing    Wrong     Retried   Retried   Gone
refuse       nothing   nothing   nothing    nothing   nothing    Late       Late      Late      nothing   Late
expire       NotFound  Wrong      Wrong      Wrong     Wrong      Wrong      Expired   Expired   Expired   nothing
"""  # noqa: E501
WORDS: dict[str, type[e.Event] | type[Rejected] | None] = {
    "nothing": None,
    "HandedOver": e.AttemptHandedOver,
    "Late": e.LateReportRefused,
    "Submitted": e.JobSubmitted,
    "Started": e.AttemptStarted,
    "Progress": e.ProgressReported,
    "Completed": e.JobCompleted,
    "Failed": e.AttemptFailed,
    "Released": e.AttemptReleased,
    "Cancelled": e.JobCancelled,
    "Requested": e.CancelRequested,
    "Retried": e.JobRetried,
    "Expired": e.JobExpired,
    "NotFound": JobNotFound,
    "Gone": JobGone,
    "Exists": JobExists,
    "Wrong": WrongState,
    "Stale": StaleAttempt,
}
HEADING, *ROWS = (line.split() for line in TABLE.strip().splitlines())
CELLS = [
    (status, name, word)
    for name, *words in ROWS
    for status, word in zip(HEADING, words, strict=True)
]


@pytest.mark.parametrize(("status", "name", "word"), CELLS)
def test_every_decision_on_every_status(status: str, name: str, word: str) -> None:
    outcome: object
    try:
        outcome = DECISIONS[name](given(*STATUSES[status]).job)
    except Rejected as refusal:
        outcome = refusal
    wanted = WORDS[word]
    assert outcome is None if wanted is None else type(outcome) is wanted


def test_the_table_is_whole() -> None:
    assert list(STATUSES) == HEADING
    assert [row[0] for row in ROWS] == list(DECISIONS)


# --- submitting


def test_a_job_is_submitted_as_specified() -> None:
    given().when(submit, SPEC).then(e.JobSubmitted(SPEC))


def test_the_same_again_is_already_so_whatever_became_of_it() -> None:
    given(submitted, started, completed).when(submit, SPEC).then_nothing()


def test_the_same_is_no_other_job_when_the_handler_has_other_sensitive_fields() -> None:
    spec = JobSpec("charge", {"card": 1}, sensitive=("card",))
    given(e.JobSubmitted(spec)).when(submit, JobSpec("charge", {"card": 1})).then_nothing()
    other = JobSpec("charge", {"card": 2}, sensitive=("card",))
    given(e.JobSubmitted(spec)).when(submit, other).refused(JobExists)


def test_a_hidden_job_is_gone_and_its_id_is_not_free() -> None:
    given(submitted, e.JobCancelled(), hidden).when(submit, JobSpec("other")).refused(JobGone)


# --- attempts


def test_a_job_starts_when_it_is_due_and_not_before() -> None:
    given(scheduled).when(start, LATER_US - 1, "w").refused(WrongState)
    given(scheduled).when(start, LATER_US, "w").then(e.AttemptStarted(1, "w"))


def test_attempts_are_numbered_on() -> None:
    given(submitted, started, to_retry).when(start, NOW_US, "w").then(e.AttemptStarted(2, "w"))
    given(submitted, started, released).when(start, NOW_US, "w").then(e.AttemptStarted(2, "w"))
    given(submitted, started, failed, e.JobRetried()).when(start, NOW_US, "w").then(
        e.AttemptStarted(2, "w")
    )


@pytest.mark.parametrize(
    "decision",
    [
        partial(report, event=e.ProgressReported(1)),
        partial(report, event=e.LogWritten(1, "info")),
        partial(report, event=e.ArtifactStored(1, "a", "00", 1, "text/csv")),
        partial(complete, attempt=1, result=None),
        partial(fail, failed=attempt_failed(1)),
        partial(fail, failed=e.AttemptFailed(1, "bug", False)),
        partial(release, attempt=1, reason="shutdown"),
        partial(cancel_attempt, attempt=1),
    ],
)
def test_a_stale_attempt_is_refused_whatever_it_tells(
    decision: Callable[[Job | None], e.Event | None],
) -> None:
    running_again = given(submitted, started, to_retry, started_again)
    running_again.when(decision).refused(StaleAttempt)
    given(submitted, started, completed).when(decision).refused(StaleAttempt)


def test_an_attempt_that_is_yet_to_come_is_refused() -> None:
    given(submitted, started).when(complete, 2, None).refused(StaleAttempt)


def test_the_result_and_its_issues_are_kept() -> None:
    outcome = given(submitted, started).when(complete, 1, {"rows": 3}, ["odd"])
    outcome.then(e.JobCompleted(1, {"rows": 3}, ["odd"]))


def test_a_repeated_report_is_a_new_fact() -> None:
    progress = e.ProgressReported(1, 1, 2)
    given(submitted, started, progress).when(report, progress).then(progress)


# --- failing


def test_a_failed_attempt_is_retried_while_tries_are_left() -> None:
    given(submitted, started).when(fail, attempt_failed(1)).then(attempt_failed(1))


def test_the_last_try_ends_the_job() -> None:
    third = e.AttemptStarted(3, "w")
    again = e.AttemptFailed(2, "io", True, NOW_US)
    running = given(submitted, started, to_retry, started_again, again, third)
    running.when(fail, attempt_failed(3)).then(
        e.AttemptFailed(3, "io", True, None, "why", {"at": 1})
    )


def test_a_release_does_not_count_as_a_try() -> None:
    """Three attempts, but the first was given back: there is a try left."""
    again = e.AttemptFailed(2, "io", True, NOW_US)
    third = e.AttemptStarted(3, "w")
    running = given(submitted, started, released, started_again, again, third)
    running.when(fail, attempt_failed(3)).then(attempt_failed(3))


def test_a_retry_by_hand_gives_all_tries_back() -> None:
    once = e.JobSubmitted(JobSpec("csv", max_attempts=1))
    given(once, started).when(fail, attempt_failed(1)).then(
        e.AttemptFailed(1, "io", True, None, "why", {"at": 1})
    )
    twice = e.JobSubmitted(JobSpec("csv", max_attempts=2))
    running = given(twice, started, failed, e.JobRetried(), started_again)
    running.when(fail, attempt_failed(2)).then(attempt_failed(2))


def test_an_error_that_may_not_be_retried_ends_the_job_at_once() -> None:
    given(submitted, started).when(fail, attempt_failed(1, retryable=False)).then(
        e.AttemptFailed(1, "io", False, None, "why", {"at": 1})
    )


def test_a_job_asked_to_stop_that_would_be_retried_is_cancelled() -> None:
    stopping = given(submitted, started, asked_to_stop)
    stopping.when(fail, attempt_failed(1)).then(e.JobCancelled(1))
    stopping.when(release, 1, "shutdown").then(e.JobCancelled(1))


def test_a_job_asked_to_stop_may_still_complete_or_fail_for_good() -> None:
    stopping = given(submitted, started, asked_to_stop)
    stopping.when(complete, 1, 5).then(e.JobCompleted(1, 5))
    stopping.when(fail, failed).then(failed)


# --- cancelling, retrying, hiding


def test_a_queued_job_is_cancelled_at_once_and_a_running_one_is_asked() -> None:
    given(submitted).when(cancel, "enough").then(e.JobCancelled(None, "enough"))
    given(submitted, started).when(cancel, "enough").then(e.CancelRequested("enough"))


def test_a_retry_tells_why() -> None:
    given(submitted, started, failed).when(retry, "the disk was full").then(
        e.JobRetried("the disk was full")
    )


@pytest.mark.parametrize(
    "events",
    [
        *STATUSES.values(),
        (submitted, started, failed, hidden),
        (submitted, e.JobCancelled(), hidden),
    ],
)
def test_a_job_says_whether_a_retry_would_change_it(events: tuple[e.Event, ...]) -> None:
    job = given(*events).job
    try:
        changes = retry(job) is not None
    except Rejected:
        changes = False
    assert (job is not None and job.can_retry) == changes


def test_a_retried_job_is_no_longer_asked_to_stop() -> None:
    running = given(submitted, started, asked_to_stop, cancelled, e.JobRetried(), started_again)
    running.when(fail, attempt_failed(2)).then(attempt_failed(2))


def test_hiding_says_why() -> None:
    given(submitted, started, completed).when(expire, "deleted").then(e.JobExpired("deleted"))


# --- what events add up to


def test_nothing_adds_up_to_no_job() -> None:
    assert fold([]) is None


def test_a_submitted_job_is_due_at_once_or_at_its_time() -> None:
    job = given(submitted).job
    assert job is not None
    assert (job.status, job.due_us, job.attempt, job.tries) == (Status.QUEUED, 1_000_000, 0, 0)
    job = given(scheduled).job
    assert job is not None
    assert job.due_us == LATER_US


def test_a_job_remembers_what_happened_last() -> None:
    job = fold(
        as_recorded(submitted, started, to_retry, started_again, e.JobCompleted(2, "r", ["i"]))
    )
    assert job is not None
    assert (job.version, job.position, job.updated_us) == (5, 5, 5_000_000)
    assert (job.status, job.attempt, job.tries) == (Status.COMPLETED, 2, 2)
    assert (job.started_us, job.finished_us) == (4_000_000, 5_000_000)
    assert (job.result, job.issues, job.error, job.worker) == ("r", ["i"], None, None)


def test_a_job_that_waits_to_be_retried_shows_its_error() -> None:
    job = fold(as_recorded(submitted, started, e.AttemptFailed(1, "io", True, LATER_US, "why")))
    assert job is not None
    error = {"code": "io", "class": "handler", "message": "why", "retryable": True}
    assert job.error == error
    assert (job.status, job.due_us, job.finished_us) == (Status.QUEUED, LATER_US, None)


def test_an_artifact_of_the_same_name_replaces_the_one_before() -> None:
    spec = JobSpec("csv", artifacts=(Artifact("in", "aa", 1), Artifact("out", "bb", 2)))
    stored = e.ArtifactStored(1, "in", "cc", 3, "text/csv")
    job = fold(as_recorded(e.JobSubmitted(spec), started, stored))
    assert job is not None
    assert job.artifacts == (Artifact("out", "bb", 2), Artifact("in", "cc", 3, "text/csv"))


@drawn(histories(jobs_max=1))
def test_a_job_ends_when_and_only_when_it_is_finished(history: list[Recorded]) -> None:
    job: Job | None = None
    for each in history:
        job = evolve(job, each)
        assert job.finished == (job.finished_us is not None)
        assert (job.worker is not None) == (job.status == Status.RUNNING)
        assert 0 <= job.tries <= job.attempt
        assert job.version == each.version


@drawn(histories(jobs_max=1, steps_max=15), st.sampled_from(sorted(COMMANDS)), st.integers(0, 60))
def test_deciding_twice_is_harmless(history: list[Recorded], command: str, number: int) -> None:
    """The second time it is already so, or refused. A report alone is a new fact each time."""
    now_us = history[-1].at_us + NOW_US
    decide = COMMANDS[command]
    job = fold(history)
    try:
        event = decide(job, now_us, number)
    except Rejected:
        return
    if event is None:
        return
    after = evolve(job, record(event, history[0].job_id, job, len(history) + 1, now_us))
    try:
        again = decide(after, now_us, number)
    except Rejected:
        return
    assert again is None or isinstance(event, Report)


@drawn(histories(jobs_max=1))
def test_a_job_ends_once_unless_it_is_retried_by_hand(history: list[Recorded]) -> None:
    ends = 0
    for each in history:
        match each.event:
            case e.JobCompleted() | e.JobCancelled() | e.AttemptFailed(retry_at_us=None):
                ends += 1
            case e.JobRetried():  # a queued one too: its steps are to be repeated
                ends = 0
        assert ends <= 1


# --- steps, late reports, leases

fetched = e.StepCompleted(1, "fetch", 0, {"rows": 3})
parsed = e.StepCompleted(1, "parse", 1)
saved = e.StepCompleted(1, "save", 2)
done_so_far = (submitted, started, fetched, parsed, saved, failed)


def steps_after(*events: e.Event) -> list[str]:
    job = fold(as_recorded(*events))
    assert job is not None
    return [each.name for each in job.steps]


def test_completed_steps_outlive_their_attempt() -> None:
    assert steps_after(*done_so_far, e.JobRetried()) == ["fetch", "parse", "save"]


def test_a_step_done_again_keeps_its_place() -> None:
    again = e.StepCompleted(2, "fetch", 0)
    steps = steps_after(*done_so_far, e.JobRetried(), started_again, again)
    assert steps == ["fetch", "parse", "save"]


def test_steps_side_by_side_are_in_the_order_they_were_asked_for() -> None:
    assert steps_after(submitted, started, saved, fetched, parsed) == ["fetch", "parse", "save"]


def test_a_step_that_is_new_in_the_code_takes_its_place_among_those_of_earlier_attempts() -> None:
    new = [e.StepCompleted(2, "check", 1), e.StepCompleted(2, "clean", 2)]
    steps = steps_after(*done_so_far, e.JobRetried(), started_again, *new)
    assert steps == ["fetch", "check", "clean", "parse", "save"]


def test_a_renamed_step_takes_the_place_of_the_old_one() -> None:
    renamed = e.StepCompleted(2, "read", 1, None, "parse")
    steps = steps_after(*done_so_far, e.JobRetried(), started_again, renamed)
    assert steps == ["fetch", "read", "save"]


def test_a_job_has_so_many_steps_and_no_more() -> None:
    steps = [e.StepCompleted(1, f"step {number}", number) for number in range(STEPS_MAX)]
    given(submitted, started, *steps[1:]).when(report, steps[0]).then(steps[0])
    given(submitted, started, *steps).when(report, fetched).refused(TooManySteps)
    given(submitted, started, *steps).when(report, steps[0]).then(steps[0])


def test_the_log_of_a_job_has_so_many_lines_and_one_that_says_so() -> None:
    line = e.LogWritten(1, "info", "again")
    given(submitted, started, line).when(report, line, lines_max=2).then(line)
    message = "the log of this job has 2 lines; what comes after them is dropped"
    last = e.LogWritten(1, "warning", message)
    given(submitted, started, line, line).when(report, line, lines_max=2).then(last)
    given(submitted, started, line, line, last).when(report, line, lines_max=2).then_nothing()


def test_a_queued_job_can_be_told_to_repeat_steps() -> None:
    waiting = (submitted, started, fetched, parsed, to_retry)
    given(*waiting).when(retry).then_nothing()
    given(*waiting).when(retry, from_step="parse").then(e.JobRetried(None, "parse"))
    given(*waiting).when(retry, from_step="print").refused(UnknownStep)
    given(*waiting).when(retry, restart=True).then(e.JobRetried(restart=True))
    given(submitted, started, to_retry).when(retry, restart=True).then_nothing()


def test_a_retry_from_a_step_forgets_it_and_those_after_it() -> None:
    given(*done_so_far).when(retry, from_step="parse").then(e.JobRetried(None, "parse"))
    assert steps_after(*done_so_far, e.JobRetried(None, "parse")) == ["fetch"]


def test_a_retry_from_the_start_forgets_all_steps() -> None:
    given(*done_so_far).when(retry, restart=True).then(e.JobRetried(restart=True))
    assert steps_after(*done_so_far, e.JobRetried(restart=True)) == []


def test_a_retry_from_a_step_that_was_never_completed_is_refused() -> None:
    given(*done_so_far).when(retry, from_step="print").refused(UnknownStep)


def test_a_late_report_is_put_on_record_once() -> None:
    lost = (submitted, started, to_retry, started_again)
    late = e.LateReportRefused(1, "complete")
    given(*lost).when(refuse, 1, "complete").then(late)
    given(*lost, late).when(refuse, 1, "complete").then_nothing()
    given(*lost, late).when(refuse, 1, "fail").then(e.LateReportRefused(1, "fail"))


def test_an_attempt_that_never_was_is_not_late() -> None:
    given(submitted, started).when(refuse, 7, "complete").then_nothing()


def test_there_is_an_end_to_the_record_of_late_reports() -> None:
    lates = [e.LateReportRefused(1, f"report {number}") for number in range(20)]
    given(submitted, started, failed, *lates).when(refuse, 1, "one more").then_nothing()


def test_a_lease_is_held_as_long_as_the_attempt() -> None:
    leased = e.AttemptStarted(1, "worker-1", 30.0)
    held = fold(as_recorded(submitted, leased))
    ended = fold(as_recorded(submitted, leased, to_retry))
    assert held is not None
    assert ended is not None
    assert (held.lease_s, ended.lease_s) == (30.0, None)


def test_an_attempt_that_is_handed_over_is_held_by_whoever_took_it() -> None:
    job = fold(as_recorded(submitted, started, handed_over))
    assert job is not None
    assert (job.worker, job.silence_s) == ("service analysis.example", 900.0)
    ended = fold(as_recorded(submitted, started, handed_over, to_retry))
    assert ended is not None
    assert (ended.worker, ended.silence_s) == (None, None)
    given(submitted, started, handed_over).when(hand_over, handed_over).then_nothing()
    given(submitted, started, to_retry, started_again).when(hand_over, handed_over).refused(
        StaleAttempt
    )


def test_what_is_about_the_service_adds_up_to_no_job() -> None:
    assert fold(as_recorded(e.Paused("queue", "reports"), e.Resumed("queue", "reports"))) is None


def test_whoever_comes_to_the_same_job_and_event_gets_the_same_and_nobody_else_does() -> None:
    first, second = as_recorded(e.JobSubmitted(JobSpec("work")), e.AttemptStarted(1, "one"))
    job = evolve(None, first)
    assert evolve(None, first) is job
    started = evolve(job, second)
    assert evolve(job, second) is started
    other = evolve(None, replace(first, event=e.JobSubmitted(JobSpec("other")), transition=None))
    assert evolve(other, second).spec.type == "other"


def test_a_job_holds_what_is_not_as_in_the_beginning_and_nothing_else() -> None:
    new, started, released = as_recorded(
        e.JobSubmitted(JobSpec("work")),
        e.AttemptStarted(1, "one", 5.0),
        e.AttemptReleased(1, "stopped"),
    )
    job = evolve(evolve(evolve(None, new), started), released)
    assert job.worker is None
    assert job.lease_s is None
    assert {"worker", "lease_s", "silence_s", "result", "steps"}.isdisjoint(vars(job))
