"""Streams of jobs that handlers run: many readers, readers that stop reading, a shutdown."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from eventjobs.domain.spec import JobSpec
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.http import serve
from eventjobs.service import Service
from eventjobs.settings import Settings
from tests.support.log_lines import capture_logs
from tests.support.stream_reader import Message, whatwg

HOSTILE = 'cr\rlf\ncrlf\r\nid: 99\n\ndata: x\n\n:\u2028\u2029 "quoted" \U0001f600'

#: Later than any test, and as late as a job may start.
FAR_US = 200_000_000_000_000_000


@handler("steps")
async def steps(ctx: Context, payload: dict[str, int]) -> str:
    for step in range(payload.get("steps", 3)):
        ctx.progress(step, payload.get("steps", 3), stage=f"stage {step}", message=HOSTILE)
        await asyncio.sleep(0)
    return HOSTILE


class RunningSite:
    def __init__(self, service: Service, url: str, session: aiohttp.ClientSession) -> None:
        self.service = service
        self.url = url
        self.session = session

    async def read(self, path: str, after: int | None = None) -> tuple[int, bytes]:
        """The whole of a stream that ends."""
        headers = {"Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        async with self.session.get(self.url + path, headers=headers) as answer:
            return answer.status, await answer.read()

    async def facts(self, path: str, after: int | None = None) -> list[Message]:
        _, stream = await self.read(path, after)
        return [each for each in whatwg(stream) if each.event == "event"]

    async def finished_job(self, count: int = 3) -> str:
        job = await self.service.submit("steps", {"steps": count})
        await self.service.wait(job.job_id)
        return job.job_id


@asynccontextmanager
async def running_site(folder: Path, **settings: float) -> AsyncIterator[RunningSite]:
    values = Settings.model_validate({"data": folder, "progress_interval_s": 0, **settings})
    connector = aiohttp.TCPConnector(limit=0)
    async with Service(None, [steps], settings=values) as service:
        listening = await serve(service, "127.0.0.1", 0)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield RunningSite(service, f"http://127.0.0.1:{listening.port}", session)
        await listening.close()


async def test_what_people_wrote_never_breaks_a_frame(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        job_id = await site.finished_job()
        status, stream = await site.read(f"/v1/jobs/{job_id}/events")
        messages = whatwg(stream)
        slice_ = await site.service.log.read_job(job_id)
        assert status == 200
        assert stream.startswith(b"retry: ")
        assert [each.event for each in messages] == ["event"] * len(slice_) + ["end"]
        assert [each.data.encode() for each in messages[:-1]] == [each.json() for each in slice_]
        assert [each.id for each in messages[:-1]] == [str(each.position) for each in slice_]


async def test_a_reader_resumes_at_every_position(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        job_id = await site.finished_job(5)
        positions = [each.position for each in await site.service.log.read_job(job_id)]
        for after in range(positions[-1]):
            got = await site.facts(f"/v1/jobs/{job_id}/events", after)
            assert [int(each.id) for each in got] == [each for each in positions if each > after]
            by_query = await site.facts(f"/v1/jobs/{job_id}/events?after={after}")
            assert by_query == got
        assert (await site.read(f"/v1/jobs/{job_id}/events", positions[-1]))[0] == 204
        assert (await site.read(f"/v1/jobs/{job_id}", positions[-1]))[0] == 204


@pytest.mark.parametrize("cursor", ["999999", "x", "-1", "9" * 40])
async def test_a_cursor_that_is_none_of_this_log_is_reset(cursor: str, tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        job_id = await site.finished_job()
        headers = {"Accept": "text/event-stream", "Last-Event-ID": cursor}
        path = f"{site.url}/v1/jobs/{job_id}/events"
        async with site.session.get(path, headers=headers) as answer:
            messages = whatwg(await answer.read())
        assert messages[0].event == "reset"
        everything = await site.service.log.read_job(job_id)
        assert [int(each.id) for each in messages if each.event == "event"] == [
            each.position for each in everything
        ]


async def test_unknown_and_hidden_jobs_have_no_stream(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        assert (await site.read("/v1/jobs/" + "0" * 32 + "/events"))[0] == 404
        job_id = await site.finished_job()
        await site.service.jobs.expire(job_id, "deleted", actor="test")
        assert (await site.read(f"/v1/jobs/{job_id}/events"))[0] == 410


async def test_a_thousand_readers_of_one_job_all_get_all_of_it(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        spec = JobSpec("steps", {"steps": 20}, run_at_us=FAR_US, max_attempts=1)
        job, _ = await site.service.jobs.submit(spec, actor="test")
        path = f"/v1/jobs/{job.job_id}/events"
        readers = [asyncio.create_task(site.facts(path)) for _ in range(1000)]
        await site.service.jobs.cancel(job.job_id, "enough", actor="test")
        expected = [each.json().decode() for each in await site.service.log.read_job(job.job_id)]
        for got in await asyncio.gather(*readers):
            assert [each.data for each in got] == expected


async def test_a_reader_that_never_reads_is_bounded_and_dropped(tmp_path: Path) -> None:
    async with running_site(tmp_path, stall_s=0.3, stream_buffer_bytes_max=16_384) as site:
        port = int(site.url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as deaf, capture_logs() as logged:
            deaf.settimeout(1)
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.sendall(
                b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
            )
            for number in range(400):
                spec = JobSpec("steps", {"filler": "x" * 20_000, "n": number}, run_at_us=FAR_US)
                await site.service.jobs.submit(spec, actor="test")
            # The service drops the reader, or the kernel did (TCP_USER_TIMEOUT): the request ends.
            ends = {"reader dropped", "request"}
            while ends.isdisjoint(each["event"] for each in logged):  # noqa: ASYNC110
                await asyncio.sleep(0)
            received = await asyncio.to_thread(_count_bytes, deaf)
        assert received < 1_000_000, "it was dropped long before it was sent everything"
        assert len(await site.service.log.read(0, 1000)) == 400


def _count_bytes(connection: socket.socket) -> int:
    """Bytes that were sent before the service gave up.

    A connection that the kernel ends for the service (TCP_USER_TIMEOUT) falls silent.
    """
    got = 0
    with suppress(ConnectionResetError, TimeoutError):
        while block := connection.recv(65_536):
            got += len(block)
    return got


async def test_shutting_down_ends_every_stream_cleanly_and_spreads_the_return(
    tmp_path: Path,
) -> None:
    settings = Settings.model_validate({"data": tmp_path})
    async with Service(None, [steps], settings=settings) as service:
        listening = await serve(service, "127.0.0.1", 0)
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{listening.port}/v1/events"
            headers = {"Accept": "text/event-stream"}
            answers = [await session.get(url, headers=headers) for _ in range(20)]
            await listening.close()
            endings = [(await answer.read()).decode() for answer in answers]
        retries = {line for each in endings for line in each.splitlines() if "retry" in line}
        assert len(retries) > 10, "they come back at moments of their own"
