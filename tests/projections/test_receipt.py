"""The receipt: each attempt on a line, and proof of what ran at the same time."""

from typing import Any

from eventjobs.domain.events import (
    AttemptFailed,
    AttemptStarted,
    Event,
    JobCompleted,
    JobSubmitted,
    LateReportRefused,
)
from eventjobs.domain.spec import JobSpec
from eventjobs.projections.receipt import describe_receipt
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.decisions import as_recorded
from tests.support.remote_worker import FAR, WORKER, claim, report, submit_and_claim, until_lost

submitted = JobSubmitted(JobSpec("far", max_attempts=3))
first, second = AttemptStarted(1, "worker-1", 30.0), AttemptStarted(2, "worker-2", 30.0)
lost = AttemptFailed(1, "worker_lost", True, 0)
late = LateReportRefused(1, "complete")


def overlaps(*events: Event) -> list[list[int]]:
    return [each["overlaps"] for each in describe_receipt(as_recorded(*events))["attempts"]]


def test_a_late_report_before_the_next_attempt_overlaps_nothing() -> None:
    assert overlaps(submitted, first, lost, late, second, JobCompleted(2)) == [[], []]


def test_a_late_report_during_the_next_attempt_proves_an_overlap() -> None:
    assert overlaps(submitted, first, lost, second, late, JobCompleted(2)) == [[2], [1]]
    assert overlaps(submitted, first, lost, second, late) == [[2], [1]]


def test_a_late_report_after_the_end_overlaps_all_that_ran_since() -> None:
    done = (submitted, first, lost, second, JobCompleted(2), late)
    assert overlaps(*done) == [[2], [1]]
    again = (AttemptFailed(2, "io", True, 0), AttemptStarted(3, "worker-3"), JobCompleted(3), late)
    assert overlaps(submitted, first, lost, second, *again) == [[2, 3], [1], [1]]


def test_a_late_report_says_how_long_after_the_end_it_came() -> None:
    receipt = describe_receipt(as_recorded(submitted, first, lost, second, late))
    [refused] = receipt["attempts"][0]["late"]
    assert refused["after_s"] == 2.0
    assert receipt["text"][1] == (
        "  REFUSED complete of attempt 1 by tester at 1970-01-01T00:00:05.000000Z,"
        " 2.000 s after its end"
    )


def test_a_job_that_never_ran_has_an_empty_receipt() -> None:
    assert describe_receipt(as_recorded(submitted)) == {
        "attempts": [],
        "overlaps": False,
        "text": [],
    }


async def test_a_worker_that_comes_back_too_late_is_on_the_receipt(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(FAR, clock=clock, lease_s=30)
    job_id = await submit_and_claim(api)
    await clock.advance(31)
    await until_lost(api.service, job_id)
    assert len(await claim(api, "worker-2")) == 1
    await clock.advance(5)
    assert (await report(api, job_id, "complete", result=1)).code == "stale_attempt"
    assert (await report(api, job_id, "complete", 2, "worker-2", result=2)).status == 200
    receipt: dict[str, Any] = (await api.get(f"/v1/jobs/{job_id}/receipt")).json
    one, two = receipt["attempts"]
    assert (one["worker"], one["lease_s"], one["outcome"]) == (WORKER, 30, "failed")
    assert (one["code"], one["overlaps"]) == ("worker_lost", [2])
    assert 30 <= one["duration_s"] <= 31
    [refused] = one["late"]
    assert (refused["report"], refused["actor"]) == ("complete", WORKER)
    assert refused["after_s"] >= 5
    assert (two["worker"], two["outcome"], two["overlaps"]) == ("worker-2", "completed", [1])
    assert receipt["overlaps"]
    line, late_line, _ = receipt["text"]
    assert line.endswith("failed: worker_lost  OVERLAPS attempt 2")
    assert late_line.startswith(f"  REFUSED complete of attempt 1 by {WORKER} at ")
    assert (await api.get(f"/v1/jobs/{job_id}")).json["links"]["receipt"].endswith("/receipt")
