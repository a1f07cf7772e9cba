"""Jobs that an external HTTP service does: what it is sent, what it may answer and report."""

import asyncio
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import BaseModel
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from eventjobs.clock import Clock
from eventjobs.domain.events import (
    AttemptFailed,
    AttemptHandedOver,
    JobCompleted,
    LateReportRefused,
    ProgressReported,
)
from eventjobs.errors import InvalidInput
from eventjobs.handlers.declare import external
from eventjobs.handlers.registry import Handler
from eventjobs.service import Service
from eventjobs.settings import Settings
from tests.conftest import Connect, Serve
from tests.support.clock import SECOND, FakeClock
from tests.support.external_service import LOOPBACK, Dispatched, ExternalService, external_service
from tests.support.http_client import Client
from tests.support.waiting import job_when, kinds, recorded_of, time_passing

TAKEN: tuple[int, Any] = (202, {})
STALE = "stale_attempt"


def analyse(at: ExternalService, **more: Any) -> Handler:
    more = {"max_attempts": 1, **more}
    return external("analyse", dispatch_url=f"{at.url}/analyse", **more)


async def opened(
    client: Connect, handler: Handler, clock: Clock | None = None, **settings: Any
) -> Client:
    return await client(handler, clock=clock, outbound_allow=LOOPBACK, **settings)


async def ended(api: Client, job_id: str) -> Any:
    """The job as it is answered, once it has ended."""
    job = await api.service.wait(job_id)
    await api.service.views.wait_for_position(job.position)
    return (await api.get(f"/v1/jobs/{job_id}")).json


async def handed_over(api: Client, at: ExternalService, **spec: Any) -> Dispatched:
    """What the service was sent, once it has taken the job."""
    job = await api.submit("analyse", **spec)
    dispatched = await at.next()
    await job_when(api.service, job["job_id"], lambda job: job.silence_s is not None)
    await api.service.views.wait_for_position(api.service.log.head)
    return dispatched


def named(dispatched: Dispatched) -> str:
    job_id: str = dispatched.body["job_id"]
    return job_id


# --- what it is sent


async def test_the_job_is_posted_signed_and_with_a_token(client: Connect) -> None:
    async with external_service((200, {"rows": 3})) as at:
        api = await opened(client, analyse(at))
        stored = (await api("POST", "/v1/artifacts", data=b"a,b\n1,2\n", headers=BYTES)).json
        job = await api.submit("analyse", {"top": 5}, artifacts={"two words.csv": stored["sha256"]})
        sent = await at.next()
        assert (await ended(api, job["job_id"]))["result"] == {"rows": 3}
        address = f"http://127.0.0.1:{api.listening.port}/v1/jobs/{job['job_id']}"
        assert sent.path == "/analyse"
        assert sent.body["callback"].pop("token").startswith("ej_cb_1_")
        assert sent.body == {
            "job_id": job["job_id"],
            "type": "analyse",
            "attempt": 1,
            "payload": {"top": 5},
            "artifacts": [
                {
                    "name": "two words.csv",
                    "sha256": stored["sha256"],
                    "size": 8,
                    "media_type": "application/octet-stream",
                    "url": f"{address}/artifacts/two%20words.csv",
                }
            ],
            "callback": {"url": f"{address}/callback"},
        }
        fetched = await api.get(sent.body["artifacts"][0]["url"])
        assert fetched.body == b"a,b\n1,2\n"
        assert sent.headers["Content-Type"] == "application/json"
        assert sent.headers["Idempotency-Key"] == f"{job['job_id']}:1"
        secret = api.service.master_key.signing_secret("dispatch", "analyse")
        assert Webhook(secret).verify(sent.raw, sent.headers)["attempt"] == 1
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(sent.raw.replace(b"5", b"6"), sent.headers)


BYTES = {"Content-Type": "application/octet-stream"}


async def test_each_attempt_has_its_own_token_and_key(client: Connect) -> None:
    async with external_service((500, None), (200, "done")) as at:
        api = await opened(client, analyse(at, max_attempts=2, retry_delay_s=0.0))
        job = await api.submit("analyse")
        first, second = await at.next(), await at.next()
        assert first.body["callback"]["token"] != second.body["callback"]["token"]
        assert second.headers["Idempotency-Key"] == f"{job['job_id']}:2"
        assert (await ended(api, job["job_id"]))["result"] == "done"


