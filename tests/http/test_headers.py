"""Request headers: lists, preferences, media types and conditions (RFC 9110, RFC 7240)."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from eventjobs import Context, handler
from eventjobs.domain.ids import new_id
from eventjobs.errors import PreconditionFailed
from eventjobs.http import headers
from eventjobs.http.routes import ROUTES
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.http_client import Client, Reply

STREAM = "text/event-stream"
JSON = "application/json"


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


@handler("wait")
async def wait(context: Context, payload: Any) -> None:
    await asyncio.Event().wait()


def with_lines(name: str, *lines: str) -> web.Request:
    """A request with headers only: aiohttp's mock accepts no bytes that are not UTF-8."""
    return cast(
        "web.Request", SimpleNamespace(headers=CIMultiDict([(name, line) for line in lines]))
    )


# --- preferences


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        (["wait=20"], "20"),
        (["Wait=20"], "20"),
        (["WAIT = 20"], "20"),
        (['wait="20"'], "20"),
        (["return=minimal", "wait=20"], "20"),
        (["respond-async,wait=20"], "20"),
        (['return="a, wait=5"; x="wait=6", wait=20'], "20"),
        (["wait=20, wait=30"], "20"),
        (["wait=20", "wait=30"], "20"),
        (["wait=20; foo=bar"], "20"),
        ([",, ;, wait=20"], "20"),
        (["wait"], ""),
        (["waiting=20"], None),
        (["no-wait=20"], None),
        (['return="wait=20"'], None),
        ([], None),
    ],
)
def test_a_preference_is_found_by_its_name(lines: list[str], value: str | None) -> None:
    assert headers.preference(with_lines("Prefer", *lines), "wait") == value


@pytest.mark.parametrize("given", ["Wait=1", "return=minimal, wait=1", 'wait="1"'])
async def test_a_wait_is_waited_for_however_it_is_written(
    client: Connect, clock: FakeClock, given: str
) -> None:
    api = await client(echo, concurrency=0)
    address = (await api.submit("echo"))["links"]["self"]
    poll = asyncio.create_task(api.get(address, If_None_Match='"1"', Prefer=given))
    await api.wait_for_long_poll()
    await api("POST", f"{address}/cancel")
    reply = await poll
    assert (reply.status, reply.headers["Preference-Applied"]) == (200, "wait=1")


# --- JSON or a stream


@pytest.mark.parametrize(
    ("lines", "stream"),
    [
        ([STREAM], True),
        (["Text/Event-Stream"], True),
        ([f"{STREAM};charset=utf-8"], True),
        ([f"{JSON}, {STREAM}"], True),
        ([JSON, STREAM], True),
        ([f"{STREAM}, */*;q=0.1"], True),
        ([f"{STREAM};q=0.2, */*;q=0.1"], True),
        ([f"{STREAM};q=0.001"], True),
        ([f'x/y;a="b, c", {STREAM}'], True),
        ([f"{STREAM};q=1.000"], True),
        (["text/*"], False),
        (["text/*, application/*;q=0.5"], False),
        ([], False),
        ([""], False),
        ([",;,"], False),
        ([JSON], False),
        (["*/*"], False),
        (["text/html, */*;q=0.8"], False),
        (["text/html"], False),
        ([f"{JSON}, {STREAM};q=0.5"], False),
        ([f"{STREAM};q=0.1, {JSON}"], False),
        ([f"{STREAM};q=0.1", JSON], False),
        ([f"{STREAM} ; Q=0.1 , {JSON}"], False),
        ([f"{STREAM};q=0"], False),
        ([f"{STREAM};q=0.000"], False),
        ([f"{STREAM};charset=utf-8;q=0"], False),
        ([f"{STREAM};q=0, text/*, */*"], False),
        ([f"text/*;q=0.2, {JSON};q=0.3"], False),
        ([f"{JSON};q=0, {STREAM};q=0"], False),
        ([f"*/*, {STREAM};q=0.9"], False),
        ([f"{STREAM};q=high"], False),
        ([f"{STREAM};q=2"], False),
        ([f"{STREAM};q=-1"], False),
        ([f"{STREAM};q="], False),
        ([f'x/y;a="{STREAM}"'], False),
        (["event-stream"], False),
        (["\udcff/\udcfe"], False),
    ],
)
def test_weights_decide_between_json_and_a_stream(lines: list[str], stream: bool) -> None:
    assert headers.wants_stream(with_lines("Accept", *lines)) == stream


