"""The client's commands and queries, with a real service."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from eventjobs.client import ApiError, Client, Unreachable
from eventjobs.errors import InvalidInput


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


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
    artifacts: dict[str, Path | bytes | str] = {"big.bin": big, "small": b"xyz", "known": sha256}
    job = await client.submit("sizes", artifacts=artifacts)
    job = await client.wait(job["job_id"])
    assert job["result"] == {"big.bin": 2**20, "small": 3, "known": 5}
    for name, content in (("copy of big.bin", big.read_bytes()), ("copy of small", b"xyz")):
        size = await client.download(job["job_id"], name, tmp_path / "fetched")
        assert (tmp_path / "fetched").read_bytes() == content
        assert size == len(content)


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
    history = await client.history(job_id)
    assert "asked to stop: enough" in [each["text"] for each in history["entries"]]
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