async def test_a_payload_that_does_not_fit_the_model_is_never_sent(client: Connect) -> None:
    class Table(BaseModel):
        rows: int

    async with external_service((200, None)) as at:
        api = await opened(client, analyse(at, model=Table))
        reply = await api("POST", "/v1/jobs", {"type": "analyse", "payload": {"rows": "many"}})
        assert (reply.status, reply.fields) == (422, ["payload.rows"])
        await ended(api, (await api.submit("analyse", {"rows": 3}))["job_id"])
        assert (await at.next()).body["payload"] == {"rows": 3}
        assert at.requests.empty()


async def test_a_path_is_one_of_the_python_service(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with external_service((200, None)) as at:
        monkeypatch.setenv("PYTHON_SERVICE_URL", f"{at.url}/api/")
        api = await opened(client, external("analyse", dispatch_url="/analyse"))
        await ended(api, (await api.submit("analyse"))["job_id"])
        assert (await at.next()).path == "/api/analyse"


async def test_it_calls_back_at_the_public_url(client: Connect) -> None:
    async with external_service((200, None)) as at:
        api = await opened(client, analyse(at), public_url="https://jobs.example/base/")
        job = await api.submit("analyse")
        url = (await at.next()).body["callback"]["url"]
        assert url == f"https://jobs.example/base/v1/jobs/{job['job_id']}/callback"


@pytest.mark.parametrize("url", ["", "analyse", "ftp://service/", "http://"])
def test_what_is_no_dispatch_url_is_told_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="dispatch_url"):
        external("analyse", dispatch_url=url)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://127.0.0.1:8000/", "EVENTJOBS_OUTBOUND_ALLOW"),
        ("http://10.0.0.1/", "EVENTJOBS_OUTBOUND_ALLOW"),
        ("http://user:word@service.example/", "password"),
        ("/analyse", "EVENTJOBS_PYTHON_SERVICE_URL"),
    ],
)
def test_a_service_that_cannot_be_asked_is_told_before_the_start(url: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=f"analyse is sent to .*{problem}"):
        Service("data", [external("analyse", dispatch_url=url)])


async def test_a_name_that_leads_inside_is_refused_and_not_tried_again(serve: Serve) -> None:
    handler = external("analyse", dispatch_url="http://localhost:8000/")
    service = await serve(handler, public_url="https://jobs.example")
    job = await service.wait((await service.submit("analyse")).job_id)
    assert (job.attempt, job.error and job.error["code"]) == (1, "outbound_refused")


# --- what it may answer at once


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ((200, {"rows": 3}), {"rows": 3}),
        ((201, [1, None]), [1, None]),
        ((200, b""), None),
        ((204, b""), None),
    ],
)
async def test_a_result_at_once_completes_the_job(
    client: Connect, answer: tuple[int, Any], result: Any
) -> None:
    async with external_service(answer) as at:
        api = await opened(client, analyse(at))
        job = await ended(api, (await api.submit("analyse"))["job_id"])
        assert (job["status"], job["result"]) == ("completed", result)
        assert await kinds(api.service, job["job_id"]) == "JobSubmitted AttemptStarted JobCompleted"


OWN = {"code": "BAD_TABLE", "message": "no rows"}


@pytest.mark.parametrize(
    ("answer", "code", "retryable"),
    [
        ((500, "oops"), "service_error", True),
        ((503, b"<html>"), "service_error", True),
        ((429, None), "service_error", True),
        ((408, None), "service_error", True),
        ((400, None), "service_refused", False),
        ((404, {"detail": "Not Found"}), "service_refused", False),
        ((302, None), "service_error", False),
        ((200, b"<html>"), "service_error", False),
        ((422, OWN), "BAD_TABLE", False),
        ((500, OWN), "BAD_TABLE", True),
        ((422, {**OWN, "retryable": True}), "BAD_TABLE", True),
        ((500, {**OWN, "retryable": False}), "BAD_TABLE", False),
        ((400, {"code": "no\nline"}), "service_refused", False),
    ],
)
async def test_an_answer_that_is_no_result_fails_the_attempt(
    client: Connect, answer: tuple[int, Any], code: str, retryable: bool
) -> None:
    async with external_service(answer) as at:
        api = await opened(client, analyse(at))
        job = await ended(api, (await api.submit("analyse"))["job_id"])
        assert (job["error"]["code"], job["error"]["retryable"]) == (code, retryable)


