"""The immediate response of an external service: a result, an error, or a 202."""

from typing import Any

import pytest

from eventjobs.domain.events import (
    AttemptFailed,
    AttemptHandedOver,
)
from tests.conftest import Connect
from tests.support.clock import SECOND
from tests.support.external_jobs import analyse, connect, ended_job, job_id_of, submit_and_accept
from tests.support.external_service import external_service
from tests.support.waiting import job_when, kinds, recorded_of


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
        api = await connect(client, analyse(at))
        job = await ended_job(api, (await api.submit("analyse"))["job_id"])
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
        api = await connect(client, analyse(at))
        job = await ended_job(api, (await api.submit("analyse"))["job_id"])
        assert (job["error"]["code"], job["error"]["retryable"]) == (code, retryable)


async def test_a_service_can_say_when_to_try_again(client: Connect) -> None:
    async with external_service((429, {}, {"Retry-After": "7200"})) as at:
        api = await connect(client, analyse(at, max_attempts=2))
        job_id = (await api.submit("analyse"))["job_id"]
        job = await job_when(api.service, job_id, lambda job: job.error is not None)
        assert job.status == "queued"
        assert job.due_us - job.updated_us > 7000 * SECOND


async def test_what_went_wrong_is_told_in_the_services_own_words(client: Connect) -> None:
    async with external_service((500, {**OWN, "details": {"row": 7}})) as at:
        api = await connect(client, analyse(at))
        job = await ended_job(api, (await api.submit("analyse"))["job_id"])
        assert job["error"]["message"] == "no rows"
        [failed] = await recorded_of(api.service, job["job_id"], AttemptFailed)
        assert isinstance(failed.event, AttemptFailed)
        assert failed.event.details == {"row": 7}


@pytest.mark.parametrize("body", [b"taken", b"[]", {"cancel_url": 7}, {"cancel_url": "ftp://x/"}])
async def test_a_strange_202_is_still_one(client: Connect, body: Any) -> None:
    async with external_service((202, body)) as at:
        api = await connect(client, analyse(at))
        sent = await submit_and_accept(api, at)
        [handed] = await recorded_of(api.service, job_id_of(sent), AttemptHandedOver)
        assert handed.event == AttemptHandedOver(1, "service 127.0.0.1", 900.0, None)
        assert (await sent.report({"status": "completed"}))[0] == 200


async def test_a_cancel_url_that_leads_inside_is_not_kept(client: Connect) -> None:
    """What the service says must not make requests into the network behind this one."""
    taken = (202, {"cancel_url": "http://169.254.169.254/latest/meta-data"})
    async with external_service(taken) as at:
        api = await connect(client, analyse(at))
        sent = await submit_and_accept(api, at)
        [handed] = await recorded_of(api.service, job_id_of(sent), AttemptHandedOver)
        assert isinstance(handed.event, AttemptHandedOver)
        assert handed.event.cancel_url is None
