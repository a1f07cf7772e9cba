"""Jobs of an external service: the request, limits, cancels and restarts."""

import asyncio
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from eventjobs.domain.events import (
    AttemptFailed,
    AttemptHandedOver,
    JobCompleted,
    LateReportRefused,
)
from eventjobs.errors import InvalidInput
from eventjobs.handlers.declare import external
from eventjobs.outbound.client import OutboundResponse
from eventjobs.service import Service
from eventjobs.settings import Settings
from tests.conftest import Connect, Serve
from tests.support.clock import SECOND, FakeClock
from tests.support.external_jobs import (
    ACCEPTED,
    analyse,
    connect,
    ended_job,
    job_id_of,
    submit_and_accept,
)
from tests.support.external_service import LOOPBACK, ExternalService, external_service
from tests.support.log_lines import capture_logs
from tests.support.waiting import job_when, kinds, recorded_of, time_passing

# --- the request


async def test_the_job_is_posted_signed_and_with_a_token(client: Connect) -> None:
    async with external_service((200, {"rows": 3})) as at:
        api = await connect(client, analyse(at))
        stored = (await api("POST", "/v1/artifacts", data=b"a,b\n1,2\n", headers=BYTES)).json
        job = await api.submit("analyse", {"top": 5}, artifacts={"two words.csv": stored["sha256"]})
        sent = await at.next()
        assert (await ended_job(api, job["job_id"]))["result"] == {"rows": 3}
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
        api = await connect(client, analyse(at, max_attempts=2, retry_delay_s=0.0))
        job = await api.submit("analyse")
        first, second = await at.next(), await at.next()
        assert first.body["callback"]["token"] != second.body["callback"]["token"]
        assert second.headers["Idempotency-Key"] == f"{job['job_id']}:2"
        assert (await ended_job(api, job["job_id"]))["result"] == "done"


async def test_a_payload_that_does_not_fit_the_model_is_never_sent(client: Connect) -> None:
    class Table(BaseModel):
        rows: int

    async with external_service((200, None)) as at:
        api = await connect(client, analyse(at, model=Table))
        reply = await api("POST", "/v1/jobs", {"type": "analyse", "payload": {"rows": "many"}})
        assert (reply.status, reply.fields) == (422, ["payload.rows"])
        await ended_job(api, (await api.submit("analyse", {"rows": 3}))["job_id"])
        assert (await at.next()).body["payload"] == {"rows": 3}
        assert at.requests.empty()