async def test_a_service_can_say_when_to_try_again(client: Connect) -> None:
    async with external_service((429, {}, {"Retry-After": "7200"})) as at:
        api = await opened(client, analyse(at, max_attempts=2))
        job_id = (await api.submit("analyse"))["job_id"]
        job = await job_when(api.service, job_id, lambda job: job.error is not None)
        assert job.status == "queued"
        assert job.due_us - job.updated_us > 7000 * SECOND


async def test_what_went_wrong_is_told_in_the_services_own_words(client: Connect) -> None:
    async with external_service((500, {**OWN, "details": {"row": 7}})) as at:
        api = await opened(client, analyse(at))
        job = await ended(api, (await api.submit("analyse"))["job_id"])
        assert job["error"]["message"] == "no rows"
        [failed] = await recorded_of(api.service, job["job_id"], AttemptFailed)
        assert isinstance(failed.event, AttemptFailed)
        assert failed.event.details == {"row": 7}


async def test_a_service_that_is_not_there_is_tried_again(client: Connect) -> None:
    async with external_service((200, None)) as at:
        gone = analyse(at, max_attempts=2, retry_delay_s=0.0)
    api = await opened(client, gone)
    job = await ended(api, (await api.submit("analyse"))["job_id"])
    assert (job["attempt"], job["error"]["code"]) == (2, "service_unreachable")
    assert job["error"]["retryable"]


async def test_a_service_that_is_slow_is_tried_again(serve: Serve, clock: FakeClock) -> None:
    async with external_service(None, (200, "done")) as at:
        handler = analyse(at, answer_timeout_s=20.0, max_attempts=2)
        service = await serve(handler, clock=clock, outbound_allow=LOOPBACK, public_url=at.url)
        job_id = (await service.submit("analyse")).job_id
        job = await time_passing(clock, service.wait(job_id))
        assert (job.attempt, job.result) == (2, "done")
        [failed] = await recorded_of(service, job_id, AttemptFailed)
        [began, *_] = await service.log.read_job(job_id)
        assert isinstance(failed.event, AttemptFailed)
        assert failed.event.code == "service_timeout"
        assert failed.at_us - began.at_us >= 20 * SECOND


# --- what it may report


async def test_a_job_that_was_taken_is_reported_on_and_completed(client: Connect) -> None:
    async with external_service(TAKEN) as at:
        api = await opened(client, analyse(at))
        sent = await handed_over(api, at)
        job_id = named(sent)
        progress = {"done": 1, "total": 4, "stage": "reading", "message": "page 1", "data": [1]}
        status, told = await sent.report({"progress": progress, "attempt": 1})
        assert status == 200
        assert told == {
            "job_id": job_id,
            "attempt": 1,
            "status": "running",
            "repeated": False,
            "cancel_requested": False,
        }
        await api.service.views.wait_for_position(api.service.log.head)
        job = (await api.get(f"/v1/jobs/{job_id}")).json
        assert (job["progress"], job["stage"], job["message"]) == (25, "reading", "page 1")
        status, told = await sent.report({"status": "completed", "result": {"rows": 3}})
        assert (status, told["status"], told["repeated"]) == (200, "completed", False)
        assert (await ended(api, job_id))["result"] == {"rows": 3}
        assert await kinds(api.service, job_id) == (
            "JobSubmitted AttemptStarted AttemptHandedOver ProgressReported JobCompleted"
        )
        [reported] = await recorded_of(api.service, job_id, ProgressReported)
        assert reported.actor == "service 127.0.0.1"
        history = (await api.get(f"/v1/jobs/{job_id}/history")).json
        assert history["attempts"][0]["worker"] == "service 127.0.0.1"
        assert len(api.service.leases.held_by("service 127.0.0.1")) == 0


