"""Completion hooks over HTTP: what a job shows of them, its streams, and hooks that are URLs."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook

from eventjobs import CompletedJob, Context, JobError, completion_hook, handler, on_completion
from eventjobs.auth.master_key import MasterKey
from eventjobs.domain.ids import hook_id
from eventjobs.errors import InvalidInput
from eventjobs.service import Service
from eventjobs.settings import Settings
from eventjobs.storage.data_directory import KEY
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.external_service import http_server
from tests.support.http_client import Client
from tests.support.http_jobs import echo
from tests.support.keys import bearer, make_key
from tests.support.waiting import job_when, time_passing
from tests.support.webhook_receiver import deliveries, receiving, subscribe

LOOPBACK = "127.0.0.0/8"


@handler("secret", sensitive=["card"])
async def secret(context: Context, payload: Any) -> Any:
    return {"card": payload["card"], "text": f"paid with {payload['card']}"}


class Stories:
    """An HTTP service that makes stories: each status of *answers*, and then 201."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[int] = []
        self.requests: list[tuple[dict[str, str], bytes]] = []

    async def add(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append((dict(request.headers), body))
        status = self.answers.pop(0) if self.answers else 201
        record = {"id": 7, "url": "/stories/7", "title": "Rows"}
        return web.json_response(record if status == 201 else {}, status=status)

    @property
    def bodies(self) -> list[Any]:
        return [orjson.loads(body) for _, body in self.requests]


@pytest.fixture
async def stories() -> AsyncIterator[Stories]:
    stories = Stories()
    async with http_server(stories.add, "POST", "/stories") as port:
        stories.url = f"http://127.0.0.1:{port}/stories"
        yield stories


async def over(api: Client, type: str, payload: Any) -> Any:
    """A job whose hooks have ended."""
    job_id = (await api.submit(type, payload))["job_id"]
    await api.service.wait(job_id, hooks=True)
    return (await api.get(f"/v1/jobs/{job_id}")).json


# --- what a job shows


async def test_a_job_shows_its_hooks_and_links(client: Connect) -> None:
    gate = asyncio.Event()

    @on_completion("echo", name="story")
    async def save(job: CompletedJob) -> dict[str, str]:
        await gate.wait()
        return {"id": "7", "url": "/stories/7"}

    api = await client(echo, save)
    job_id = (await api.submit("echo", 1))["job_id"]
    await api.service.wait(job_id)
    job = (await api.get(f"/v1/jobs/{job_id}")).json
    pending = {"name": "story", "status": "pending", "id": None, "url": None, "error": None}
    assert job["status"] == "completed"
    assert job["hooks"] == [pending | {"job_id": hook_id(job_id, "story")}]
    assert job["links"]["story"] is None
    [_, reason] = (await api.get(f"/v1/jobs/{job_id}/why")).json["reasons"]
    assert (reason["code"], reason["hook"]) == ("hook_pending", "story")
    gate.set()
    await api.service.wait(job_id, hooks=True)
    job = (await api.get(f"/v1/jobs/{job_id}")).json
    assert job["links"]["story"] == "/stories/7"
    [hook] = job["hooks"]
    assert (hook["status"], hook["id"], hook["url"]) == ("completed", "7", "/stories/7")
    history = (await api.get(f"/v1/jobs/{job_id}/history")).json
    assert history["entries"][-1]["text"] == "the completion hook story made the record /stories/7"
    # The hook's job is listed to those who name its type.
    listed = (await api.get("/v1/jobs")).json["jobs"]
    assert [each["job_id"] for each in listed] == [job_id]
    own = (await api.get("/v1/jobs?type=eventjobs.hook.echo.story")).json["jobs"]
    assert [each["job_id"] for each in own] == [hook["job_id"]]


async def test_a_failed_hook_is_explained(client: Connect) -> None:
    @on_completion("echo", name="story")
    async def save(job: CompletedJob) -> None:
        raise JobError("no_such_user", "There is no user ann.", retryable=False)

    api = await client(echo, save)
    job = await over(api, "echo", 1)
    [hook] = job["hooks"]
    assert (job["status"], job["links"]["story"], hook["status"]) == ("completed", None, "failed")
    assert hook["error"] == {"code": "no_such_user", "message": "There is no user ann."}
    [_, reason] = (await api.get(f"/v1/jobs/{job['job_id']}/why")).json["reasons"]
    assert reason["code"] == "hook_failed"
    assert reason["jobs"] == [{"job_id": hook["job_id"]}]


async def test_a_clients_job_cannot_run_a_hook(client: Connect) -> None:
    @on_completion("echo", name="story")
    async def save(job: CompletedJob) -> None:
        raise AssertionError

    api = await client(echo, save)
    reply = await api("POST", "/v1/jobs", {"type": "eventjobs.hook.echo.story"})
    assert (reply.status, reply.json["code"]) == (422, "unknown_type")


@pytest.mark.parametrize("path", ["events", "watch"])
async def test_a_stream_ends_after_the_link(client: Connect, path: str) -> None:
    gate = asyncio.Event()

    @on_completion("echo", name="story")
    async def save(job: CompletedJob) -> str:
        await gate.wait()
        return "7"

    api = await client(echo, save)
    job_id = (await api.submit("echo", 1))["job_id"]
    address = f"/v1/jobs/{job_id}/events" if path == "events" else f"/v1/jobs/{job_id}"
    headers = {"Accept": "text/event-stream"}
    async with api.session.get(address, headers=headers) as response:
        seen = b""
        async for line in response.content:
            seen += line
            if b"completed" in line or b"JobCompleted" in line:
                gate.set()
    assert b"event: end" in seen
    assert seen.index(b"event: end") > seen.index(b'"7"')


async def test_a_webhook_gets_the_link_and_nothing_of_the_hooks_job(client: Connect) -> None:
    @on_completion("echo", name="story")
    async def save(job: CompletedJob) -> str:
        return "7"

    api = await client(echo, save, outbound_allow=LOOPBACK)
    async with receiving() as receiver:
        webhook = await subscribe(api, receiver, events=["JobCompleted", "HookCompleted"])
        job = await over(api, "echo", 1)
        messages = await receiver.has(2)
        assert {each["type"] for each in messages} == {"JobCompleted", "HookCompleted"}
        assert {each["data"]["job_id"] for each in messages} == {job["job_id"]}
        assert len(await deliveries(api, webhook)) == 2


# --- a hook that is a URL


async def test_a_url_gets_the_job_and_answers_with_the_record(
    client: Connect, stories: Stories
) -> None:
    hook = {"type": "echo", "name": "story", "url": stories.url}
    api = await client(echo, outbound_allow=LOOPBACK, completion_hooks=[hook])
    job = await over(api, "echo", {"rows": 3})
    assert job["links"]["story"] == "/stories/7"
    assert job["hooks"][0]["id"] == "7"
    [(headers, body)] = stories.requests
    job_type = "eventjobs.hook.echo.story"
    key = await asyncio.to_thread(MasterKey.open, api.service.settings.data / KEY)
    sent = Webhook(key.signing_secret("dispatch", job_type)).verify(body, headers)
    assert headers["Idempotency-Key"] == headers["webhook-id"] == hook_id(job["job_id"], "story")
    assert sent == {
        "job_id": job["job_id"],
        "type": "echo",
        "hook": "story",
        "owner": None,
        "payload": {"rows": 3},
        "result": {"rows": 3},
        "artifacts": [],
        "tags": [],
        "completed_at": job["finished_at"],
    }


async def test_a_url_gets_the_addresses_of_files(client: Connect, stories: Stories) -> None:
    @handler("draw")
    async def draw(context: Context, payload: Any) -> None:
        await context.artifact("a chart.svg", b"<svg/>", "image/svg+xml")

    hook = completion_hook("draw", name="story", url=stories.url)
    api = await client(draw, hook, outbound_allow=LOOPBACK)
    job = await over(api, "draw", None)
    [artifact] = stories.bodies[0]["artifacts"]
    assert artifact == job["artifacts"][0]
    assert (await api.get(artifact["url"])).body == b"<svg/>"


async def test_a_url_is_called_again_with_the_same_key(
    client: Connect, stories: Stories, clock: FakeClock
) -> None:
    stories.answers = [503, 429, 500]
    hook = completion_hook("echo", name="story", url=stories.url)
    api = await client(echo, hook, clock=clock, outbound_allow=LOOPBACK)
    job_id = (await api.service.submit("echo", 1)).job_id
    job = await time_passing(clock, api.service.wait(job_id, hooks=True))
    assert job.hooks[0].id == "7"
    assert len({headers["Idempotency-Key"] for headers, _ in stories.requests}) == 1
    assert len(stories.requests) == 4


async def test_a_url_that_refuses_fails_the_hook(client: Connect, stories: Stories) -> None:
    stories.answers = [400]
    hook = completion_hook("echo", name="story", url=stories.url)
    api = await client(echo, hook, outbound_allow=LOOPBACK)
    job = await over(api, "echo", 1)
    assert job["hooks"][0]["error"]["code"] == "service_refused"
    assert len(stories.requests) == 1


@pytest.mark.parametrize("unmasked", [False, True])
async def test_sensitive_fields_are_hidden_from_a_url(
    client: Connect, stories: Stories, unmasked: bool
) -> None:
    hook = completion_hook("secret", name="story", url=stories.url, unmasked=unmasked)
    api = await client(secret, hook, outbound_allow=LOOPBACK)
    await over(api, "secret", {"card": "4111111111111111"})
    [body] = stories.bodies
    card = "4111111111111111" if unmasked else "[hidden]"
    assert body["payload"] == {"card": card}
    assert body["result"] == {"card": card, "text": f"paid with {card}"}


async def test_a_function_gets_the_values_and_readers_do_not(client: Connect) -> None:
    seen: list[Any] = []

    @on_completion("secret", name="story")
    async def save(job: CompletedJob) -> str:
        seen.append(job.payload["card"])
        return f"story of {job.payload['card']}"

    api = await client(secret, save, auth="required")
    ann = await make_key(api.service)
    auditor = await make_key(api.service, ["audit:export"], owner="eve")
    reply = await api("POST", "/v1/jobs", SECRET_JOB, headers=bearer(ann))
    job_id = reply.json["job_id"]
    await api.service.wait(job_id, hooks=True)
    assert seen == ["4111111111111111"]
    own = await api.get(f"/v1/jobs/{job_id}", **bearer(ann))
    assert own.json["links"]["story"] == "story of 4111111111111111"
    for id in (job_id, hook_id(job_id, "story")):
        for path in ("", "/events", "/history", "/why"):
            masked = await api.get(f"/v1/jobs/{id}{path}", **bearer(auditor))
            assert masked.status == 200
            assert b"4111" not in masked.body
    masked = await api.get(f"/v1/jobs/{job_id}", **bearer(auditor))
    assert masked.json["links"]["story"] == masked.json["hooks"][0]["id"] == "story of [hidden]"


async def test_a_link_is_hidden_where_all_texts_are(client: Connect) -> None:
    """So it is with a job of very many sensitive values."""

    @handler("secrets", sensitive=["cards"])
    async def pay(context: Context, payload: Any) -> None:
        pass

    @on_completion("secrets", name="story")
    async def save(job: CompletedJob) -> str:
        return f"story of {job.payload['cards'][0]}"

    api = await client(pay, save, auth="required")
    key = await make_key(api.service)
    auditor = await make_key(api.service, ["audit:export"], owner="eve")
    cards = {"cards": [f"41111111{number:08}" for number in range(40)]}
    reply = await api(
        "POST", "/v1/jobs", {"type": "secrets", "payload": cards}, headers=bearer(key)
    )
    job_id = reply.json["job_id"]
    await api.service.wait(job_id, hooks=True)
    masked = await api.get(f"/v1/jobs/{job_id}", **bearer(auditor))
    assert b"4111" not in masked.body
    assert masked.json["links"]["story"] == "[hidden]"
    own = await api.get(f"/v1/jobs/{job_id}", **bearer(key))
    assert own.json["links"]["story"] == "story of 4111111100000000"


async def test_a_paused_hook_waits(client: Connect) -> None:
    @on_completion("echo", name="story")
    async def save(job: CompletedJob) -> str:
        return "7"

    api = await client(echo, save)
    path = "/v1/types/eventjobs.hook.echo.story"
    assert (await api("POST", f"{path}/pause")).status == 200
    job_id = (await api.submit("echo", 1))["job_id"]
    own = hook_id(job_id, "story")
    await job_when(api.service, own, lambda job: True)
    [reason, *_] = (await api.get(f"/v1/jobs/{own}/why")).json["reasons"]
    assert reason["code"] == "paused_type"
    assert (await api("POST", f"{path}/resume")).status == 200
    await api.service.wait(job_id, hooks=True)


SECRET_JOB = {"type": "secret", "payload": {"card": "4111111111111111"}}


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ({"type": "echo", "name": "story"}, "has a url"),
        ({"type": "echo", "name": "story", "url": "http://127.0.0.1:1/"}, "story"),
        ({"type": "other", "name": "story", "url": "https://example.org/"}, "no handler"),
        ({"type": "echo", "name": "story", "url": "https://example.org/", "x": 1}, "x"),
    ],
)
def test_a_bad_setting_stops_the_start(hook: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Service(handlers=[echo], settings=Settings(completion_hooks=(hook,)))


async def test_a_service_that_is_not_there_is_tried_again(client: Connect) -> None:
    async with http_server(Stories().add) as port:
        gone = f"http://127.0.0.1:{port}/"
    hook = completion_hook("echo", name="story", url=gone)
    api = await client(echo, hook, outbound_allow=LOOPBACK)
    job_id = (await api.submit("echo"))["job_id"]
    hook_job = hook_id(job_id, "story")
    failed = await job_when(api.service, hook_job, lambda job: job.error is not None)
    assert failed.error is not None
    assert (failed.status, failed.error["code"]) == ("queued", "outbound_failed")
