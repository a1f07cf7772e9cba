"""What the client asks a real service, and what comes of it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from eventjobs import Context, JobError, Service, Settings, handler
from eventjobs.client import ApiError, Client, LogChanged, Unreachable
from eventjobs.errors import InvalidInput
from eventjobs.http import serve


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    context.progress(1, 2, stage="echoing")
    return payload


@handler("sizes")
async def sizes(context: Context, payload: Any) -> Any:
    for each in context.spec.artifacts:
        content = await asyncio.to_thread(context.input(each.name).read_bytes)
        await context.artifact(f"copy of {each.name}", content)
    return {each.name: each.size for each in context.spec.artifacts}


@handler("fail", max_attempts=1)
async def fail(context: Context, payload: Any) -> None:
    raise JobError("broken", "it does not work")


@handler("for ever")
async def for_ever(context: Context, payload: Any) -> None:
    context.progress(stage="waiting")
    await asyncio.Event().wait()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    settings = Settings(progress_interval_s=0.0, drain_s=0.0, page_max=5)
    handlers = [echo, sizes, fail, for_ever]
    async with Service(tmp_path / "data", handlers, settings=settings) as service:
        yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    listening = await serve(service, "127.0.0.1", 0)
    try:
        async with Client(f"http://127.0.0.1:{listening.port}/") as client:
            yield client
    finally:
        await listening.close()


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


# --- commands and questions


async def test_a_job_that_was_submitted_is_waited_for(client: Client) -> None:
    job = await client.submit("echo", {"a": [1, 2.5, None]}, tags=["x"], priority=2)
    assert job["status"] == "queued"
    job = await client.wait(job["job_id"])
    assert (job["status"], job["result"]) == ("completed", {"a": [1, 2.5, None]})
    assert (job["tags"], job["priority"]) == (["x"], 2)
    assert await client.wait(job["job_id"]) == job
    assert await client.get(job["job_id"]) == job


async def test_files_are_uploaded_with_a_submission_and_results_downloaded(
    client: Client, tmp_path: Path
) -> None:
    big = tmp_path / "big.bin"
    big.write_bytes(bytes(range(256)) * 4096)
    sha256 = await client.upload(b"known")
    given: dict[str, Path | bytes | str] = {"big.bin": big, "small": b"xyz", "known": sha256}
    job = await client.submit("sizes", artifacts=given)
    job = await client.wait(job["job_id"])
    assert job["result"] == {"big.bin": 2**20, "small": 3, "known": 5}
    for name, there in (("copy of big.bin", big.read_bytes()), ("copy of small", b"xyz")):
        size = await client.download(job["job_id"], name, tmp_path / "fetched")
        assert (tmp_path / "fetched").read_bytes() == there
        assert size == len(there)


async def test_what_is_missing_is_not_downloaded_over_what_is_there(
    client: Client, tmp_path: Path
) -> None:
    job = await client.submit("echo")
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(ApiError) as refused:
        await client.download(job["job_id"], "no such file", tmp_path / "file")
    assert (refused.value.status, refused.value.code) == (404, "artifact_not_found")
    assert "file.part" not in names(tmp_path)
    assert (tmp_path / "file").read_bytes() == b"old"


async def test_one_key_is_one_job(client: Client) -> None:
    first = await client.submit("echo", 1, idempotency_key='a "key" \\')
    again = await client.submit("echo", 1, idempotency_key='a "key" \\')
    assert first["job_id"] == again["job_id"]
    with pytest.raises(ApiError) as refused:
        await client.submit("echo", 2, idempotency_key='a "key" \\')
    assert (refused.value.status, refused.value.code) == (422, "idempotency_key_reused")
    with pytest.raises(InvalidInput):
        await client.submit("echo", 2, idempotency_key="a\r\nX-Header: b")


async def test_a_refusal_names_the_fields(client: Client) -> None:
    with pytest.raises(ApiError) as refused:
        await client.submit("echo", priority="high", colour="red")
    assert refused.value.code == "invalid_input"
    assert {each["field"] for each in refused.value.errors} == {"priority", "colour"}
    assert refused.value.request_id
    with pytest.raises(ApiError) as refused:
        await client.get("00000000-0000-4000-8000-000000000000")
    assert (refused.value.status, refused.value.code) == (404, "job_not_found")


async def test_what_json_cannot_hold_is_not_sent(client: Client) -> None:
    for value in (float("nan"), 2**70, object()):
        with pytest.raises(InvalidInput, match="JSON"):
            await client.submit("echo", {"a": value})


async def test_a_delay_is_a_time_of_the_service(client: Client) -> None:
    job = await client.submit("echo", delay_s=3600)
    assert (job["status"], job["run_at"] > job["created_at"]) == ("queued", True)


async def test_jobs_are_listed_page_by_page(client: Client) -> None:
    ids = [(await client.submit("echo", tags=["listed"]))["job_id"] for _ in range(12)]
    await client.submit("fail")
    jobs = [job async for job in client.list(type=["echo", "sizes"], order="oldest", limit=5)]
    assert [job["job_id"] for job in jobs] == ids
    page = await client.page(id=ids[:3], limit=2)
    assert [job["job_id"] for job in page["jobs"]] == [ids[2], ids[1]]
    assert page["next"]
    await asyncio.gather(*map(client.wait, ids))
    assert (await client.counts())["echo"] == {"completed": 12}


async def test_a_job_is_cancelled_retried_and_deleted(client: Client) -> None:
    job_id = (await client.submit("for ever"))["job_id"]
    async for job in client.watch(job_id):
        if job["stage"] == "waiting":
            break
    assert (await client.cancel(job_id, "enough"))["cancel_requested_at"]
    assert (await client.wait(job_id))["status"] == "cancelled"
    assert (await client.retry(job_id))["status"] in ("queued", "running")
    await client.cancel(job_id)
    await client.wait(job_id)
    told = await client.history(job_id)
    assert "asked to stop: enough" in [each["text"] for each in told["entries"]]
    assert await client.delete(job_id) is None
    with pytest.raises(ApiError) as refused:
        await client.wait(job_id)
    assert refused.value.code == "job_gone"


async def test_where_nobody_listens_is_told_at_once(unused_tcp_port: int) -> None:
    async with Client(f"http://127.0.0.1:{unused_tcp_port}") as client:
        with pytest.raises(Unreachable):
            await client.submit("echo")
        with pytest.raises(Unreachable):
            await client.wait("00000000-0000-4000-8000-000000000000")


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://127.0.0.1", "http://", "http://[::"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        Client(url)


async def test_a_session_that_was_given_is_left_open() -> None:
    async with aiohttp.ClientSession() as session:
        async with Client(session=session):
            pass
        assert not session.closed


# --- streams


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
    told = [event["job_id"] async for event in client.events(ids, follow=False)]
    assert set(told) == set(ids)
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