async def test_a_job_that_was_taken_can_fail_and_be_tried_again(client: Connect) -> None:
    async with external_service(TAKEN) as at:
        api = await opened(client, analyse(at, max_attempts=2, retry_delay_s=0.0))
        first = await handed_over(api, at)
        error = {"code": "NARRATIVE_GENERATION_ERROR", "message": "the AI sleeps", "details": [1]}
        status, told = await first.report({"status": "failed", "error": error})
        assert (status, told["status"]) == (200, "queued")
        second = await at.next()
        assert second.body["attempt"] == 2
        await second.report({"status": "failed", "error": {**error, "retryable": False}})
        job = await ended(api, named(first))
        assert job["error"] == {
            "code": "NARRATIVE_GENERATION_ERROR",
            "class": "handler",
            "message": "the AI sleeps",
            "retryable": False,
        }


async def test_a_report_may_come_before_the_answer(client: Connect) -> None:
    """A service that is faster with its work than with its 202."""
    async with external_service(None) as at:
        api = await opened(client, analyse(at))
        job = await api.submit("analyse")
        sent = await at.next()
        assert (await sent.report({"progress": {"done": 1}}))[0] == 200
        assert (await sent.report({"status": "completed", "result": 1}))[0] == 200
        assert (await ended(api, job["job_id"]))["result"] == 1
        [completed] = await recorded_of(api.service, job["job_id"], JobCompleted)
        assert completed.actor == "service 127.0.0.1"


async def test_a_large_result_becomes_an_artifact_and_can_be_repeated(client: Connect) -> None:
    async with external_service(TAKEN) as at:
        api = await opened(client, analyse(at), result_bytes_max=1024)
        sent = await handed_over(api, at)
        report = {"status": "completed", "result": ["x" * 2000]}
        assert (await sent.report(report))[1]["repeated"] is False
        assert (await sent.report(report))[1]["repeated"] is True
        other = {"status": "completed", "result": ["y" * 2000]}
        assert await sent.report(other) == (409, STALE)
        job = await ended(api, named(sent))
        [artifact] = job["artifacts"]
        assert artifact["sha256"] == hashlib.sha256(orjson.dumps(report["result"])).hexdigest()


@pytest.mark.parametrize("wrong", ["none", "made up", "strange", "of another attempt", "with more"])
async def test_a_wrong_token_is_refused_and_tells_nothing(client: Connect, wrong: str) -> None:
    async with external_service(TAKEN) as at:
        api = await opened(client, analyse(at))
        sent = await handed_over(api, at)
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
            for job_id in (named(sent), nobody)
        ]
        assert [each.status for each in answers] == [401, 401]
        assert [each.code for each in answers] == ["bad_token", "bad_token"]
        assert [each.json["detail"] for each in answers] == [answers[0].json["detail"]] * 2
        assert answers[0].headers["WWW-Authenticate"] == "Bearer"
        assert "JobCompleted" not in await kinds(api.service, named(sent))


async def test_the_token_of_one_job_is_good_for_no_other(client: Connect) -> None:
    async with external_service(TAKEN) as at:
        api = await opened(client, analyse(at))
        one, other = await handed_over(api, at), await handed_over(api, at)
        token = other.body["callback"]["token"]
        assert await one.report({"status": "completed"}, token) == (401, "bad_token")


async def test_the_same_report_again_changes_nothing(client: Connect) -> None:
    """As a service sends it that lost the answer."""
    async with external_service(TAKEN) as at:
        api = await opened(client, analyse(at))
        sent = await handed_over(api, at)
        report = {"status": "completed", "result": {"rows": 3}}
        assert (await sent.report(report))[1]["repeated"] is False
        head = api.service.log.head
        status, told = await sent.report(report)
        assert (status, told["status"], told["repeated"]) == (200, "completed", True)
        assert api.service.log.head == head


