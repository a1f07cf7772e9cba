"""Callbacks of external services: reports that count, repeats, and reports that are refused."""

import asyncio
import hashlib
from typing import Any

import orjson
import pytest

from eventjobs.domain.events import (
    JobCompleted,
    LateReportRefused,
    ProgressReported,
)
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.external_jobs import (
    ACCEPTED,
    analyse,
    connect,
    ended_job,
    job_id_of,
    submit_and_accept,
)
from tests.support.external_service import external_service
from tests.support.waiting import job_when, kinds, recorded_of, time_passing


async def test_a_job_that_was_taken_is_reported_on_and_completed(client: Connect) -> None:
    async with external_service(ACCEPTED) as at:
        api = await connect(client, analyse(at))
        sent = await submit_and_accept(api, at)
        job_id = job_id_of(sent)
        progress = {"done": 1, "total": 4, "stage": "reading", "message": "page 1", "data": [1]}
        status, body = await sent.report({"progress": progress, "attempt": 1})
        assert status == 200
        assert body == {
            "job_id": job_id,
            "attempt": 1,
            "status": "running",
            "repeated": False,
            "cancel_requested": False,
        }
        await api.service.views.wait_for_position(api.service.log.head)
        job = (await api.get(f"/v1/jobs/{job_id}")).json
        assert (job["progress"], job["stage"], job["message"]) == (25, "reading", "page 1")
        status, body = await sent.report({"status": "completed", "result": {"rows": 3}})
        assert (status, body["status"], body["repeated"]) == (200, "completed", False)
        assert (await ended_job(api, job_id))["result"] == {"rows": 3}
        assert await kinds(api.service, job_id) == (
            "JobSubmitted AttemptStarted AttemptHandedOver ProgressReported JobCompleted"
        )
        [reported] = await recorded_of(api.service, job_id, ProgressReported)
        assert reported.actor == "service 127.0.0.1"
        history = (await api.get(f"/v1/jobs/{job_id}/history")).json
        assert history["attempts"][0]["worker"] == "service 127.0.0.1"
        assert len(api.service.leases.held_by("service 127.0.0.1")) == 0


async def test_a_job_that_was_taken_can_fail_and_be_tried_again(client: Connect) -> None:
    async with external_service(ACCEPTED) as at:
        api = await connect(client, analyse(at, max_attempts=2, retry_delay_s=0.0))
        first = await submit_and_accept(api, at)
        error = {"code": "NARRATIVE_GENERATION_ERROR", "message": "the AI sleeps", "details": [1]}
        status, body = await first.report({"status": "failed", "error": error})
        assert (status, body["status"]) == (200, "queued")
        second = await at.next()
        assert second.body["attempt"] == 2
        await second.report({"status": "failed", "error": {**error, "retryable": False}})
        job = await ended_job(api, job_id_of(first))
        assert job["error"] == {
            "code": "NARRATIVE_GENERATION_ERROR",
            "class": "handler",
            "message": "the AI sleeps",
            "retryable": False,
        }


async def test_a_report_may_come_before_the_answer(client: Connect) -> None:
    """The service completes the job before it answers 202."""
    async with external_service(None) as at:
        api = await connect(client, analyse(at))
        job = await api.submit("analyse")
        sent = await at.next()
        assert (await sent.report({"progress": {"done": 1}}))[0] == 200
        assert (await sent.report({"status": "completed", "result": 1}))[0] == 200
        assert (await ended_job(api, job["job_id"]))["result"] == 1
        [completed] = await recorded_of(api.service, job["job_id"], JobCompleted)
        assert completed.actor == "service 127.0.0.1"


async def test_a_large_result_becomes_an_artifact_and_can_be_repeated(client: Connect) -> None:
    async with external_service(ACCEPTED) as at:
        api = await connect(client, analyse(at), result_bytes_max=1024)
        sent = await submit_and_accept(api, at)
        report = {"status": "completed", "result": ["x" * 2000]}
        assert (await sent.report(report))[1]["repeated"] is False
        assert (await sent.report(report))[1]["repeated"] is True
        other = {"status": "completed", "result": ["y" * 2000]}
        assert await sent.report(other) == (409, "stale_attempt")
        job = await ended_job(api, job_id_of(sent))
        [artifact] = job["artifacts"]
        assert artifact["sha256"] == hashlib.sha256(orjson.dumps(report["result"])).hexdigest()


@pytest.mark.parametrize("wrong", ["none", "made up", "strange", "of another attempt", "with more"])
async def test_a_wrong_token_is_refused_and_tells_nothing(client: Connect, wrong: str) -> None:
    async with external_service(ACCEPTED) as at:
        api = await connect(client, analyse(at))
        sent = await submit_and_accept(api, at)
        right: str = sent.body["callback"]["token"]
        token = {
            "none": "",
            "made up": "ej_cb_1_" + "0" * 64,
            "strange": "ej_cb_1_\udcff",
            "of another attempt": right.replace("ej_cb_1_", "ej_cb_2_"),
            "with more": right + "0",
        }[wrong]
        nobody = "00000000-0000-4000-8000-000000000001"
        answers = [
            await api(
                "POST",
                f"/v1/jobs/{job_id}/callback",
                {"status": "completed"},
                headers={"Authorization": f"Bearer {token}"} if token else {},
            )
            for job_id in (job_id_of(sent), nobody)
        ]
        assert [each.status for each in answers] == [401, 401]
        assert [each.code for each in answers] == ["bad_token", "bad_token"]
        assert [each.json["detail"] for each in answers] == [answers[0].json["detail"]] * 2
        assert answers[0].headers["WWW-Authenticate"] == "Bearer"
        assert "JobCompleted" not in await kinds(api.service, job_id_of(sent))