_TEXT = st.text(
    alphabet='ab/*;,="\\ q01.W-' + "\udcff\xe9",
    max_size=60,
)


@given(lines=st.lists(_TEXT, max_size=4))
def test_nothing_that_a_header_says_is_an_error(lines: Sequence[str]) -> None:
    headers.wants_stream(with_lines("Accept", *lines))
    headers.preference(with_lines("Prefer", *lines), "wait")
    headers.media_type(with_lines("Content-Type", *lines))
    headers.is_known(with_lines("If-None-Match", *lines), '"1"')
    with suppress(PreconditionFailed):
        headers.check_match(with_lines("If-Match", *lines), '"1"')


@pytest.mark.parametrize("query", ["?_=1", "?t=2&cb=x&nocache=1", "?cachebust&ts=1&r=0.5"])
async def test_what_a_cache_buster_adds_does_not_end_a_stream(client: Connect, query: str) -> None:
    api = await client(echo)
    job = await api.submit("echo")
    for path in ("", "/events", "/logs"):
        here = job["links"]["self"] + path + query
        assert (await api.get(here, Accept=STREAM)).body.count(b"event: end") == 1
        if path:
            assert (await api.get(here)).status == 422


@pytest.mark.parametrize("name", ["lastEventId", "Last-Event-ID", "lastEventID", "last_event_id"])
async def test_a_stream_resumes_where_a_parameter_says(client: Connect, name: str) -> None:
    api = await client(echo)
    here = (await api.submit("echo"))["links"]["events"]
    whole = await api.get(here, Accept=STREAM)
    first, second, *_, last = [x[4:] for x in whole.body.decode().split("\n") if x[:4] == "id: "]
    rest = (await api.get(f"{here}?{name}={first}&after=0", Accept=STREAM)).body.decode()
    assert f"id: {first}\n" not in rest
    assert f"id: {second}\n" in rest
    header = await api.get(f"{here}?{name}={last}", Accept=STREAM, Last_Event_ID=first)
    assert f"id: {second}\n" in header.body.decode(), "the header wins"
    assert (await api.get(f"{here}?{name}={last}", Accept=STREAM)).status == 204
    assert b"event: reset" in (await api.get(f"{here}?{name}=other", Accept=STREAM)).body


# --- Vary, HEAD


async def test_an_address_with_two_forms_says_so_on_every_answer(client: Connect) -> None:
    api = await client(echo)
    job = await api.submit("echo")
    here = job["links"]["self"]
    await api.get(here + "/events", Accept=STREAM)
    for path in (here, "/v1/jobs?id=" + job["job_id"], here + "/events", here + "/logs"):
        for method in ("GET", "HEAD"):
            for accept in (STREAM, JSON):
                reply = await api(method, path, headers={"Accept": accept, "Last-Event-ID": "0"})
                assert reply.headers["Vary"] == "Accept", (method, path, accept)
    for path, status in ((f"/v1/jobs/{new_id(1)}", 404), ("/v1/jobs?limit=x", 422)):
        reply = await api.get(path)
        assert (reply.status, reply.headers["Vary"]) == (status, "Accept")
    etag = (await api.get(here)).headers["ETag"]
    unchanged = await api.get(here, If_None_Match=etag)
    assert (unchanged.status, unchanged.headers["Vary"]) == (304, "Accept")
    unknown = await api("PATCH", here)
    assert (unknown.status, unknown.headers["Vary"]) == (405, "Accept")
    strange = await api.get(here, Host="evil.example")
    assert (strange.status, strange.headers["Vary"]) == (421, "Accept")
    assert "Vary" not in (await api.get("/v1/counts")).headers


async def test_head_says_what_get_says(client: Connect) -> None:
    api = await client(echo)
    content = b"0123456789"
    stored = (await api("POST", "/v1/artifacts", data=content)).json
    job = await api.submit("echo", artifacts={"a.txt": stored["sha256"]})
    here = job["links"]["self"]
    await api.get(here + "/events", Accept=STREAM)
    paths = [each.path for each in ROUTES if each.method == "GET" and each.path.count("{") == 0]
    paths += [here, here + "/events", here + "/why", here + "/receipt", here + "/history"]
    paths += [here + "/logs", here + "/artifacts/a.txt", f"/v1/jobs/{new_id(1)}"]
    for path in paths:
        got, head = await api.get(path), await api("HEAD", path)
        assert (head.status, head.body) == (got.status, b""), path
        for name in ("Content-Type", "Content-Length", "ETag", "Cache-Control", "Accept-Ranges"):
            if path != "/v1/breakers":
                assert head.headers.get(name) == got.headers.get(name), (path, name)
    for path in (here, here + "/events"):
        head = await api("HEAD", path, headers={"Accept": STREAM})
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Type"] == STREAM
        assert "Content-Length" not in head.headers