async def test_a_path_is_one_of_the_python_service(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with external_service((200, None)) as at:
        monkeypatch.setenv("PYTHON_SERVICE_URL", f"{at.url}/api/")
        api = await connect(client, external("analyse", dispatch_url="/analyse"))
        await ended_job(api, (await api.submit("analyse"))["job_id"])
        assert (await at.next()).path == "/api/analyse"


async def test_it_calls_back_at_the_public_url(client: Connect) -> None:
    async with external_service((200, None)) as at:
        api = await connect(client, analyse(at), public_url="https://jobs.example/base/")
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


# --- services that do not respond


async def test_a_service_that_is_not_there_is_tried_again(client: Connect) -> None:
    async with external_service((200, None)) as at:
        gone = analyse(at, max_attempts=2, retry_delay_s=0.0)
    api = await connect(client, gone)
    job = await ended_job(api, (await api.submit("analyse"))["job_id"])
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


# --- limits and cancels


async def silent(
    client: Connect, clock: FakeClock, at: ExternalService, **limits: Any
) -> tuple[str, float]:
    """The code with which an attempt ends that is never reported on, and after how long."""
    again = {"max_attempts": 2, "retry_delay_s": 1e6}
    api = await connect(client, analyse(at, **again, **limits), clock, retry_delay_max_s=1e6)
    job_id = job_id_of(await submit_and_accept(api, at))
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
    async with external_service(ACCEPTED) as at:
        ended_with, after = await silent(client, clock, at, **limits)
        assert ended_with == code
        assert after_s <= after < after_s + 240.0  # a loaded machine is slow to write it down


async def test_a_job_with_a_long_limit_may_be_silent_as_long(
    client: Connect, clock: FakeClock
) -> None:
    async with external_service(ACCEPTED) as at:
        _, after = await silent(client, clock, at, timeout_s=3600.0)
        assert after >= 3600.0


async def test_progress_keeps_a_job_but_not_beyond_its_timeout(
    client: Connect, clock: FakeClock
) -> None:
    async with external_service(ACCEPTED) as at:
        api = await connect(client, analyse(at, stall_timeout_s=60.0, timeout_s=300.0), clock)
        sent = await submit_and_accept(api, at)
        for done in range(5):
            await clock.advance(50.0)
            assert (await sent.report({"progress": {"done": done}}))[0] == 200
            await api.service.views.wait_for_position(api.service.log.head)
        job = await time_passing(clock, api.service.wait(job_id_of(sent)), 5.0)
        assert job.error is not None
        assert job.error["code"] == "timeout"


@pytest.mark.parametrize("given", ["/runs/7/cancel", "runs/7/cancel", None])
async def test_a_cancelled_job_ends_at_once_and_its_service_is_told(
    client: Connect, given: str | None
) -> None:
    async with external_service((202, {"id": 7, "cancel_url": given}), (204, b"")) as at:
        api = await connect(client, analyse(at))
        sent = await submit_and_accept(api, at)
        await api("POST", f"/v1/jobs/{job_id_of(sent)}/cancel", {"reason": "changed my mind"})
        assert (await ended_job(api, job_id_of(sent)))["status"] == "cancelled"
        assert await sent.report({"status": "completed"}) == (409, "stale_attempt")
        assert await recorded_of(api.service, job_id_of(sent), LateReportRefused)
        if given is None:
            return
        withdrawal = await at.next()
        assert withdrawal.path == "/runs/7/cancel"
        assert withdrawal.body == {
            "job_id": job_id_of(sent),
            "type": "analyse",
            "attempt": 1,
            "reason": "cancelled",
        }
        secret = api.service.master_key.signing_secret("dispatch", "analyse")
        assert Webhook(secret).verify(withdrawal.raw, withdrawal.headers)


async def test_time_that_jumps_ends_nothing(client: Connect, clock: FakeClock) -> None:
    async with external_service(ACCEPTED) as at:
        api = await connect(client, analyse(at, stall_timeout_s=60.0, timeout_s=120.0), clock)
        sent = await submit_and_accept(api, at)
        for hours in (24, -48):
            clock.jump_wall(hours * 3600.0)
            await clock.advance(20.0)
        assert (await sent.report({"status": "completed"}))[1]["status"] == "completed"


async def test_while_this_service_is_stopped_nobody_is_silent(
    client: Connect, clock: FakeClock
) -> None:
    """As with SIGSTOP, or a laptop that was closed: no report could arrive."""
    async with external_service(ACCEPTED) as at:
        api = await connect(client, analyse(at, stall_timeout_s=60.0), clock)
        sent = await submit_and_accept(api, at)
        await clock.advance(10.0)
        clock.freeze(3_600.0)
        await clock.advance(40.0)
        assert (await sent.report({"status": "completed"}))[1]["status"] == "completed"


async def test_views_that_are_rebuilt_lose_nothing_that_is_pending(
    client: Connect, clock: FakeClock
) -> None:
    async with external_service(ACCEPTED) as at:
        api = await connect(client, analyse(at, stall_timeout_s=60.0), clock)
        job_id = job_id_of(await submit_and_accept(api, at))
        await api.service.views.rebuild()
        assert len(api.service.leases.held_by("service 127.0.0.1")) == 1
        job = await time_passing(clock, api.service.wait(job_id), 5.0)
        assert (job.attempt, job.error and job.error["code"]) == (1, "stalled")


async def test_a_service_is_told_again_when_it_did_not_hear(
    client: Connect, clock: FakeClock
) -> None:
    async with external_service((202, {"cancel_url": "/stop"}), (503, None), (200, None)) as at:
        api = await connect(client, analyse(at, stall_timeout_s=60.0), clock)
        await submit_and_accept(api, at)
        withdrawals = [await time_passing(clock, at.next()) for _ in range(2)]
        assert [each.path for each in withdrawals] == ["/stop", "/stop"]
        assert [each.body["reason"] for each in withdrawals] == ["stalled", "stalled"]


@pytest.mark.parametrize("status", [500, 503])
async def test_a_stop_request_is_repeated_three_times_with_pauses_between(
    client: Connect, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    async with external_service((202, {"cancel_url": "/stop"})) as at:
        api = await connect(client, analyse(at), clock)
        sent = await submit_and_accept(api, at)
        requests: list[tuple[str, float]] = []

        async def post(url: str, *given: Any, **more: Any) -> OutboundResponse:
            requests.append((url, clock.monotonic_s()))
            return OutboundResponse(status, b"")

        monkeypatch.setattr(api.service.outbound, "post", post)
        with capture_logs() as lines:
            await api("POST", f"/v1/jobs/{job_id_of(sent)}/cancel")
            await ended_job(api, job_id_of(sent))
            await clock.advance(60.0)
        assert [url for url, _ in requests] == [f"{at.url}/stop"] * 3
        first_s, second_s = (later - before for (_, before), (_, later) in pairwise(requests))
        assert 0.75 <= first_s <= 1.25
        assert 1.5 <= second_s <= 2.5
        [failed] = [each for each in lines if each["event"] == "stop request failed"]
        assert (failed["job_id"], failed["error"]) == (job_id_of(sent), str(status))


async def test_a_job_that_is_cancelled_while_it_is_sent_ends_at_once(client: Connect) -> None:
    async with external_service(None) as at:
        api = await connect(client, analyse(at))
        job = await api.submit("analyse")
        sent = await at.next()
        await api("POST", f"/v1/jobs/{job['job_id']}/cancel")
        assert (await ended_job(api, job["job_id"]))["status"] == "cancelled"
        assert await sent.report({"status": "completed"}) == (409, "stale_attempt")


# --- starts and stops


async def test_what_was_handed_over_outlives_a_restart_with_all_its_time(
    client: Connect, clock: FakeClock
) -> None:
    async with external_service(ACCEPTED) as at:
        handler = analyse(at, stall_timeout_s=60.0)
        first = await connect(client, handler, clock, public_url="http://127.0.0.1:1")
        kept, left = await submit_and_accept(first, at), await submit_and_accept(first, at)
        await clock.advance(50.0)
        await time_passing(clock, first.service.close())
        second = await connect(client, handler, clock)
        assert len(second.service.leases.held_by("service 127.0.0.1")) == 2
        await clock.advance(50.0)
        for sent in (kept, left):  # by a proxy, in real life
            url = f"http://127.0.0.1:{second.listening.port}/v1/jobs/{job_id_of(sent)}/callback"
            sent.body["callback"]["url"] = url
        assert (await kept.report({"status": "completed", "result": 1}))[0] == 200
        job = await time_passing(clock, second.service.wait(job_id_of(left)), 5.0)
        assert (job.attempt, job.error and job.error["code"]) == (1, "stalled")
        assert "AttemptReleased" not in await kinds(second.service, job_id_of(left))


async def test_what_a_service_has_outlives_the_handler_that_gave_it_away(
    client: Connect, serve: Serve, clock: FakeClock
) -> None:
    async with external_service(ACCEPTED) as at:
        first = await connect(client, analyse(at, stall_timeout_s=60.0), clock)
        job_id = job_id_of(await submit_and_accept(first, at))
        await time_passing(clock, first.service.close())
        second = await serve(clock=clock)
        job = await time_passing(clock, second.wait(job_id), 5.0)
        assert (job.attempt, job.error and job.error["code"]) == (1, "stalled")


async def test_a_request_that_a_shutdown_cuts_off_does_not_count(
    client: Connect, clock: FakeClock
) -> None:
    async with external_service(None, (200, "done")) as at:
        first = await connect(client, analyse(at), clock)
        job = await first.submit("analyse")
        sent = await at.next()
        await time_passing(clock, first.service.close())
        second = await connect(client, analyse(at), clock)
        assert (await ended_job(second, job["job_id"]))["result"] == "done"
        events = await kinds(second.service, job["job_id"])
        assert events.split()[1:4] == ["AttemptStarted", "AttemptReleased", "AttemptStarted"]
        assert (await at.next()).body["attempt"] == sent.body["attempt"] + 1


async def test_without_http_a_result_at_once_is_possible_and_calling_back_is_not(
    serve: Serve, clock: FakeClock
) -> None:
    async with external_service((200, 1), ACCEPTED) as at:
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
    async with external_service(ACCEPTED) as at:
        api = await connect(client, analyse(at), concurrency=4)
        sent = [await submit_and_accept(api, at) for _ in range(20)]
        assert len(api.service.leases.held_by("service 127.0.0.1")) == 20
        assert api.service.runner.running <= 4
        await asyncio.gather(*(each.report({"status": "completed"}) for each in sent))
        for each in sent:
            await api.service.wait(job_id_of(each))


async def test_no_secret_is_in_the_log_of_events(client: Connect) -> None:
    async with external_service(ACCEPTED) as at:
        api = await connect(client, analyse(at))
        sent = await submit_and_accept(api, at)
        await sent.report({"status": "completed"})
        events = await api.service.log.read_job(job_id_of(sent))
        recorded = b"".join(each.json() for each in events)
        token = sent.body["callback"]["token"]
        assert token.rpartition("_")[2].encode() not in recorded
        assert isinstance(events[-1].event, JobCompleted)


async def test_the_secret_of_a_service_is_told_by_a_command(client: Connect) -> None:
    async with external_service((200, None)) as at:
        api = await connect(client, analyse(at))
        await api.submit("analyse")
        sent = await at.next()
        data = str(api.service.settings.data)
        status, output = await asyncio.to_thread(eventjobs, "secret", "analyse", "--data", data)
        assert (status, Webhook(output).verify(sent.raw, sent.headers)["attempt"]) == (0, 1)


def test_where_no_service_was_there_is_no_secret(tmp_path: Path) -> None:
    status, output = eventjobs("secret", "analyse", "--data", str(tmp_path))
    assert (status, output.startswith("error: no_key")) == (1, True)
    assert not list(tmp_path.iterdir())
    (tmp_path / "secret.key").write_bytes(b"no key")
    status, output = eventjobs("secret", "analyse", "--data", str(tmp_path))
    assert (status, output.startswith("error: secret_key_unusable")) == (1, True)


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
