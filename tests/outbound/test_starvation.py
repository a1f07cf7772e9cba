"""A receiver or a service that does not respond delays no other one."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import pytest
from aiohttp import web

from eventjobs.domain.limits import RECEIVER, RECEIVER_CONCURRENCY
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import external, handler
from eventjobs.log.sqlite import SQLiteLog
from eventjobs.outbound.webhooks.sender import DELIVERIES_MAX, TIMEOUT_S, receiver_key
from tests.conftest import Connect, Serve
from tests.support.clock import FakeClock
from tests.support.external_service import LOOPBACK, external_service, http_server
from tests.support.waiting import job_when, time_passing
from tests.support.webhook_receiver import Receiver, deliveries, receiving, subscribe


@handler("work")
async def work(context: Context, payload: Any) -> Any:
    return payload


@pytest.fixture
async def healthy() -> AsyncIterator[Receiver]:
    async with receiving() as receivers:
        yield receivers


def hole(stack: ExitStack) -> str:
    """The URL of a receiver whose connections are receivers, and that never answers."""
    listening = stack.enter_context(socket.socket())
    listening.bind(("127.0.0.1", 0))
    listening.listen(100)
    return f"http://127.0.0.1:{listening.getsockname()[1]}/"


async def test_silent_receivers_keep_no_other_from_hearing(
    client: Connect, healthy: Receiver
) -> None:
    api = await client(work, outbound_allow=LOOPBACK)
    with ExitStack() as stack:
        silent = [
            await subscribe(api, Receiver(url=hole(stack)), events=["JobSubmitted", "JobCompleted"])
            for _ in range(6)
        ]
        ids = [(await api.submit("work"))["job_id"] for _ in range(20)]
        for job_id in ids:
            await api.service.wait(job_id)
        await subscribe(api, healthy)
        async with asyncio.timeout(5):
            await api.submit("work")
            await healthy.has(1)
        assert api.service.webhook_sender.runner.running < DELIVERIES_MAX
        for each in silent:
            running = [job for job in await deliveries(api, each) if job["status"] == "running"]
            assert len(running) <= RECEIVER_CONCURRENCY
        # One that is removed has nothing more under way or to come.
        await api("DELETE", f"/v1/webhooks/{silent[0]['webhook_id']}")


async def test_deliveries_to_a_removed_webhook_end(client: Connect, clock: FakeClock) -> None:
    api = await client(work, clock=clock, outbound_allow=LOOPBACK)
    with ExitStack() as stack:
        webhook = await subscribe(api, Receiver(url=hole(stack)))
        for _ in range(10):
            await api.service.wait((await api.submit("work"))["job_id"])
        await time_passing(clock, api.service.log.wait(40))
        await api("DELETE", f"/v1/webhooks/{webhook['webhook_id']}")
        waiting = await deliveries(api, webhook)
        assert len(waiting) == 10
        for each in waiting:
            ended = await time_passing(clock, api.service.wait(each["job_id"]), TIMEOUT_S)
            assert ended.error is not None
            assert ended.error["code"] == "webhook_removed"


async def test_a_receiver_whose_answer_never_ends_is_let_go_in_time(
    client: Connect, clock: FakeClock
) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        await asyncio.Event().wait()
        return response

    api = await client(work, clock=clock, outbound_allow=LOOPBACK)
    async with http_server(drip) as port:
        webhook = await subscribe(api, Receiver(url=f"http://127.0.0.1:{port}/"))
        await api.service.wait((await api.submit("work"))["job_id"])
        head = api.service.log.head  # an event during a look ends the wait after it
        while not (sent := await deliveries(api, webhook)):
            head = await api.service.log.wait(head)
        failed = job_when(api.service, sent[0]["job_id"], lambda job: job.error is not None)
        job = await time_passing(clock, failed, 1)
        assert job.error is not None
        assert job.error["code"] == "outbound_timeout"


async def test_a_name_that_is_never_resolved_holds_up_itself_alone(
    client: Connect, healthy: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*given: Any, **more: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr("eventjobs.outbound.resolver.SystemResolver.resolve", never)
    api = await client(work, outbound_allow=f"{LOOPBACK}, lost.test")
    for _ in range(20):
        await subscribe(api, Receiver(url="http://lost.test/"))
    await subscribe(api, healthy)
    async with asyncio.timeout(5):
        await api.submit("work")
        await healthy.has(1)


async def test_a_new_webhook_does_not_wait_for_all_that_an_older_one_did_not_want(
    client: Connect, healthy: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(work, outbound_allow=LOOPBACK)
    await subscribe(api, healthy, types=["rare"])
    for _ in range(20):
        await api.service.wait((await api.submit("work"))["job_id"])
    seen = asyncio.Event()
    read, head = SQLiteLog.read, api.service.log.head
    begun = []

    async def note(self: SQLiteLog, after: int, *limit: int) -> Any:
        if limit == (256,):
            begun.append(after)
            seen.set()
        return await read(self, after, *limit)

    await api.submit("work")
    monkeypatch.setattr(SQLiteLog, "read", note)
    await subscribe(api, healthy)
    await seen.wait()
    assert min(begun) >= head - 1


async def test_no_job_of_a_client_takes_a_place_of_a_receiver(client: Connect) -> None:
    api = await client(work)
    for key in (receiver_key("http://127.0.0.1:80/"), f"{RECEIVER}x"):
        reply = await api("POST", "/v1/jobs", {"type": "work", "concurrency_key": key})
        assert (reply.status, reply.code) == (422, "invalid_input")


@pytest.mark.parametrize("url", ["", "http://[", "x", None, "http://a" + "b" * 300 + ".test/"])
def test_whatever_a_url_is_it_has_a_receiver_or_none(url: str | None) -> None:
    key = receiver_key(url)
    assert key is None or key.startswith(RECEIVER)


async def test_a_service_that_does_not_answer_keeps_no_other_jobs_waiting(serve: Serve) -> None:
    async with external_service(None) as silent, external_service((200, {"ok": 1})) as healthy:
        service = await serve(
            external("lost", dispatch_url=f"{silent.url}/", max_attempts=1),
            external("found", dispatch_url=f"{healthy.url}/", max_attempts=1),
            work,
            concurrency=2,
            outbound_allow=LOOPBACK,
            public_url="http://127.0.0.1:1",
            grace_s=0,
            drain_s=0,
        )
        for _ in range(5):
            await service.submit("lost")
        for _ in range(2):
            await silent.next()
        async with asyncio.timeout(10):
            for type in ("found", "work"):
                job = await service.submit(type, 1)
                assert (await service.wait(job.job_id)).status == "completed"
        assert service.runners[1].running == 2
