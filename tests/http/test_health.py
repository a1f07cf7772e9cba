"""Counts, readiness, liveness, and the rebuild of the views."""

import pytest

from eventjobs.auth.principals import Scope
from eventjobs.projections import Views
from eventjobs.projections.parked_events import ParkedEvent
from tests.conftest import Connect
from tests.support.http_jobs import HANDLERS
from tests.support.keys import bearer, make_key


async def test_counts_follow_the_jobs(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    first = await api.submit("echo")
    await api.submit("echo")
    await api.submit("fail")
    await api("POST", f"{first['links']['self']}/cancel")
    reply = await api.get("/v1/counts")
    assert reply.json == {
        "counts": {"echo": {"cancelled": 1, "queued": 1}, "fail": {"queued": 1}},
        "position": 4,
    }


async def test_views_are_rebuilt_on_request(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    job = await api.submit("echo")
    reply = await api("POST", "/v1/views/rebuild")
    assert (reply.status, reply.json) == (200, {"position": 1})
    assert (await api.get(job["links"]["self"])).json == job


async def test_it_is_ready_until_it_closes_and_alive_all_the_time(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    await api.submit("echo")
    await api.service.views.wait_for_position(1)
    readiness = (await api.get("/readyz")).json
    assert readiness.pop("version")
    assert readiness == {
        "ready": True,
        "log_position": 1,
        "views_position": 1,
        "lag": 0,
        "running": 0,
        "writable": True,
        "unwritable": None,
        "views_failing": None,
        "recovered": True,
        "parked": {"count": 0, "first": []},
    }
    await api.service.close()
    reply = await api.get("/readyz")
    assert (reply.status, reply.code) == (503, "not_ready")
    assert (await api.get("/healthz")).json == {"status": "ok"}


async def test_parked_events_are_listed_for_those_who_may_read_all_jobs(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    parked = ParkedEvent(7, "01900000-0000-7000-8000-000000000000", "JobSubmitted", "not JSON")

    async def parked_events(views: Views, limit: int) -> tuple[int, list[ParkedEvent]]:
        return 1, [parked][:limit]

    monkeypatch.setattr(Views, "parked_events", parked_events)
    api = await client(auth="required")
    user, auditor = await make_key(api.service), await make_key(api.service, [Scope.AUDIT])
    for headers in ({}, bearer(user), bearer("unknown")):
        reply = await api("GET", "/readyz", headers=headers)
        assert reply.json["parked"] == {"count": 1, "first": []}
    reply = await api("GET", "/readyz", headers=bearer(auditor))
    assert reply.json["parked"]["first"] == [parked._asdict()]
