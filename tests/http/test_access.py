"""Every route with every kind of principal, compared with the table in docs/security.md."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from eventjobs.auth.principals import Scope
from eventjobs.domain.timestamps import parse_rfc3339, rfc3339
from eventjobs.handlers.declare import remote
from eventjobs.handlers.schedule import schedule
from eventjobs.http.dialects.registry import DIALECTS, routes_of
from eventjobs.http.dialects.seed_003 import CASE_ROUTES
from eventjobs.http.routes import ROUTES
from eventjobs.http.routing import Route
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.forms import FORM_TYPE, form_with_file
from tests.support.http_client import Client
from tests.support.http_jobs import echo
from tests.support.keys import bearer, id_of, make_key
from tests.support.remote_worker import FAR, WORKER

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
NIGHTLY = schedule("nightly", "0 3 * * *", "echo")
#: The types of the jobs of domain routes.
CASES = [remote(each.type) for each in CASE_ROUTES]
#: The columns of the table, after the route and its action.
PRINCIPALS = ("nobody", "owner", "other", "worker", "auditor", "admin", "expired", "revoked")
COLUMNS = (*PRINCIPALS, "optional")


def table() -> dict[str, list[str]]:
    """The cells of each row of the table, by "METHOD path"."""
    rows = re.findall(r"^\| `([A-Z]+ /[^`]*)` \|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    return {route: [each.strip() for each in cells.split("|")] for route, cells in rows}


TABLE = table()
#: The routes of the service and of all dialects.
ALL_ROUTES = (*ROUTES, *routes_of(DIALECTS, CASE_ROUTES))


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def test_every_route_has_a_row() -> None:
    assert set(TABLE) == {name_of(each) for each in ALL_ROUTES}
    for route in ALL_ROUTES:
        action, *statuses = TABLE[name_of(route)]
        assert action == (route.action or "public"), name_of(route)
        assert len(statuses) == len(COLUMNS), name_of(route)


@dataclass
class Site:
    """A service, its credentials, and jobs of one owner to make requests about."""

    api: Client
    #: The headers of each kind of principal.
    headers: dict[str, dict[str, str]]
    #: The kind of principal whose jobs and webhooks they are.
    owner: str
    #: The kind that sends the request of the route.
    principal: str = ""
    sha256: str = ""

    async def submit(self, type: str = "far", **spec: Any) -> str:
        """The id of a new job of the owner."""
        body = {"type": type, **spec}
        reply = await self.api("POST", "/v1/jobs", body, headers=self.headers[self.owner])
        assert reply.status == 202, reply.body
        return str(reply.json["job_id"])

    async def claim(self, **spec: Any) -> str:
        """The id of a new job of the owner, which the worker holds."""
        job_id = await self.submit(**spec)
        body = {"worker": WORKER, "types": ["far"], "max": 100, "wait_s": 0}
        reply = await self.api("POST", "/v1/work/claim", body, headers=self.headers["worker"])
        assert job_id in [each["job_id"] for each in reply.json["jobs"]], reply.body
        return job_id

    async def cancel(self) -> str:
        job_id = await self.submit("echo")
        path = f"/v1/jobs/{job_id}/cancel"
        reply = await self.api("POST", path, headers=self.headers[self.owner])
        assert reply.status == 200, reply.body
        return job_id

    async def complete_job(self) -> str:
        return await self._end("complete")

    async def fail_job(self) -> str:
        return await self._end("fail", code="x", message="no", retryable=False)

    async def _end(self, report: str, **body: Any) -> str:
        job_id = await self.claim()
        path, headers = f"/v1/work/{job_id}/1/{report}", self.headers["worker"]
        reply = await self.api("POST", path, {"worker": WORKER, **body}, headers=headers)
        assert reply.status == 200, reply.body
        return job_id

    async def claim_with_file(self) -> str:
        """The id of a claimed job that has the artifact `x`."""
        if not self.sha256:
            headers = {"Content-Type": "text/csv", **self.headers[self.owner]}
            reply = await self.api("POST", "/v1/artifacts", b"a,b\n", headers=headers)
            self.sha256 = reply.json["sha256"]
        return await self.claim(artifacts={"x": self.sha256})

    async def add_webhook(self) -> str:
        """The id of a new webhook for the owner's jobs."""
        body = {"url": "http://127.0.0.1:9/hook", "owner": "ann"}
        reply = await self.api("POST", "/v1/webhooks", body, headers=self.headers["admin"])
        assert reply.status == 201, reply.body
        return str(reply.json["webhook_id"])

    async def make_key(self) -> str:
        body = {"name": "spare"}
        reply = await self.api("POST", "/v1/keys", body, headers=self.headers["admin"])
        return str(reply.json["key_id"])