async def test_the_token_of_one_job_is_good_for_no_other(client: Connect) -> None:
    async with external_service(ACCEPTED) as at:
        api = await connect(client, analyse(at))
        one, other = await submit_and_accept(api, at), await submit_and_accept(api, at)
        token = other.body["callback"]["token"]
        assert await one.report({"status": "completed"}, token) == (401, "bad_token")


async def test_the_same_report_again_changes_nothing(client: Connect) -> None:
    """A service that has lost the answer repeats its report."""
    async with external_service(ACCEPTED) as at:
        api = await connect(client, analyse(at))
        sent = await submit_and_accept(api, at)
        report = {"status": "completed", "result": {"rows": 3}}
        assert (await sent.report(report))[1]["repeated"] is False
        head = api.service.log.head
        status, body = await sent.report(report)
        assert (status, body["status"], body["repeated"]) == (200, "completed", True)
        assert api.service.log.head == head


async def test_the_same_failure_again_changes_nothing_even_when_the_next_attempt_runs(
    client: Connect,
) -> None:
    async with external_service(ACCEPTED) as at:
        api = await connect(client, analyse(at, max_attempts=2, retry_delay_s=0.0))
        first = await submit_and_accept(api, at)
        report = {"status": "failed", "error": {"code": "BUSY"}}
        await first.report(report)
        second = await at.next()
        await job_when(api.service, job_id_of(first), lambda job: job.silence_s is not None)
        head = api.service.log.head
        status, body = await first.report(report)
        assert (status, body["repeated"], body["attempt"]) == (200, True, 1)
        assert api.service.log.head == head
        assert (await second.report({"status": "completed"}))[1]["status"] == "completed"


async def test_of_reports_that_come_together_one_counts(client: Connect) -> None:
    """The first report counts; its repetitions are accepted, and others are refused."""
    async with external_service(ACCEPTED) as at:
        api = await connect(client, analyse(at))
        sent = await submit_and_accept(api, at)
        reports = [{"status": "completed", "result": number % 2} for number in range(12)]
        answers = await asyncio.gather(*map(sent.report, reports))
        job = await ended_job(api, job_id_of(sent))
        for number, (status, body) in enumerate(answers):
            same = number % 2 == job["result"]
            assert (status, body == "stale_attempt") == ((200, False) if same else (409, True))
        taken = [body for status, body in answers if status == 200]
        assert [body["repeated"] for body in taken].count(False) == 1
        assert len(await recorded_of(api.service, job_id_of(sent), JobCompleted)) == 1


async def test_another_end_than_the_first_is_refused_and_put_on_record(client: Connect) -> None:
    async with external_service(ACCEPTED) as at:
        api = await connect(client, analyse(at))
        sent = await submit_and_accept(api, at)
        await sent.report({"status": "completed", "result": 1})
        for late in (
            {"status": "completed", "result": 2},
            {"status": "failed", "error": {"code": "OOPS"}},
            {"progress": {"done": 1}},
            {"progress": {"done": 2}},
        ):
            assert await sent.report(late) == (409, "stale_attempt")
        refused = await recorded_of(api.service, job_id_of(sent), LateReportRefused)
        assert [each.event for each in refused] == [
            LateReportRefused(1, "complete"),
            LateReportRefused(1, "fail"),
            LateReportRefused(1, "progress"),
        ]
        assert (await ended_job(api, job_id_of(sent)))["result"] == 1


async def test_an_attempt_that_no_longer_holds_the_job_is_refused(
    client: Connect, clock: FakeClock
) -> None:
    """The attempt stalled and was replaced by another one; then its result arrives."""
    async with external_service(ACCEPTED) as at:
        handler = analyse(at, max_attempts=2, stall_timeout_s=60.0, retry_delay_s=0.0)
        api = await connect(client, handler, clock)
        first = await submit_and_accept(api, at)
        second = await time_passing(clock, at.next())
        assert await first.report({"status": "completed", "result": 1}) == (409, "stale_attempt")
        assert (await second.report({"status": "completed", "result": 2}))[0] == 200
        assert (await ended_job(api, job_id_of(first)))["result"] == 2
        [refused] = await recorded_of(api.service, job_id_of(first), LateReportRefused)
        assert refused.event == LateReportRefused(1, "complete")


@pytest.mark.parametrize(
    ("report", "field"),
    [
        ({}, ""),
        ({"status": "completed", "progress": {"done": 1}}, ""),
        ({"status": "failed"}, ""),
        ({"status": "completed", "error": {"code": "X"}}, ""),
        ({"progress": {}, "result": 1}, ""),
        ({"status": "running"}, "status"),
        ({"status": "failed", "error": {"code": "two words"}}, "error.code"),
        ({"progress": {"done": "1"}}, "progress.done"),
        ({"status": "completed", "more": 1}, "more"),
        ({"status": "completed", "attempt": 2}, "attempt"),
    ],
)
async def test_a_report_that_cannot_be_read_is_refused_and_the_job_goes_on(
    client: Connect, report: dict[str, Any], field: str
) -> None:
    async with external_service(ACCEPTED) as at:
        api = await connect(client, analyse(at))
        sent = await submit_and_accept(api, at)
        headers = {"Authorization": f"Bearer {sent.body['callback']['token']}"}
        path = f"/v1/jobs/{job_id_of(sent)}/callback"
        reply = await api("POST", path, report, headers=headers)
        assert (reply.status, reply.code, reply.fields) == (422, "invalid_input", [field])
        assert (await sent.report({"status": "completed"}))[0] == 200