async def test_head_knows_no_range(client: Connect) -> None:
    """RFC 9110, 14.2."""
    api = await client(echo)
    stored = (await api("POST", "/v1/artifacts", data=b"0123456789")).json
    job = await api.submit("echo", artifacts={"a": stored["sha256"]})
    path = job["links"]["self"] + "/artifacts/a"
    for asked, status in (("bytes=2-4", 206), ("bytes=99-", 416)):
        assert (await api.get(path, Range=asked)).status == status
        head = await api("HEAD", path, headers={"Range": asked})
        assert (head.status, head.headers["Content-Length"]) == (200, "10")
        assert "Content-Range" not in head.headers


# --- conditions


async def command(api: Client, method: str, path: str, **conditions: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in conditions.items()}
    json = b'{"type":"echo"}' if method == "PUT" else None
    return await api(method, path, json, headers=named)


FALSE = [
    {"If_Match": '"999"'},
    {"If_Match": 'W/"1"'},
    {"If_Match": '"998", "999"'},
    {"If_Match": "1"},
    {"If_Match": ""},
    {"If_None_Match": "*"},
    {"If_None_Match": '"1"'},
    {"If_None_Match": 'W/"1", "2"'},
    {"If_Match": '"1"', "If_None_Match": "*"},
]
TRUE = [
    {"If_Match": '"1"'},
    {"If_Match": "*"},
    {"If_Match": 'W/"1", "1"'},
    {"If_None_Match": '"2"'},
    {"If_Match": '"1"', "If_None_Match": '"2"'},
]


@pytest.mark.parametrize("conditions", FALSE)
async def test_a_command_is_not_done_against_its_condition(
    client: Connect, conditions: dict[str, str]
) -> None:
    api = await client(echo, concurrency=0)
    job = await api.submit("echo")
    here = job["links"]["self"]
    before = api.service.log.head
    for method, path in (
        ("POST", here + "/cancel"),
        ("POST", here + "/retry"),
        ("DELETE", here),
        ("PUT", here),
    ):
        reply = await command(api, method, path, **conditions)
        assert (reply.status, reply.code) == (412, "precondition_failed"), method
    assert api.service.log.head == before
    assert (await api.get(here)).json["status"] == "queued"


@pytest.mark.parametrize("conditions", TRUE)
async def test_a_command_is_done_when_its_condition_holds(
    client: Connect, conditions: dict[str, str]
) -> None:
    api = await client(echo, concurrency=0)
    put = f"/v1/jobs/{new_id(1)}"
    assert (await command(api, "PUT", put)).status == 202
    assert (await command(api, "PUT", put, **conditions)).status == 200
    for method, path, status in (("POST", "/cancel", 200), ("DELETE", "", 204)):
        here = (await api.submit("echo"))["links"]["self"]
        assert (await command(api, method, here + path, **conditions)).status == status


async def test_a_put_can_ask_for_a_new_job_only(client: Connect) -> None:
    api = await client(echo, concurrency=0)
    path = f"/v1/jobs/{new_id(1)}"
    for never in ("*", '"1"'):
        assert (await command(api, "PUT", path, If_Match=never)).status == 412
    answers = await asyncio.gather(
        *(command(api, "PUT", path, If_None_Match="*") for _ in range(10))
    )
    assert sorted(each.status for each in answers) == [202] + [412] * 9


async def test_a_running_job_has_a_weak_tag_that_if_match_never_has(client: Connect) -> None:
    """RFC 9110, 13.1.1: strong comparison; `*` matches any version."""
    api = await client(wait, drain_s=0)
    here = (await api.submit("wait"))["links"]["self"]
    while (await api.get(here)).json["status"] != "running":  # noqa: ASYNC110
        await asyncio.sleep(0)
    etag = (await api.get(here)).headers["ETag"]
    assert etag.startswith("W/")
    for tag in (etag, etag.removeprefix("W/")):
        assert (await command(api, "POST", here + "/cancel", If_Match=tag)).status == 412
    assert (await command(api, "POST", here + "/cancel", If_Match="*")).status == 200


