"""Limits of webhooks and pauses, and of the deliveries that are submitted at once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from eventjobs import Context, handler
from eventjobs.client import Client as Caller
from eventjobs.domain.events import DELIVERY, JobSubmitted, WebhookAdded
from eventjobs.domain.ids import new_id
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import InvalidInput, LimitReached
from eventjobs.outbound.webhooks.deliveries import BATCH
from tests.conftest import Connect, Serve

URL = "http://127.0.0.1:1/"
LOCAL = "127.0.0.0/8"


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


async def count_refusals(calls: list[Awaitable[Any]]) -> int:
    """The number of concurrent *calls* that reach the limit."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    errors = [each for each in outcomes if isinstance(each, BaseException)]
    assert all(isinstance(each, LimitReached) for each in errors), errors
    return len(errors)


async def test_there_are_no_more_webhooks_than_there_may_be(client: Connect) -> None:
    api = await client(echo, outbound_allow=LOCAL, webhooks_max=3)
    wanted = WebhookAdded(url=URL)
    webhooks = api.service.webhooks
    assert await count_refusals([webhooks.add(wanted, actor="me") for _ in range(10)]) == 7
    head = api.service.log.head
    reply = await api("POST", "/v1/webhooks", {"url": URL})
    assert (reply.status, reply.code) == (409, "limit_reached")
    assert "3 webhooks" in reply.json["detail"]
    assert api.service.log.head == head
    first = (await webhooks.listed())[0].webhook_id
    assert (await api("DELETE", f"/v1/webhooks/{first}")).status == 204
    assert (await api("POST", "/v1/webhooks", {"url": URL})).status == 201


async def test_no_more_is_paused_than_may_be(client: Connect) -> None:
    api = await client(echo, pauses_max=3)
    switches = api.service.pauses
    pauses = [switches.pause("queue", f"q{number}", actor="me") for number in range(3)]
    assert await count_refusals(list(pauses)) == 0
    await api.service.views.reached(api.service.log.head)
    for path in ("/v1/queues/more/pause", "/v1/types/echo/pause"):
        reply = await api("POST", path)
        assert (reply.status, reply.code) == (409, "limit_reached")
    with pytest.raises(LimitReached):
        await switches.pause("schedule", "s", actor="me")
    assert (await api("POST", "/v1/queues/q1/pause")).status == 200, "it is paused already"
    assert (await api("POST", "/v1/queues/q1/resume")).status == 200
    assert (await api("POST", "/v1/types/echo/pause")).status == 200


@pytest.mark.parametrize(
    "wanted",
    [
        WebhookAdded(url="http://127.0.0.1/" + "x" * 2000),
        WebhookAdded(url=None),
        WebhookAdded(url=URL, events=("JobCompleted",) * 51),
        WebhookAdded(url=URL, events=("Nothing",)),
        WebhookAdded(url=URL, types=("x",) * 101),
        WebhookAdded(url=URL, types=("x" * 201,)),
        WebhookAdded(url=URL, types=("",)),
        WebhookAdded(url=URL, owner="x" * 201),
    ],
)
async def test_a_webhook_from_python_is_checked_like_one_over_http(
    serve: Serve, wanted: WebhookAdded
) -> None:
    service = await serve(echo, outbound_allow=LOCAL)
    with pytest.raises(InvalidInput):
        await service.webhooks.add(wanted, actor="me")
    assert service.log.head == 0


async def test_a_pause_from_python_is_checked_like_one_over_http(serve: Serve) -> None:
    service = await serve(echo)
    with pytest.raises(InvalidInput):
        await service.pauses.pause("queue", "no\nname", actor="me")
    with pytest.raises(InvalidInput):
        await service.pauses.pause("queue", "q", "x" * 1001, actor="me")
    assert service.log.head == 0


# --- pages


async def test_lists_come_by_page(client: Connect) -> None:
    api = await client(echo, outbound_allow=LOCAL, page_max=4, concurrency=0)
    for number in range(9):
        await api.service.webhooks.add(WebhookAdded(url=URL), actor="me")
        await api.service.pauses.pause("queue", f"q{number}", actor="me")
    for name, key, count in (("webhooks", "webhook_id", 9), ("queues", "queue", 10)):
        whole: list[Any] = []
        address, pages = f"/v1/{name}", 0
        while True:
            reply = await api.get(address)
            whole += reply.json[name]
            pages += 1
            assert len(reply.json[name]) <= 4
            if reply.json["next"] is None:
                assert "Link" not in reply.headers
                break
            address = reply.headers["Link"].split(">")[0][1:]
            assert reply.headers["Link"].endswith('>; rel="next"')
        assert (pages, len(whole)) == (3, count)
        assert len({each[key] for each in whole}) == count
        async with Caller(api.listening.url) as caller:
            read: dict[str, Callable[[], Awaitable[list[Any]]]] = {
                "webhooks": caller.webhooks,
                "queues": caller.queues,
            }
            assert await read[name]() == whole


@pytest.mark.parametrize("name", ["webhooks", "queues", "types", "schedules", "breakers"])
async def test_what_is_no_page_is_refused(client: Connect, name: str) -> None:
    api = await client(echo)
    for query, status, code in (
        ("limit=0", 422, "invalid_input"),
        ("limit=x", 422, "invalid_input"),
        ("more=1", 422, "invalid_input"),
        ("cursor=x", 400, "bad_cursor"),
        ("cursor=MQ==", 400, "bad_cursor"),
        ("cursor=%ff", 400, "bad_cursor"),
        ("limit=1", 200, None),
    ):
        reply = await api.get(f"/v1/{name}?{query}")
        assert reply.status == status, query
        assert code is None or reply.code == code


async def test_a_page_goes_on_after_an_entry_that_is_gone(client: Connect) -> None:
    api = await client(echo, outbound_allow=LOCAL)
    hooks = [await api.service.webhooks.add(WebhookAdded(url=URL), actor="me") for _ in range(4)]
    page = await api.get("/v1/webhooks?limit=2")
    await api.service.webhooks.remove(hooks[1].webhook_id, None, actor="me")
    rest = await api.get(f"/v1/webhooks?cursor={page.json['next']}")
    ids = [each["webhook_id"] for each in rest.json["webhooks"]]
    assert ids == [hooks[2].webhook_id, hooks[3].webhook_id]


async def test_an_event_for_very_many_webhooks_is_made_into_pieces(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of events for a thousand webhooks was a quarter of a million tasks at a time."""
    service = await serve(echo, outbound_allow=LOCAL, concurrency=0)
    monkeypatch.setattr(service.webhooks, "_outbound", None)  # nothing is sent
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
    service.webhooks._added.set()
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
