"""Errors as problems, with one request id everywhere."""

import orjson
import pytest
from aiohttp import web

from eventjobs import errors
from eventjobs.errors import EventjobsError
from eventjobs.http import problem, request_errors
from eventjobs.service import Service
from tests.conftest import Connect
from tests.support.http_jobs import HANDLERS, NOBODY
from tests.support.log_lines import capture_logs


async def test_every_error_is_a_problem(client: Connect) -> None:
    api = await client(*HANDLERS)
    reply = await api.get("/v1/nothing?secret=1")
    assert (reply.status, reply.code) == (404, "not_found")
    assert reply.json["instance"] == "/v1/nothing"
    assert reply.json["type"] == "about:blank"
    for method, path, allowed in (
        ("DELETE", "/v1/jobs", "GET, HEAD, POST"),
        ("POST", f"/v1/jobs/{NOBODY}", "DELETE, GET, HEAD, PUT"),
        ("PATCH", "/healthz", "GET, HEAD"),
        ("OPTIONS", "/v1/jobs", "GET, HEAD, POST"),
    ):
        reply = await api(method, path)
        assert (reply.status, reply.code) == (405, "method_not_allowed")
        assert reply.headers["Allow"] == allowed
    assert (await api.get("/v1/jobs/")).code == "not_found"


async def test_a_request_has_one_name_everywhere(client: Connect) -> None:
    api = await client(*HANDLERS)
    reply = await api.get("/nothing", X_Request_ID="abc.DEF_1-2")
    assert (reply.code, reply.json["request_id"]) == ("not_found", "abc.DEF_1-2")
    for odd in ("", "a b", "x" * 65, "\u00fc", "a;b"):
        reply = await api.get("/healthz", X_Request_ID=odd)
        assert reply.headers["X-Request-ID"] not in {odd, ""}
    names = {(await api.get("/healthz")).headers["X-Request-ID"] for _ in range(5)}
    assert len(names) == 5


async def test_a_refused_request_leaves_one_line_without_what_it_said(client: Connect) -> None:
    api = await client(*HANDLERS)
    with capture_logs() as lines:
        await api("POST", "/v1/jobs?token=secret", b'{"type":"secret"}')
        await api.get("/healthz?token=secret")
    [refused] = [each for each in lines if each["log_level"] == "warning"]
    assert (refused["event"], refused["status"]) == ("request refused", 422)
    assert (refused["method"], refused["path"]) == ("POST", "/v1/jobs")
    assert refused["code"] == "unknown_type"
    assert "secret" not in str(lines)


async def test_an_unexpected_error_is_told_to_us_and_not_to_the_client(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(*HANDLERS)

    async def broken(service: Service) -> None:
        raise RuntimeError("at /secret/place")

    monkeypatch.setattr(type(api.service.views), "counts", broken)
    with capture_logs() as lines:
        reply = await api.get("/v1/counts")
    assert (reply.status, reply.code) == (500, "internal")
    assert b"secret" not in reply.body
    assert any("secret" in str(each.get("exc_info")) for each in lines)


def test_every_error_has_a_status_and_says_no_more_than_it_may() -> None:
    listed = [each for each in vars(errors).values() if isinstance(each, type)]
    for each in [*listed, *vars(request_errors).values()]:
        if isinstance(each, type) and issubclass(each, EventjobsError):
            status, _ = problem.status_of(each)
            assert 400 <= status < 600
    members = problem.members(errors.LogUnavailable("the database failed: /secret"))
    assert members["detail"] == "The log does not accept writes now; nothing was written."
    unknown = problem.response(errors.OutcomeUnknown(), "/v1/jobs", "r", "job")
    assert isinstance(unknown.body, bytes)
    assert orjson.loads(unknown.body)["job_id"] == "job"
    assert (unknown.status, unknown.headers["Retry-After"]) == (503, "1")
    assert problem.members(web.HTTPRequestEntityTooLarge(1))["status"] == 413