async def test_the_same_failure_again_changes_nothing_even_when_the_next_attempt_runs(
    client: Connect,
) -> None:
    async with external_service(TAKEN) as at:
        api = await opened(client, analyse(at, max_attempts=2, retry_delay_s=0.0))
        first = await handed_over(api, at)
        report = {"status": "failed", "error": {"code": "BUSY"}}
        await first.report(report)
        second = await at.next()
        await job_when(api.service, named(first), lambda job: job.silence_s is not None)
        head = api.service.log.head
        status, told = await first.report(report)
        assert (status, told["repeated"], told["attempt"]) == (200, True, 1)
        assert api.service.log.head == head
        assert (await second.report({"status": "completed"}))[1]["status"] == "completed"


async def test_of_reports_that_come_together_one_counts(client: Connect) -> None:
    """The same one is taken once, another one is refused."""
    async with external_service(TAKEN) as at:
        api = await opened(client, analyse(at))
        sent = await handed_over(api, at)
        reports = [{"status": "completed", "result": number % 2} for number in range(12)]
        answers = await asyncio.gather(*map(sent.report, reports))
        job = await ended(api, named(sent))
        for number, (status, told) in enumerate(answers):
            same = number % 2 == job["result"]
            assert (status, told == STALE) == ((200, False) if same else (409, True))
        taken = [told for status, told in answers if status == 200]
        assert [told["repeated"] for told in taken].count(False) == 1
        assert len(await recorded_of(api.service, named(sent), JobCompleted)) == 1


async def test_another_end_than_the_first_is_refused_and_put_on_record(client: Connect) -> None:
    async with external_service(TAKEN) as at:
        api = await opened(client, analyse(at))
        sent = await handed_over(api, at)
        await sent.report({"status": "completed", "result": 1})
        for late in (
            {"status": "completed", "result": 2},
            {"status": "failed", "error": {"code": "OOPS"}},
            {"progress": {"done": 1}},
            {"progress": {"done": 2}},
        ):
            assert await sent.report(late) == (409, STALE)
        refused = await recorded_of(api.service, named(sent), LateReportRefused)
        assert [each.event for each in refused] == [
            LateReportRefused(1, "complete"),
            LateReportRefused(1, "fail"),
            LateReportRefused(1, "progress"),
        ]
        assert (await ended(api, named(sent)))["result"] == 1


async def test_an_attempt_that_no_longer_holds_the_job_is_refused(
    client: Connect, clock: FakeClock
) -> None:
    """It was silent for too long, another one runs, and now the first one has a result."""
    async with external_service(TAKEN) as at:
        handler = analyse(at, max_attempts=2, stall_timeout_s=60.0, retry_delay_s=0.0)
        api = await opened(client, handler, clock)
        first = await handed_over(api, at)
        second = await time_passing(clock, at.next())
        assert await first.report({"status": "completed", "result": 1}) == (409, STALE)
        assert (await second.report({"status": "completed", "result": 2}))[0] == 200
        assert (await ended(api, named(first)))["result"] == 2
        [refused] = await recorded_of(api.service, named(first), LateReportRefused)
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
    async with external_service(TAKEN) as at:
        api = await opened(client, analyse(at))
        sent = await handed_over(api, at)
        headers = {"Authorization": f"Bearer {sent.body['callback']['token']}"}
        path = f"/v1/jobs/{named(sent)}/callback"
        reply = await api("POST", path, report, headers=headers)
        assert (reply.status, reply.code, reply.fields) == (422, "invalid_input", [field])
        assert (await sent.report({"status": "completed"}))[0] == 200


# --- limits, cancel


async def silent(
    client: Connect, clock: FakeClock, at: ExternalService, **limits: Any
) -> tuple[str, float]:
    """The code with which an attempt ends that is never reported on, and after how long."""
    again = {"max_attempts": 2, "retry_delay_s": 1e6}
    api = await opened(client, analyse(at, **again, **limits), clock, retry_delay_max_s=1e6)
    job_id = named(await handed_over(api, at))
    failed_once = job_when(api.service, job_id, lambda job: job.error is not None)
    await time_passing(clock, failed_once, 5.0)
    [handed] = await recorded_of(api.service, job_id, AttemptHandedOver)
    [failed] = await recorded_of(api.service, job_id, AttemptFailed)
    assert isinstance(failed.event, AttemptFailed)
    assert failed.event.retryable
    return failed.event.code, (failed.at_us - handed.at_us) / 1e6


