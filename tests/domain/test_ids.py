"""Only the service makes reserved ids; a client cannot take one first."""

import asyncio
import sqlite3
import uuid
from contextlib import closing
from functools import reduce
from operator import and_, or_
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventjobs.domain import ids as identity
from eventjobs.domain.events import DELIVERY, JobSubmitted, Paused, WebhookAdded
from eventjobs.domain.ids import new_id, parse_chosen_id, parse_id
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import ReservedId
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.schedule import schedule
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.service import Service
from eventjobs.worker.wire import CHILD_HEADER
from tests.conftest import Connect, Serve
from tests.support import remote_worker
from tests.support.clock import FakeClock
from tests.support.http_client import Client
from tests.support.waiting import job_when, time_passing

PARENT = "01900000-0000-7000-8000-000000000001"
#: One id of each kind.
DERIVED = [
    identity.delivery_id(PARENT, 5),
    identity.delivery_id(PARENT, 5, 1),
    identity.firing_id("nightly", "2025-01-01T00:00:00.000000Z"),
    identity.child_id(PARENT, "part"),
    identity.child_id(PARENT, "\0001"),
    identity.switch_id("type", "mail"),
    identity.id_of_key("order-1", "ann"),
]


@handler("ok")
async def ok(context: Context, payload: Any) -> Any:
    return payload


@handler("parent", retry_delay_s=0)
async def parent(context: Context, payload: Any) -> Any:
    return await context.result(await context.submit("ok", "the parent's", name="part"))


@handler("parent in a thread")
def parent_in_a_thread(context: ThreadContext, payload: Any) -> Any:
    return context.result(context.submit("ok", "the parent's", name="part"))


minutely = schedule("minutely", "* * * * *", "ok")


@given(st.lists(st.text(), min_size=1, max_size=4), st.lists(st.text(), min_size=1, max_size=4))
def test_derived_ids_are_uuids_of_their_own_kind_and_differ(one: list[str], two: list[str]) -> None:
    derived = identity._derive(*one)
    assert parse_id(derived) == derived == str(uuid.UUID(derived))
    assert (uuid.UUID(derived).version, uuid.UUID(derived).variant) == (8, uuid.RFC_4122)
    assert identity.is_reserved(derived)
    assert (derived == identity._derive(*two)) == (one == two)


@given(st.uuids() | st.integers(0, 2**40).map(lambda us: uuid.UUID(new_id(us))))
def test_ids_of_clients_are_not_of_that_kind(given: uuid.UUID) -> None:
    assert parse_chosen_id(str(given)) == str(given)


def test_a_new_id_begins_with_its_time_and_ends_with_62_random_bits() -> None:
    """A fixed bit of the last would be the same in all of 200 ids."""
    numbers = [uuid.UUID(new_id(1_735_689_600_123_456)).int for _ in range(200)]
    for number in numbers:
        assert number >> 80 == 1_735_689_600_123
        assert (uuid.UUID(int=number).version, uuid.UUID(int=number).variant) == (7, uuid.RFC_4122)
        assert number >> 66 & 0x3FF == 456
    assert reduce(or_, numbers) - reduce(and_, numbers) == 2**62 - 1


@pytest.mark.parametrize("job_id", DERIVED)
async def test_no_client_gives_such_an_id(client: Connect, job_id: str) -> None:
    api = await client(ok)
    for text in (job_id, job_id.upper(), job_id.replace("-", "")):
        reply = await api("PUT", f"/v1/jobs/{text}", {"type": "ok"})
        assert (reply.status, reply.code) == (422, "reserved_id")
        with pytest.raises(ReservedId):
            await api.service.submit("ok", job_id=text)
    line = orjson.dumps({"type": "ok", "job_id": job_id})
    headers = {"Content-Type": "application/x-ndjson"}
    reply = await api("POST", "/v1/jobs/batch", data=line, headers=headers)
    assert b'"reserved_id"' in reply.body
    assert api.service.log.head == 0


