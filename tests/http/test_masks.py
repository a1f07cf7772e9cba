"""Values of sensitive fields reach the owner of the job and its workers, and no other reader."""

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from eventjobs.auth.principals import Scope
from eventjobs.domain.codec import encode
from eventjobs.domain.events import Paused, Unreadable
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import JobError
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler, remote
from eventjobs.http.app_context import APP_CONTEXT
from eventjobs.http.routes import ROUTES
from eventjobs.http.streams.job_filter import JobFilter
from tests.conftest import Connect
from tests.support.http_client import Client, Reply
from tests.support.keys import ADMIN, bearer, make_key

CARD = "4111-1111-1111-1111"
HIDDEN = "[hidden]"
FILES = ["note.txt", "error.json", "result.json"]


@handler("charge", sensitive=("card",))
async def charge(context: Context, payload: Any) -> Any:
    """Puts the payload, and the value, wherever a handler can."""
    text = f"<{payload['card']}>"
    context.log(text, more=payload, text=text)
    context.progress(1, 2, stage=text, message=text, data=payload)
    context.issue("odd", text, payload=payload)
    await context.step("ask", lambda: payload)
    await context.artifact("note.txt", text.encode(), media_type="text/plain")
    if payload.get("fails"):
        raise JobError("declined", text, retryable=False, details={"all": payload})
    return payload | {"large": "x" * 300_000 if payload.get("large") else ""}


@pytest.fixture
async def api(client: Connect) -> Client:
    held = remote("held", sensitive=("card",))
    return await client(charge, held, auth="required", progress_interval_s=0.0)


async def key_of(api: Client, who: str, *scopes: str) -> dict[str, str]:
    return bearer(await make_key(api.service, scopes or None, owner=who))


async def key_of_admin(api: Client) -> dict[str, str]:
    return await key_of(api, "root", *ADMIN)


async def submit(api: Client, key: dict[str, str], payload: Any, **spec: Any) -> Any:
    reply = await api(
        "POST", "/v1/jobs", {"type": "charge", "payload": payload} | spec, headers=key
    )
    assert reply.status == 202, reply.body
    return reply.json


async def run(api: Client, key: dict[str, str], payload: Any) -> str:
    """The id of a job that has ended, as the views show it."""
    job_id: str = (await submit(api, key, payload))["job_id"]
    await api.service.wait(job_id)
    await api.service.views.wait_for_position(api.service.log.head)
    return job_id


async def get(api: Client, path: str, key: dict[str, str], **headers: str) -> Reply:
    return await api.get(path, **key, **headers)


# --- every route and stream


def addresses(job_id: str) -> set[str]:
    """Every GET of the service about a job, and lists that have it."""
    routes = [each for each in ROUTES if each.method == "GET" and each.action is not None]
    paths = {each.path.replace("{id}", job_id) for each in routes}
    paths = {path.replace("{name}", name) for path in paths for name in FILES}
    return paths | {
        f"/v1/{kind}?{query}"
        for kind in ("jobs", "events")
        for query in (f"id={job_id}", "type=charge")
    }


async def read_stream(api: Client, path: str, key: dict[str, str], position: int) -> bytes:
    """The frames of a stream up to *position*."""
    got = b""
    headers = key | {"Accept": "text/event-stream"}
    async with api.session.get(path, headers=headers) as response, asyncio.timeout(10):
        assert response.status == 200, await response.read()
        while b"\n\n" not in got.partition(b"id: %d\n" % position)[2]:
            got += await response.content.readany()
    return got


async def everything(api: Client, job_id: str, key: dict[str, str]) -> bytes:
    """All that a reader gets of this job, by every route and stream."""
    got = [(await get(api, path, key)).body for path in sorted(addresses(job_id))]
    job = await api.service.jobs.current(job_id)
    assert job is not None
    one = f"/v1/jobs/{job_id}"
    streams = (one, "/v1/jobs", f"{one}/events", "/v1/events", f"/v1/events?id={job_id}")
    got += [await read_stream(api, path, key, job.position) for path in streams]
    return b"\n".join(got)


def shows(got: bytes, secret: str) -> bool:
    forms = (secret, repr(secret)[1:-1], orjson.dumps(secret).decode()[1:-1])
    return any(form.encode() in got for form in forms)