@pytest.mark.parametrize(
    ("limits", "code", "after_s"),
    [
        ({}, "stalled", 900.0),
        ({"stall_timeout_s": 60.0}, "stalled", 60.0),
        ({"timeout_s": 60.0, "stall_timeout_s": 600.0}, "timeout", 60.0),
        ({"timeout_s": 600.0, "stall_timeout_s": 60.0}, "stalled", 60.0),
    ],
)
async def test_a_service_that_never_reports_ends_the_attempt(
    client: Connect, clock: FakeClock, limits: dict[str, float], code: str, after_s: float
) -> None:
    async with external_service(TAKEN) as at:
        ended_with, after = await silent(client, clock, at, **limits)
        assert ended_with == code
        assert after_s <= after < after_s + 240.0  # a loaded machine is slow to write it down


async def test_a_job_with_a_long_limit_may_be_silent_as_long(
    client: Connect, clock: FakeClock
) -> None:
    async with external_service(TAKEN) as at:
        _, after = await silent(client, clock, at, timeout_s=3600.0)
        assert after >= 3600.0


async def test_progress_keeps_a_job_but_not_beyond_its_timeout(
    client: Connect, clock: FakeClock
) -> None:
    async with external_service(TAKEN) as at:
        api = await opened(client, analyse(at, stall_timeout_s=60.0, timeout_s=300.0), clock)
        sent = await handed_over(api, at)
        for done in range(5):
            await clock.advance(50.0)
            assert (await sent.report({"progress": {"done": done}}))[0] == 200
            await api.service.views.wait_for_position(api.service.log.head)
        job = await time_passing(clock, api.service.wait(named(sent)), 5.0)
        assert job.error is not None
        assert job.error["code"] == "timeout"


@pytest.mark.parametrize("given", ["/runs/7/cancel", "runs/7/cancel", None])
async def test_a_cancelled_job_ends_at_once_and_its_service_is_told(
    client: Connect, given: str | None
) -> None:
    async with external_service((202, {"id": 7, "cancel_url": given}), (204, b"")) as at:
        api = await opened(client, analyse(at))
        sent = await handed_over(api, at)
        await api("POST", f"/v1/jobs/{named(sent)}/cancel", {"reason": "changed my mind"})
        assert (await ended(api, named(sent)))["status"] == "cancelled"
        assert await sent.report({"status": "completed"}) == (409, STALE)
        assert await recorded_of(api.service, named(sent), LateReportRefused)
        if given is None:
            return
        told = await at.next()
        assert told.path == "/runs/7/cancel"
        assert told.body == {
            "job_id": named(sent),
            "type": "analyse",
            "attempt": 1,
            "reason": "cancelled",
        }
        secret = api.service.master_key.signing_secret("dispatch", "analyse")
        assert Webhook(secret).verify(told.raw, told.headers)


async def test_time_that_jumps_ends_nothing(client: Connect, clock: FakeClock) -> None:
    async with external_service(TAKEN) as at:
        api = await opened(client, analyse(at, stall_timeout_s=60.0, timeout_s=120.0), clock)
        sent = await handed_over(api, at)
        for hours in (24, -48):
            clock.jump_wall(hours * 3600.0)
            await clock.advance(20.0)
        assert (await sent.report({"status": "completed"}))[1]["status"] == "completed"


async def test_while_this_service_is_stopped_nobody_is_silent(
    client: Connect, clock: FakeClock
) -> None:
    """As with SIGSTOP, or a laptop that was closed: nobody could report meanwhile."""
    async with external_service(TAKEN) as at:
        api = await opened(client, analyse(at, stall_timeout_s=60.0), clock)
        sent = await handed_over(api, at)
        await clock.advance(10.0)
        clock.freeze(3_600.0)
        await clock.advance(40.0)
        assert (await sent.report({"status": "completed"}))[1]["status"] == "completed"