async def test_a_condition_is_held_against_what_the_command_is_decided_on(client: Connect) -> None:
    """Of many commands with the same version, one succeeds."""
    api = await client(echo, concurrency=0)
    here = (await api.submit("echo"))["links"]["self"]
    await api("POST", here + "/cancel")
    tag = (await api.get(here)).headers["ETag"]
    answers = await asyncio.gather(
        *(command(api, "POST", here + "/retry", If_Match=tag) for _ in range(10))
    )
    assert sorted(each.status for each in answers) == [200] + [412] * 9


async def test_what_is_not_there_is_said_before_a_condition(client: Connect) -> None:
    """RFC 9110, 13.2.1."""
    api = await client(echo, concurrency=0)
    gone = (await api.submit("echo"))["links"]["self"]
    await api("DELETE", gone)
    for path, status in ((f"/v1/jobs/{new_id(1)}", 404), (gone, 410)):
        assert (await command(api, "POST", path + "/cancel", If_Match='"9"')).status == status
    assert (await command(api, "POST", "/v1/nothing", If_Match='"9"')).status == 404


async def test_what_has_no_tag_matches_none(client: Connect) -> None:
    api = await client(echo, concurrency=0, outbound_allow="127.0.0.1")
    added = await api("POST", "/v1/webhooks", {"url": "http://127.0.0.1:1/"})
    hook = added.headers["Location"]
    before = api.service.log.head
    for method, path in (
        ("DELETE", hook),
        ("POST", "/v1/types/echo/pause"),
        ("POST", "/v1/queues/default/pause"),
        ("POST", "/v1/jobs"),
        ("POST", "/v1/artifacts"),
        ("POST", "/v1/views/rebuild"),
    ):
        for conditions in ({"If_Match": '"1"'}, {"If_None_Match": "*"}):
            reply = await command(api, method, path, **conditions)
            assert (reply.status, reply.code) == (412, "precondition_failed"), path
    assert api.service.log.head == before
    assert (await command(api, "DELETE", hook, If_Match="*")).status == 204


async def test_reads_have_conditions_too(client: Connect) -> None:
    api = await client(echo, concurrency=0)
    stored = (await api("POST", "/v1/artifacts", data=b"a")).json
    job = await api.submit("echo", artifacts={"a": stored["sha256"]})
    here = job["links"]["self"]
    for path in (here, here + "/artifacts/a"):
        etag = (await api.get(path)).headers["ETag"]
        assert (await api.get(path, If_Match='"other"')).code == "precondition_failed"
        assert (await api.get(path, If_Match=etag)).status == 200
        assert (await api.get(path, If_Match=etag, If_None_Match=etag)).status == 304
        assert (await api.get(path, If_None_Match="*")).status == 304
        assert (await api.get(path, If_None_Match='"a,b", "c"')).status == 200
        two = CIMultiDict([("If-None-Match", '"other"'), ("If-None-Match", etag)])
        assert (await api("GET", path, headers=two)).status == 304


# --- forms


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data; boundary=B",
        "Multipart/Form-Data;boundary=B",
        "multipart/mixed",
        "application/x-www-form-urlencoded",
        "APPLICATION/X-WWW-FORM-URLENCODED; charset=utf-8",
    ],
)
async def test_a_form_is_no_file_and_no_json(client: Connect, kind: str) -> None:
    api = await client(echo, concurrency=0)
    sent = {"data": b"--B\r\n\r\na\r\n--B--", "headers": {"Content-Type": kind}}
    for path in ("/v1/artifacts", "/v1/jobs", "/v1/jobs/batch", "/v1/webhooks", "/v1/work/claim"):
        reply = await api("POST", path, **sent)
        assert (reply.status, reply.code) == (415, "unsupported_media_type"), path
    assert "--data-binary" in (await api("POST", "/v1/artifacts", **sent)).json["detail"]


@pytest.mark.parametrize("kind", ["text/csv", "application/octet-stream", "", "\xff"])
async def test_a_file_may_be_of_any_other_type(client: Connect, kind: str) -> None:
    api = await client(echo, concurrency=0)
    sent = {"data": b"a,b", "headers": {"Content-Type": kind}}
    assert (await api("POST", "/v1/artifacts", **sent)).status == 201