#: The path and the body of a request.
Made = tuple[str, Any]
Maker = Callable[[Site], Awaitable[Made]]


def plain(path: str, body: Any = None) -> Maker:
    async def make(site: Site) -> Made:
        return path, body

    return make


def about(kind: str, path: str, body: Any = None) -> Maker:
    """A request about a new job, webhook or key: *kind* is the method of Site that makes it."""

    async def make(site: Site) -> Made:
        return path.format(await getattr(site, kind)()), body

    return make


async def put(site: Site) -> Made:
    return f"/v1/jobs/{uuid4()}", {"type": "echo"}


async def upload(site: Site) -> Made:
    return "/v1/artifacts", b"a file"


async def batch(site: Site) -> Made:
    return "/v1/jobs/batch", b'{"type":"echo"}\n'


async def complete_several(site: Site) -> Made:
    job = {"job_id": await site.claim(), "attempt": 1}
    return "/v1/work/complete", {"worker": WORKER, "jobs": [job]}


async def artifact_report(site: Site) -> Made:
    job_id = await site.claim_with_file()
    return f"/v1/work/{job_id}/1/artifact", {"worker": WORKER, "name": "y", "sha256": site.sha256}


async def cancelled_report(site: Site) -> Made:
    job_id = await site.claim()
    reply = await site.api("POST", f"/v1/jobs/{job_id}/cancel", headers=site.headers[site.owner])
    assert reply.status == 200, reply.body
    return f"/v1/work/{job_id}/1/cancelled", {"worker": WORKER}


async def log_in(site: Site) -> Made:
    authorization = site.headers[site.principal].get("Authorization", "Bearer none")
    return "/v1/session", {"credential": authorization.partition(" ")[2]}


def report(kind: str, /, **body: Any) -> Maker:
    return about("claim", f"/v1/work/{{}}/1/{kind}", {"worker": WORKER, **body})