async def test_views_that_are_rebuilt_lose_nothing_that_is_pending(
    client: Connect, clock: FakeClock
) -> None:
    async with external_service(TAKEN) as at:
        api = await opened(client, analyse(at, stall_timeout_s=60.0), clock)
        job_id = named(await handed_over(api, at))
        await api.service.views.rebuild()
        assert len(api.service.leases.held_by("service 127.0.0.1")) == 1
        job = await time_passing(clock, api.service.wait(job_id), 5.0)
        assert (job.attempt, job.error and job.error["code"]) == (1, "stalled")


async def test_a_service_is_told_again_when_it_did_not_hear(
    client: Connect, clock: FakeClock
) -> None:
    async with external_service((202, {"cancel_url": "/stop"}), (503, None), (200, None)) as at:
        api = await opened(client, analyse(at, stall_timeout_s=60.0), clock)
        await handed_over(api, at)
        told = [await time_passing(clock, at.next()) for _ in range(2)]
        assert [each.path for each in told] == ["/stop", "/stop"]
        assert [each.body["reason"] for each in told] == ["stalled", "stalled"]


@pytest.mark.parametrize("body", [b"taken", b"[]", {"cancel_url": 7}, {"cancel_url": "ftp://x/"}])
async def test_a_strange_202_is_still_one(client: Connect, body: Any) -> None:
    async with external_service((202, body)) as at:
        api = await opened(client, analyse(at))
        sent = await handed_over(api, at)
        [handed] = await recorded_of(api.service, named(sent), AttemptHandedOver)
        assert handed.event == AttemptHandedOver(1, "service 127.0.0.1", 900.0, None)
        assert (await sent.report({"status": "completed"}))[0] == 200


async def test_a_cancel_url_that_leads_inside_is_not_kept(client: Connect) -> None:
    """What the service says must not make requests into the network behind this one."""
    taken = (202, {"cancel_url": "http://169.254.169.254/latest/meta-data"})
    async with external_service(taken) as at:
        api = await opened(client, analyse(at))
        sent = await handed_over(api, at)
        [handed] = await recorded_of(api.service, named(sent), AttemptHandedOver)
        assert isinstance(handed.event, AttemptHandedOver)
        assert handed.event.cancel_url is None


async def test_a_job_that_is_cancelled_while_it_is_sent_ends_at_once(client: Connect) -> None:
    async with external_service(None) as at:
        api = await opened(client, analyse(at))
        job = await api.submit("analyse")
        sent = await at.next()
        await api("POST", f"/v1/jobs/{job['job_id']}/cancel")
        assert (await ended(api, job["job_id"]))["status"] == "cancelled"
        assert await sent.report({"status": "completed"}) == (409, STALE)


# --- start, stop


async def test_what_was_handed_over_outlives_a_restart_with_all_its_time(
    client: Connect, clock: FakeClock
) -> None:
    async with external_service(TAKEN) as at:
        handler = analyse(at, stall_timeout_s=60.0)
        first = await opened(client, handler, clock, public_url="http://127.0.0.1:1")
        kept, left = await handed_over(first, at), await handed_over(first, at)
        await clock.advance(50.0)
        await time_passing(clock, first.service.close())
        second = await opened(client, handler, clock)
        assert len(second.service.leases.held_by("service 127.0.0.1")) == 2
        await clock.advance(50.0)
        for sent in (kept, left):  # by a proxy, in real life
            url = f"http://127.0.0.1:{second.listening.port}/v1/jobs/{named(sent)}/callback"
            sent.body["callback"]["url"] = url
        assert (await kept.report({"status": "completed", "result": 1}))[0] == 200
        job = await time_passing(clock, second.service.wait(named(left)), 5.0)
        assert (job.attempt, job.error and job.error["code"]) == (1, "stalled")
        assert "AttemptReleased" not in await kinds(second.service, named(left))


async def test_what_a_service_has_outlives_the_handler_that_gave_it_away(
    client: Connect, serve: Serve, clock: FakeClock
) -> None:
    async with external_service(TAKEN) as at:
        first = await opened(client, analyse(at, stall_timeout_s=60.0), clock)
        job_id = named(await handed_over(first, at))
        await time_passing(clock, first.service.close())
        second = await serve(clock=clock)
        job = await time_passing(clock, second.wait(job_id), 5.0)
        assert (job.attempt, job.error and job.error["code"]) == (1, "stalled")