# --- children


@pytest.mark.parametrize("parent_handler", [parent, parent_in_a_thread])
async def test_a_child_cannot_be_preempted(client: Connect, parent_handler: Any) -> None:
    """Neither under its id nor under its legacy id."""
    api = await client(ok, parent_handler)
    job_id = "01900000-0000-7000-8000-000000000002"
    for taken in (identity.legacy_child_id(job_id, "part"), identity.child_id(job_id, "part")):
        await api("PUT", f"/v1/jobs/{taken}", {"type": "ok", "payload": "a stranger's"})
    await api("PUT", f"/v1/jobs/{job_id}", {"type": parent_handler.type})
    assert (await api.service.wait(job_id)).result == "the parent's"


async def put_child(api: Client, job_id: str, spec: Any, **named: Any) -> Any:
    headers = {
        CHILD_HEADER: urlencode({"attempt": 1, "worker": remote_worker.WORKER, "name": "a"} | named)
    }
    return await api("PUT", f"/v1/jobs/{job_id}", spec, headers=headers)


async def test_a_worker_submits_children_of_what_it_holds_alone(client: Connect) -> None:
    api = await client(ok, worker_types="far")
    held = await remote_worker.submit_and_claim(api)
    spec = {"type": "ok", "parent": held}
    job_id = identity.child_id(held, "a")
    for wrong in (
        {"name": "b"},
        {"parent": "01900000-0000-7000-8000-000000000002"},
        {"attempt": "x"},
    ):
        reply = await put_child(api, job_id, spec, **{"parent": held, **wrong})
        assert (reply.status, reply.code) == (422, "reserved_id"), wrong
    reply = await put_child(api, identity.switch_id("type", "ok"), spec, parent=held)
    assert reply.code == "reserved_id"
    reply = await put_child(api, job_id, {"type": "ok"}, parent=held)
    assert reply.code == "reserved_id", "it is no child"
    for stale in ({"attempt": 2}, {"attempt": 10**30}, {"worker": "another"}):
        reply = await put_child(api, job_id, spec, **{"parent": held, **stale})
        assert (reply.status, reply.code) == (409, "stale_attempt")
    for status in (202, 200):
        reply = await put_child(api, job_id, spec, parent=held)
        assert (reply.status, reply.json["job_id"]) == (status, job_id)
    assert (await remote_worker.report(api, held, "complete")).status == 200
    reply = await put_child(api, identity.child_id(held, "b"), spec, parent=held, name="b")
    assert reply.code == "stale_attempt"


# --- logs of earlier versions


async def pretend_upgrade(service: Service) -> None:
    """Make the log one that an earlier version, without reserved ids, has begun."""
    service.log.reserved_after = service.log.head


async def test_a_child_from_before_an_upgrade_is_found_and_later_ones_are_not_preempted(
    serve: Serve,
) -> None:
    service = await serve(ok, parent, concurrency=0)
    job = await service.submit("parent")
    legacy_id = identity.legacy_child_id(job.job_id, "part")
    spec = JobSpec("ok", "from before", parent=job.job_id, max_attempts=3)
    await service.jobs.submit(spec, actor="worker-1", job_id=legacy_id)
    await pretend_upgrade(service)
    late = identity.legacy_child_id(job.job_id, "late")
    await service.jobs.submit(JobSpec("ok", parent=job.job_id), actor="http", job_id=late)
    assert await service.jobs.child_id(job, "part") == legacy_id
    assert await service.jobs.child_id(job, "late") == identity.child_id(job.job_id, "late")


