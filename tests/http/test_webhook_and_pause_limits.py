"""Limits of webhooks and pauses."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from eventjobs import Context, handler
from eventjobs.domain.events import WebhookAdded
from eventjobs.errors import InvalidInput, LimitReached
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
    first = (await webhooks.all())[0].webhook_id
    assert (await api("DELETE", f"/v1/webhooks/{first}")).status == 204
    assert (await api("POST", "/v1/webhooks", {"url": URL})).status == 201


async def test_no_more_is_paused_than_may_be(client: Connect) -> None:
    api = await client(echo, pauses_max=3)
    switches = api.service.pauses
    pauses = [switches.pause("queue", f"q{number}", actor="me") for number in range(3)]
    assert await count_refusals(list(pauses)) == 0
    await api.service.views.wait_for_position(api.service.log.head)
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
