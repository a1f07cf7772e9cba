"""Deliveries of webhooks are submitted in batches."""

import asyncio
from typing import Any

import pytest

from eventjobs import Context, handler
from eventjobs.domain.events import DELIVERY, JobSubmitted, WebhookAdded
from eventjobs.domain.ids import new_id
from eventjobs.domain.job import Job
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import CorruptLog, LogUnavailable
from eventjobs.outbound.webhooks.deliveries import BATCH
from tests.conftest import Connect, Serve
from tests.support.clock import FakeClock
from tests.support.log_lines import capture_logs
from tests.support.waiting import time_passing
from tests.support.webhook_receiver import receiving, subscribe

URL = "http://127.0.0.1:1/"
LOCAL = "127.0.0.0/8"


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


async def test_an_event_for_very_many_webhooks_is_made_into_pieces(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of events for a thousand webhooks was a quarter of a million tasks at a time."""
    service = await serve(echo, outbound_allow=LOCAL, concurrency=0)
    monkeypatch.setattr(service.outbound, "post", None)  # nothing is sent
    at_once = most = 0
    submit = service.jobs.submit

    async def submit_and_count(*args: Any, **more: Any) -> Any:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            return await submit(*args, **more)
        finally:
            at_once -= 1

    count = BATCH + 44
    wanted = WebhookAdded(url=URL, events=("JobCancelled",))
    added = [service.log.append(new_id(n), 0, wanted, actor="me") for n in range(count)]
    await asyncio.gather(*added)
    service.webhooks.added.set()
    monkeypatch.setattr(service.jobs, "submit", submit_and_count)
    job = (await submit(JobSpec("echo"), actor="me")).job
    await service.jobs.cancel(job.job_id, actor="me")
    deliveries: set[int] = set()
    position = 0
    async with asyncio.timeout(60):
        while len(deliveries) < count:
            await service.log.wait(position)
            for each in await service.log.read(position, 1000):
                position = each.position
                if isinstance(each.event, JobSubmitted) and each.event.spec.type == DELIVERY:
                    deliveries.add(each.position)
    assert most <= BATCH


@pytest.mark.parametrize(
    ("error", "times", "delivered"),
    [
        (LogUnavailable("for a moment"), 1, ["first", "second"]),
        (CorruptLog("for ever"), 99, ["second"]),
        (KeyError("a fault of ours"), 99, ["second"]),
    ],
)
async def test_a_job_that_cannot_be_read_holds_up_no_other_delivery(
    client: Connect,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    times: int,
    delivered: list[str],
) -> None:
    """An event is left out only when it cannot be read at all."""
    api = await client(echo, clock=clock, outbound_allow=LOCAL)
    jobs = api.service.jobs
    load, first, failures = jobs.load_even_parked, new_id(clock.now_us()), 0

    async def load_or_fail(job_id: str) -> Job | None:
        nonlocal failures
        if job_id == first and failures < times:
            failures += 1
            raise error
        return await load(job_id)

    monkeypatch.setattr(jobs, "load_even_parked", load_or_fail)
    async with receiving() as receiver:
        await subscribe(api, receiver, events=["JobSubmitted"])
        with capture_logs() as lines:
            await api.service.submit("echo", "first", job_id=first)
            await api.service.submit("echo", "second")
            messages = await time_passing(clock, receiver.has(len(delivered)))
    assert [each["data"]["event"]["payload"] for each in messages] == delivered
    left_out = [each["exc_info"] for each in lines if each["event"] == "event not delivered"]
    assert left_out[:1] == ([] if "first" in delivered else [error])