REQUESTS: dict[str, Maker] = {
    "GET /v1/jobs/{id}": about("claim", "/v1/jobs/{}"),
    "GET /v1/jobs": plain("/v1/jobs"),
    "POST /v1/jobs": plain("/v1/jobs", {"type": "echo"}),
    "PUT /v1/jobs/{id}": put,
    "POST /v1/jobs/batch": batch,
    "POST /v1/jobs/{id}/cancel": about("claim", "/v1/jobs/{}/cancel"),
    "POST /v1/jobs/{id}/retry": about("cancel", "/v1/jobs/{}/retry"),
    "POST /v1/jobs/{id}/callback": about("claim", "/v1/jobs/{}/callback", {"result": 1}),
    "DELETE /v1/jobs/{id}": about("cancel", "/v1/jobs/{}"),
    "GET /v1/jobs/{id}/events": about("claim", "/v1/jobs/{}/events"),
    "GET /v1/jobs/{id}/history": about("claim", "/v1/jobs/{}/history"),
    "GET /v1/jobs/{id}/why": about("claim", "/v1/jobs/{}/why"),
    "GET /v1/jobs/{id}/logs": about("claim", "/v1/jobs/{}/logs"),
    "GET /v1/jobs/{id}/receipt": about("claim", "/v1/jobs/{}/receipt"),
    "GET /v1/events": plain("/v1/events"),
    "GET /v1/schedules": plain("/v1/schedules"),
    "POST /v1/schedules/{name}/pause": plain("/v1/schedules/nightly/pause"),
    "POST /v1/schedules/{name}/resume": plain("/v1/schedules/nightly/resume"),
    "GET /v1/counts": plain("/v1/counts"),
    "GET /v1/breakers": plain("/v1/breakers"),
    "POST /v1/artifacts": upload,
    "GET /v1/jobs/{id}/artifacts/{name}": about("claim_with_file", "/v1/jobs/{}/artifacts/x"),
    "POST /v1/webhooks": plain("/v1/webhooks", {"url": "http://127.0.0.1:9/hook"}),
    "GET /v1/webhooks": plain("/v1/webhooks"),
    "GET /v1/webhooks/{webhook_id}": about("add_webhook", "/v1/webhooks/{}"),
    "DELETE /v1/webhooks/{webhook_id}": about("add_webhook", "/v1/webhooks/{}"),
    "POST /v1/webhooks/{webhook_id}/redeliver": about(
        "add_webhook", "/v1/webhooks/{}/redeliver", {"after": 0}
    ),
    "POST /v1/work/claim": plain(
        "/v1/work/claim", {"worker": "worker-2", "types": ["far"], "wait_s": 0}
    ),
    "POST /v1/work/complete": complete_several,
    "POST /v1/work/{id}/{attempt}/heartbeat": report("heartbeat"),
    "POST /v1/work/{id}/{attempt}/progress": report("progress", done=1),
    "POST /v1/work/{id}/{attempt}/log": report("log", lines=[{"message": "a line"}]),
    "POST /v1/work/{id}/{attempt}/step": report("step", name="first", number=0),
    "POST /v1/work/{id}/{attempt}/artifact": artifact_report,
    "POST /v1/work/{id}/{attempt}/breaker": report("breaker", name="b", state="open", failures=1),
    "POST /v1/work/{id}/{attempt}/complete": report("complete"),
    "POST /v1/work/{id}/{attempt}/fail": report("fail", code="x", message="no"),
    "POST /v1/work/{id}/{attempt}/cancelled": cancelled_report,
    "POST /v1/work/{id}/{attempt}/release": report("release", reason="stopping"),
    "GET /v1/types": plain("/v1/types"),
    "POST /v1/types/{type}/pause": plain("/v1/types/far/pause"),
    "POST /v1/types/{type}/resume": plain("/v1/types/far/resume"),
    "GET /v1/queues": plain("/v1/queues"),
    "POST /v1/queues/{queue}/pause": plain("/v1/queues/mail/pause"),
    "POST /v1/queues/{queue}/resume": plain("/v1/queues/mail/resume"),
    "POST /v1/keys": plain("/v1/keys", {"name": "spare"}),
    "GET /v1/keys": plain("/v1/keys"),
    "DELETE /v1/keys/{key_id}": about("make_key", "/v1/keys/{}"),
    "POST /v1/session": log_in,
    "GET /v1/session": plain("/v1/session"),
    "DELETE /v1/session": plain("/v1/session"),
    "POST /v1/views/rebuild": plain("/v1/views/rebuild"),
    "GET /api/jobs": plain("/api/jobs"),
    "DELETE /api/job/{id}": about("claim", "/api/job/{}"),
    "POST /api/queue-job": plain("/api/queue-job", {"text": "a text"}),
    "GET /api/job-status/{id}": about("claim", "/api/job-status/{}"),
    "GET /api/jobs/{id}": about("claim", "/api/jobs/{}"),
    "GET /jobs/{id}": about("claim", "/jobs/{}"),
    "POST /api/jobs/{id}/retry": about("cancel", "/api/jobs/{}/retry"),
    "POST /api/jobs/{id}/cancel": about("claim", "/api/jobs/{}/cancel"),
    "POST /api/jobs/{id}/callback": about("claim", "/api/jobs/{}/callback", {"progress": 1}),
    "POST /api/upload": plain("/api/upload", form_with_file("a.csv", b"a,b\n1,2\n")),
    **{
        f"POST {prefix}{each.path}": plain(f"{prefix}{each.path.format(case_id=7)}")
        for each in CASE_ROUTES
        for prefix in ("", "/api")
    },
    "GET /health": plain("/health"),
    "POST /api/cancel": about("claim", "/api/cancel?jobId={}"),
    "GET /api/results/{id}/result.json": about("complete_job", "/api/results/{}/result.json"),
    "GET /api/results/{id}/error.json": about("fail_job", "/api/results/{}/error.json"),
    "GET /healthz": plain("/healthz"),
    "GET /readyz": plain("/readyz"),
    "GET /openapi.json": plain("/openapi.json"),
    "GET /": plain("/"),
    "GET /login": plain("/login"),
    "GET /login.js": plain("/login.js"),
    "GET /dashboard.js": plain("/dashboard.js"),
    "GET /dashboard.css": plain("/dashboard.css"),
    "GET /poll.js": plain("/poll.js"),
}
MEDIA_TYPES = {
    "POST /v1/artifacts": "application/octet-stream",
    "POST /v1/jobs/batch": "application/x-ndjson",
    "POST /api/upload": FORM_TYPE,
}


