"""Events by page, filtered and awaited."""

import asyncio

import pytest

from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.http_jobs import HANDLERS, NOBODY, ended_job
from tests.support.waiting import time_passing


async def test_facts_come_by_page_and_say_when_they_end(client: Connect) -> None:
    api = await client(*HANDLERS)
    job = await ended_job(api, await api.submit("echo", "x"))
    address = job["links"]["events"]
    whole = (await api.get(address)).json
    assert [each["type"] for each in whole["events"]] == [
        "JobSubmitted",
        "AttemptStarted",
        "JobCompleted",
    ]
    assert (whole["next"], whole["head"], whole["end"]) == (3, 3, True)
    first = (await api.get(f"{address}?limit=2")).json
    assert (first["events"], first["next"], first["end"]) == (whole["events"][:2], 2, False)
    rest = (await api.get(f"{address}?after=2")).json
    assert (rest["events"], rest["end"]) == (whole["events"][2:], True)
    nothing = (await api.get(f"{address}?after=3&wait=20")).json
    assert (nothing["events"], nothing["next"], nothing["end"]) == ([], 3, True)


async def test_facts_are_the_bytes_that_were_recorded(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    await api.submit("echo", {"b": 1, "a": [1.0, "\u00fc"]})
    recorded = await api.service.log.read(0)
    reply = await api.get("/v1/events")
    assert reply.body.startswith(b'{"events":[' + recorded[0].json() + b'],"next":1')


async def test_facts_of_all_jobs_can_be_narrowed_down(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    ids = [(await api.submit(each))["job_id"] for each in ("echo", "fail", "echo", "fail")]

    async def positions(query: str) -> tuple[list[int], int]:
        page = (await api.get(f"/v1/events?{query}")).json
        assert page["head"] == 4
        assert page["end"] is False
        return [each["position"] for each in page["events"]], page["next"]

    assert await positions("") == ([1, 2, 3, 4], 4)
    assert await positions("after=1&limit=2") == ([2, 3], 3)
    assert await positions("type=fail") == ([2, 4], 4)
    assert await positions("type=fail&limit=1") == ([2], 2)
    assert await positions("type=fail,echo&after=4") == ([], 4)
    assert await positions(f"id={ids[0]},{ids[3]}") == ([1, 4], 4)
    assert await positions(f"id={ids[0]},{ids[3]}&limit=1") == ([1], 1)
    assert await positions(f"id={ids[0]}&type=fail") == ([], 4)
    reply = await api.get(f"/v1/events?id={NOBODY}")
    assert (reply.status, reply.code) == (404, "job_not_found")


@pytest.mark.parametrize("which", ["/v1/events?", "/v1/events?type=fail&", "{self}/events?"])
async def test_facts_can_be_waited_for(client: Connect, which: str) -> None:
    api = await client(*HANDLERS, concurrency=0)
    job = await api.submit("fail")
    address = which.replace("{self}", job["links"]["self"])
    poll = asyncio.create_task(api.get(f"{address}after=1&wait=20"))
    await api.wait_for_long_poll()
    await api.submit("echo") if "type" in which else None
    await api("POST", f"{job['links']['self']}/cancel")
    page = (await poll).json
    assert [each["type"] for each in page["events"]] == ["JobCancelled"]


async def test_waiting_for_facts_ends(client: Connect, clock: FakeClock) -> None:
    api = await client(*HANDLERS, clock=clock, concurrency=0)
    job = await api.submit("echo")
    for address in ("/v1/events", "/v1/events?type=fail", f"{job['links']['self']}/events"):
        join = "&" if "?" in address else "?"
        reply = await time_passing(clock, api.get(f"{address}{join}after=1&wait=3"), 1.0)
        assert (reply.json["events"], reply.json["next"]) == ([], 1)


async def test_a_position_of_another_log_is_refused(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    job = await api.submit("echo")
    for address in ("/v1/events", f"{job['links']['self']}/events"):
        for after in (2, 2**62):
            reply = await api.get(f"{address}?after={after}")
            assert (reply.status, reply.code) == (400, "bad_cursor")
        for wrong in ("-1", str(2**80), "x"):
            reply = await api.get(f"{address}?after={wrong}")
            assert (reply.status, reply.fields) == (422, ["after"])
