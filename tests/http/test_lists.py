"""Pages of short lists: types, queues, schedules, breakers and webhooks."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from eventjobs import Context, handler
from eventjobs.client import Client as Caller
from eventjobs.domain.events import WebhookAdded
from tests.conftest import Connect

URL = "http://127.0.0.1:1/"
LOCAL = "127.0.0.0/8"


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


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