async def test_the_job_of_a_key_from_before_an_upgrade_is_found(client: Connect) -> None:
    api = await client(ok)
    legacy_id = identity.legacy_id_of_key("order-1")
    await api.service.jobs.submit(JobSpec("ok", max_attempts=3), actor="http", job_id=legacy_id)
    await pretend_upgrade(api.service)
    for key, legacy in (("order-1", True), ("order-2", False), ("order-2", False)):
        taken = identity.legacy_id_of_key(key)
        await api("PUT", f"/v1/jobs/{taken}", {"type": "ok", "payload": "a stranger's"})
        reply = await api("POST", "/v1/jobs", {"type": "ok"}, headers={"Idempotency-Key": key})
        assert (reply.json["job_id"] == taken) is legacy
        assert reply.json["payload"] is None
    assert reply.status == 200, "the second time"


async def test_a_pause_from_before_an_upgrade_holds_and_can_be_ended(client: Connect) -> None:
    api = await client(ok)
    legacy_id = identity.legacy_switch_id("type", "ok")
    await api.service.log.append(legacy_id, 0, Paused("type", "ok", None), actor="http")
    await pretend_upgrade(api.service)
    head = api.service.log.head
    await api("POST", "/v1/types/ok/pause")
    assert api.service.log.head == head, "it is paused already"
    assert (await api("POST", "/v1/types/ok/resume")).json["paused"] is None
    assert (await api.service.wait((await api.submit("ok"))["job_id"])).status == "completed"
    # A job that has the id of another such stream is no pause.
    job_id = identity.legacy_switch_id("queue", "q")
    await api("PUT", f"/v1/jobs/{job_id}", {"type": "ok"})
    assert (await api("POST", "/v1/queues/q/pause")).status == 200


async def test_a_firing_from_before_an_upgrade_is_not_repeated(
    serve: Serve, clock: FakeClock
) -> None:
    at = "2025-01-01T00:00:00.000000Z"
    service = await serve(ok, clock=clock)
    spec = minutely.job(clock.now_us())
    legacy_id = identity.legacy_firing_id("minutely", at)
    await service.jobs.submit(spec, actor=minutely.tag, job_id=legacy_id)
    await time_passing(clock, service.close())
    clock.jump_wall(30)
    again = await serve(ok, minutely, clock=clock)
    await clock.advance(1)
    [status] = await again.cron.statuses()
    assert status.last is not None
    assert status.last.job_id == legacy_id
    assert [type(each.event) for each in await again.log.read(0)].count(JobSubmitted) == 1


async def test_a_delivery_from_before_an_upgrade_is_not_made_twice(client: Connect) -> None:
    api = await client(ok, outbound_allow="127.0.0.0/8")
    added = WebhookAdded(("JobCompleted",), ("ok",), None, "http://127.0.0.1:9/")
    webhook = await api.service.webhooks.add(added, actor="test")
    api.service.webhooks.added.clear()
    next(each for each in api.service.supervisor.tasks if each.get_name() == "webhooks").cancel()
    ended = await api.service.wait((await api.submit("ok"))["job_id"])
    payload = {"webhook": webhook.webhook_id, "position": ended.position}
    legacy_id = identity.legacy_delivery_id(webhook.webhook_id, ended.position)
    spec = JobSpec(DELIVERY, payload, tags=(f"webhook:{webhook.webhook_id}",), max_attempts=10)
    await api.service.jobs.submit(spec, actor="webhooks", job_id=legacy_id)
    await job_when(api.service, legacy_id, lambda job: job.attempt == 1)
    sent = await api.service.deliveries.redeliver(webhook.webhook_id, 0, 10, actor="test")
    assert sent == [legacy_id], "it waits or runs"
    assert (await api.service.webhooks.all())[0].delivered_position == ended.position


def make_old(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM meta WHERE name = 'reserved_after'")


async def test_a_log_remembers_from_where_on_ids_are_reserved(serve: Serve) -> None:
    service = await serve(ok, concurrency=0)
    assert service.log.reserved_after == 0
    await service.submit("ok")
    await service.close()
    again = await serve(ok, concurrency=0)
    assert again.log.reserved_after == 0
    head = again.log.head
    await again.close()
    await asyncio.to_thread(make_old, again.settings.data / "log.db")
    assert (await serve(ok, concurrency=0)).log.reserved_after == head