values = st.sampled_from([CARD, 'quo"ted one', "päss-wörd", "back\\slash", "<b>&amp;%20"])
places = st.recursive(
    st.just({"card": "{}"}) | st.just("a text with {}"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def fill(place: Any, value: str) -> Any:
    if isinstance(place, dict):
        return {key: fill(each, value) for key, each in place.items()}
    if isinstance(place, list):
        return [fill(each, value) for each in place]
    return place.replace("{}", value)


@settings(
    max_examples=5,
    deadline=None,
    phases=[Phase.generate],  # to shrink a payload takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(values, places, st.booleans(), st.booleans())
async def test_no_route_or_stream_shows_a_value_to_others(
    api: Client, value: str, place: Any, fails: bool, large: bool
) -> None:
    ann = await key_of(api, "ann")
    payload = {"card": value, "more": fill(place, value), "fails": fails, "large": large}
    job_id = await run(api, ann, payload | {"name": "not hidden"})
    for key in (await key_of_admin(api), await key_of(api, "eve", Scope.AUDIT)):
        got = await everything(api, job_id, key)
        assert not shows(got, value)
        assert got.count(b"not hidden") > 5
    own = await everything(api, job_id, ann)
    assert HIDDEN.encode() not in own
    assert b'"masked":true' not in own
    job = (await get(api, f"/v1/jobs/{job_id}", ann)).json
    assert job["payload"] == payload | {"name": "not hidden"}
    for each in job["artifacts"]:
        file = await get(api, each["url"], ann)
        assert value in file.body.decode() or orjson.dumps(value)[1:-1] in file.body


# --- one by one


def count_live(api: Client) -> int:
    app = api.listening._runner.app
    streams = app[APP_CONTEXT].streams
    return len([each for feed in streams._feeds for each in feed.broadcaster._all()])


async def test_live_streams_hide_values_from_some_and_not_from_others(api: Client) -> None:
    """Readers of different kinds are live at the same time."""
    ann, root = await key_of(api, "ann"), await key_of_admin(api)
    await run(api, ann, {"card": CARD})
    head = api.service.log.head
    later = (await submit(api, ann, {"card": CARD}, delay_s=3600))["job_id"]
    paths = ("/v1/jobs", "/v1/events", f"/v1/jobs/{later}", f"/v1/jobs/{later}/events")
    async with asyncio.TaskGroup() as group:
        streams = [
            (name, group.create_task(read_stream(api, f"{path}?after={head}", key, head + 2)))
            for name, key in (("ann", ann), ("root", root))
            for path in paths
        ]
        while count_live(api) < len(streams):  # noqa: ASYNC110  going live has no event
            await asyncio.sleep(0)
        await api("POST", f"/v1/jobs/{later}/cancel", {"reason": f"not {CARD}"}, headers=ann)
    for name, stream in streams:
        got = stream.result()
        assert shows(got, CARD) is (name == "ann"), got
        assert (HIDDEN.encode() in got) is (name == "root")


@pytest.mark.parametrize("named", [False, True])
async def test_who_reads_alone_sees_the_values_of_its_own_job_among_others(
    api: Client, named: bool
) -> None:
    ann, root = await key_of(api, "ann"), await key_of_admin(api)
    own, foreign = [
        (await submit(api, key, {"card": CARD}, delay_s=3600))["job_id"] for key in (root, ann)
    ]
    head = api.service.log.head
    path = f"/v1/events?after={head}" + (f"&id={own},{foreign}" if named else "")
    reading = asyncio.create_task(read_stream(api, path, root, head + 2))
    while count_live(api) < 1:  # noqa: ASYNC110  going live has no event
        await asyncio.sleep(0)
    for job_id in (own, foreign):
        cancelled = {"reason": f"{job_id} has {CARD}"}
        await api("POST", f"/v1/jobs/{job_id}/cancel", cancelled, headers=root)
    got = (await reading).decode()
    assert f"{own} has {CARD}" in got
    assert f"{foreign} has {HIDDEN}" in got


async def test_a_masked_body_has_a_tag_of_its_own(api: Client) -> None:
    ann, root = await key_of(api, "ann"), await key_of_admin(api)
    path = f"/v1/jobs/{await run(api, ann, {'card': CARD})}"
    own, masked = await get(api, path, ann), await get(api, path, root)
    assert (own.headers["ETag"], CARD in str(own.json)) == (f'"{own.json["version"]}"', True)
    assert masked.headers["ETag"] == f'"{own.json["version"]}-masked"'
    assert masked.json["masked"] is True
    assert own.json["masked"] is False
    for key, tag, status in (
        (ann, own, 304),
        (root, masked, 304),
        (ann, masked, 200),
        (root, own, 200),
    ):
        reply = await get(api, path, key, If_None_Match=tag.headers["ETag"])
        assert reply.status == status
        assert shows(reply.body, CARD) is (key is ann and status == 200)


async def test_a_command_takes_the_tag_of_the_masked_body(api: Client) -> None:
    ann, root = await key_of(api, "ann"), await key_of_admin(api)
    job = await submit(api, ann, {"card": CARD}, delay_s=3600)
    path = f"/v1/jobs/{job['job_id']}"
    tag = (await get(api, path, root)).headers["ETag"]
    assert tag.endswith('-masked"')
    cancelled = await api("POST", f"{path}/cancel", headers=root | {"If-Match": tag})
    assert (cancelled.status, cancelled.json["payload"]) == (200, {"card": HIDDEN})
    late = await api("POST", f"{path}/retry", headers=root | {"If-Match": tag})
    assert late.code == "precondition_failed"
    retried = await api("POST", f"{path}/retry", headers=root)
    assert (retried.status, retried.json["payload"]) == (200, {"card": HIDDEN})


async def test_the_answer_to_a_submission_is_for_its_owner(api: Client) -> None:
    ann, root = await key_of(api, "ann"), await key_of_admin(api)
    assert (await submit(api, ann, {"card": CARD}))["payload"] == {"card": CARD}
    for_ann = await submit(api, root, {"card": CARD}, owner="ann")
    assert (for_ann["payload"], for_ann["masked"]) == ({"card": HIDDEN}, True)


async def test_files_of_a_job_with_sensitive_fields_are_for_its_owner(api: Client) -> None:
    ann, root = await key_of(api, "ann"), await key_of_admin(api)
    job_id = await run(api, ann, {"card": CARD, "fails": True})
    for name in ("note.txt", "error.json"):
        path = f"/v1/jobs/{job_id}/artifacts/{name}"
        assert (await get(api, path, root)).code == "artifact_masked"
        assert shows((await get(api, path, ann)).body, CARD)


async def test_a_worker_reads_what_it_holds(api: Client) -> None:
    ann = await key_of(api, "ann")
    worker, other = [await key_of(api, who, "worker:held") for who in ("w1", "w2")]
    job = await submit(api, ann, {"card": CARD}, type="held")
    child = await submit(api, ann, {"card": CARD}, parent=job["job_id"])
    await api.service.wait(child["job_id"])
    claim = {"worker": "w", "types": ["held"], "max": 1, "wait_s": 5}
    [claimed] = (await api("POST", "/v1/work/claim", claim, headers=worker)).json["jobs"]
    assert claimed["payload"] == {"card": CARD}
    for job_id in (job["job_id"], child["job_id"]):
        for path in ("", "/events", "/history", "/why"):
            got = (await get(api, f"/v1/jobs/{job_id}{path}", worker)).body
            assert HIDDEN.encode() not in got
            assert (await get(api, f"/v1/jobs/{job_id}{path}", other)).code == "job_not_found"
    note = f"/v1/jobs/{child['job_id']}/artifacts/note.txt"
    assert shows((await get(api, note, worker)).body, CARD)


async def test_without_authentication_nothing_is_hidden(client: Connect) -> None:
    api = await client(charge, progress_interval_s=0.0)
    got = await everything(api, await run(api, {}, {"card": CARD, "fails": True}), {})
    assert shows(got, CARD)
    assert HIDDEN.encode() not in got


def test_an_event_of_an_unknown_job_is_hidden_and_one_of_the_service_is_not() -> None:
    broken = Recorded(1, "j", 1, 0, "http", Unreadable(CARD), "Later", b"{}", CARD.encode())
    pause = Paused("type", "t")
    paused = Recorded(2, "p", 1, 0, "http", pause, *encode(pause))
    shown = JobFilter(reader="root").hide([broken, paused], {"j": None, "p": None})
    assert CARD.encode() not in shown[0].json()
    assert shown[1] is paused