async def test_a_request_that_a_shutdown_cuts_off_does_not_count(
    client: Connect, clock: FakeClock
) -> None:
    async with external_service(None, (200, "done")) as at:
        first = await opened(client, analyse(at), clock)
        job = await first.submit("analyse")
        sent = await at.next()
        await time_passing(clock, first.service.close())
        second = await opened(client, analyse(at), clock)
        assert (await ended(second, job["job_id"]))["result"] == "done"
        events = await kinds(second.service, job["job_id"])
        assert events.split()[1:4] == ["AttemptStarted", "AttemptReleased", "AttemptStarted"]
        assert (await at.next()).body["attempt"] == sent.body["attempt"] + 1


async def test_without_http_a_result_at_once_is_possible_and_calling_back_is_not(
    serve: Serve, clock: FakeClock
) -> None:
    async with external_service((200, 1), TAKEN) as at:
        service = await serve(analyse(at, max_attempts=3), clock=clock, outbound_allow=LOOPBACK)
        first = await time_passing(clock, service.wait((await service.submit("analyse")).job_id))
        assert first.result == 1
        assert (await at.next()).body["callback"] is None
        second = await time_passing(clock, service.wait((await service.submit("analyse")).job_id))
        assert second.error is not None
        assert (second.attempt, second.error["code"]) == (1, "service_error")


async def test_what_a_service_works_on_takes_none_of_the_room_in_which_jobs_run_here(
    client: Connect,
) -> None:
    async with external_service(TAKEN) as at:
        api = await opened(client, analyse(at), concurrency=4)
        sent = [await handed_over(api, at) for _ in range(20)]
        assert len(api.service.leases.held_by("service 127.0.0.1")) == 20
        assert api.service.runner.running <= 4
        await asyncio.gather(*(each.report({"status": "completed"}) for each in sent))
        for each in sent:
            await api.service.wait(named(each))


async def test_no_secret_is_in_the_log_of_events(client: Connect) -> None:
    async with external_service(TAKEN) as at:
        api = await opened(client, analyse(at))
        sent = await handed_over(api, at)
        await sent.report({"status": "completed"})
        events = await api.service.log.read_job(named(sent))
        told = b"".join(each.json() for each in events)
        token = sent.body["callback"]["token"]
        assert token.rpartition("_")[2].encode() not in told
        assert isinstance(events[-1].event, JobCompleted)


async def test_the_secret_of_a_service_is_told_by_a_command(client: Connect) -> None:
    async with external_service((200, None)) as at:
        api = await opened(client, analyse(at))
        await api.submit("analyse")
        sent = await at.next()
        data = str(api.service.settings.data)
        status, told = await asyncio.to_thread(eventjobs, "secret", "analyse", "--data", data)
        assert (status, Webhook(told).verify(sent.raw, sent.headers)["attempt"]) == (0, 1)


def test_where_no_service_was_there_is_no_secret(tmp_path: Path) -> None:
    status, told = eventjobs("secret", "analyse", "--data", str(tmp_path))
    assert (status, told.startswith("error: no_key")) == (1, True)
    assert not list(tmp_path.iterdir())
    (tmp_path / "secret.key").write_bytes(b"no key")
    status, told = eventjobs("secret", "analyse", "--data", str(tmp_path))
    assert (status, told.startswith("error: secret_key_unusable")) == (1, True)


def eventjobs(*arguments: str) -> tuple[int, str]:
    """What the command exits with, and prints."""
    command = [sys.executable, "-m", "eventjobs", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.returncode, (ran.stdout or ran.stderr).strip()


def test_settings_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON_SERVICE_URL", "http://localhost:8000")
    assert Settings().python_service_url == "http://localhost:8000"
    monkeypatch.setenv("EVENTJOBS_PYTHON_SERVICE_URL", "http://analysis.internal")
    assert Settings().python_service_url == "http://analysis.internal"