async def open_site(client: Connect, clock: FakeClock, auth: str, owner: str) -> Site:
    api = await client(
        FAR,
        echo,
        *CASES,
        NIGHTLY,
        clock=clock,
        auth=auth,
        concurrency=0,
        dialects="all",
        queue_job_type="echo",
        upload_type="echo",
        outbound_allow="127.0.0.1:9",
    )
    service = api.service
    expiry = parse_rfc3339(rfc3339(clock.now_us() + 1_000_000))
    keys = {
        "owner": await make_key(service, owner="ann"),
        "other": await make_key(service, owner="bob"),
        "worker": await make_key(service, ["worker:far"], owner="build"),
        "auditor": await make_key(service, [Scope.AUDIT], owner="audit"),
        "admin": await make_key(service, [Scope.ADMIN], owner="ops"),
        "expired": await make_key(service, owner="ann", expires_at=expiry),
        "revoked": await make_key(service, owner="ann"),
    }
    await clock.advance(2.0)
    headers = {name: bearer(key) for name, key in keys.items()} | {"nobody": {}, "optional": {}}
    await service.api_keys.revoke(id_of(keys["revoked"]), actor="test")
    return Site(api, headers, owner)


async def status_of(site: Site, route: str, principal: str) -> str:
    site.principal = principal
    path, body = await REQUESTS[route](site)
    headers = dict(site.headers[principal])
    if isinstance(body, bytes):
        headers["Content-Type"] = MEDIA_TYPES[route]
    reply = await site.api(route.partition(" ")[0], path, body, headers=headers)
    return str(reply.status)


@pytest.mark.parametrize("principal", PRINCIPALS)
async def test_every_route_answers_a_principal_as_the_table_says(
    client: Connect, principal: str
) -> None:
    site = await open_site(client, FakeClock(), "required", "owner")
    column = 1 + COLUMNS.index(principal)
    statuses = {route: await status_of(site, route, principal) for route in TABLE}
    assert statuses == {route: cells[column] for route, cells in TABLE.items()}


async def test_every_route_answers_a_request_without_credential_in_optional_mode(
    client: Connect,
) -> None:
    site = await open_site(client, FakeClock(), "optional", "optional")
    statuses = {route: await status_of(site, route, "optional") for route in TABLE}
    assert statuses == {route: cells[-1] for route, cells in TABLE.items()}
