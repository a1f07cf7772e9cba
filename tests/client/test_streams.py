"""The client's streams: events, and snapshots of jobs."""

import asyncio

import orjson
import pytest

from eventjobs import Service
from eventjobs.client import Client, LogChanged


async def test_facts_come_once_in_order_and_end_with_the_job(
    client: Client, service: Service
) -> None:
    job_id = (await client.submit("echo", 1))["job_id"]
    events = [event async for event in client.events(job_id)]
    recorded = [orjson.loads(each.json()) for each in await service.log.read_job(job_id)]
    assert events == recorded
    last = events[-1]["position"]
    assert [e async for e in client.events(job_id, after=events[1]["position"])] == recorded[2:]
    assert [e async for e in client.events(job_id, after=last)] == []
    assert [e async for e in client.events([], after=last)] == []


async def test_all_facts_up_to_now_are_read_in_pages(client: Client, service: Service) -> None:
    jobs = [await client.submit("echo", number) for number in range(6)]
    await asyncio.gather(*(client.wait(job["job_id"]) for job in jobs))
    positions = [event["position"] async for event in client.events(follow=False)]
    assert positions == list(range(1, service.log.head + 1))
    ids = [job["job_id"] for job in jobs[:2]]
    job_ids = [event["job_id"] async for event in client.events(ids, follow=False)]
    assert set(job_ids) == set(ids)
    one = [event["version"] async for event in client.events(ids[0], follow=False)]
    assert one == list(range(1, len(one) + 1))


async def test_a_position_that_the_log_has_not_reached_is_refused(client: Client) -> None:
    job_id = (await client.submit("echo"))["job_id"]
    await client.wait(job_id)
    with pytest.raises(LogChanged):
        await anext(client.events(after=1_000_000))


async def test_watching_several_jobs_ends_when_all_have_ended(client: Client) -> None:
    ids = [(await client.submit(type))["job_id"] for type in ("echo", "fail", "echo")]
    ended = {job["job_id"]: job["status"] async for job in client.watch(ids)}
    assert list(map(ended.get, ids)) == ["completed", "failed", "completed"]
    assert [job async for job in client.watch([])] == []


async def test_who_watches_a_list_can_learn_which_jobs_have_gone(client: Client) -> None:
    job = await client.submit("echo", tags=["t"])
    watched = client.watch(tag="t", gone=True)
    async for each in watched:
        if each["status"] == "completed":
            await client.delete(job["job_id"])
        if each["status"] == "gone":
            break
    await watched.aclose()
    assert each["job_id"] == job["job_id"]
    assert each["position"] > job["position"]
