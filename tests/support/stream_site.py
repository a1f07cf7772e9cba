"""The service of the stream tests, on loopback; its jobs are changed by the tests alone."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from eventjobs import http
from eventjobs.clock import Clock
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.events import AttemptFailed, Event, LogWritten, ProgressReported
from eventjobs.domain.job import Job, Status
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import Rejected
from eventjobs.http.streams.streams import Streams
from eventjobs.service import Service
from eventjobs.settings import Settings
from tests.support.histories import job_id
from tests.support.stream_reader import Chunks, Head, Message, Stream, request

ME = "tester"
EVENTS = "/v1/events"
LINE = LogWritten(1, "info", "x" * 100)


@dataclass
class Site:
    """A service without handlers, and the streams that a test has opened."""

    service: Service
    streams: Streams
    port: int
    close: Callable[[], Any]
    opened: list[Stream] = field(default_factory=list)

    @property
    def jobs(self) -> Jobs:
        return self.service.jobs

    @property
    def head(self) -> int:
        return self.service.log.head

    async def open(self, path: str, last_id: str | int | None = None, **options: Any) -> Stream:
        """A stream, or another response."""
        last_id = None if last_id is None else str(last_id)
        stream = await Stream.open(self.port, path, last_id=last_id, **options)
        self.opened.append(stream)
        return stream

    async def watch(self, path: str, last_id: str | int | None = None, **options: Any) -> Stream:
        """A stream whose status is 200."""
        stream = await self.open(path, last_id, **options)
        assert stream.status == 200
        return stream

    async def get(self, path: str, **options: Any) -> tuple[Head, bytes]:
        """The head and the body of a response."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        headers = {
            "Accept": "application/json",
            "Connection": "close",
            **options.pop("headers", {}),
        }
        writer.write(request(path, headers=headers, **options))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        response = Head.parse(head + b"\r\n\r\n")
        chunked = "transfer-encoding" in response.headers
        return response, Chunks().feed(body) if chunked else body

    async def json(self, path: str) -> Any:
        head, body = await self.get(path)
        assert head.status == 200, body
        return orjson.loads(body)

    async def facts(self, after: int = 0) -> list[Recorded]:
        """All events after that position."""
        facts: list[Recorded] = []
        while page := await self.service.log.read(facts[-1].position if facts else after, 1000):
            facts += page
        return facts

    # --- what happens to jobs

    async def submit(self, type: str = "a", number: int | None = None, **spec: Any) -> str:
        job_spec = JobSpec(type, max_attempts=3, **spec)
        id = None if number is None else job_id(number)
        return (await self.jobs.submit(job_spec, job_id=id, actor=ME)).job.job_id

    async def start(self, *ids: str) -> None:
        for each in ids:
            await self.jobs.start(each, worker=ME)

    async def write_lines(self, id: str, *texts: str) -> None:
        """Write lines to the log of a running job."""
        job = await self.jobs.load(id)
        assert job is not None
        for text in texts:
            await self.jobs.report(id, LogWritten(job.attempt, "info", text), actor=ME)

    async def append_many(self, id: str, count: int, event: Event = LINE) -> None:
        """Record the same event of a running job many times, in one go."""
        job = await self.jobs.current(id)
        assert job is not None
        version = job.version
        appends = [self.service.log.append(id, version + n, event, actor=ME) for n in range(count)]
        await asyncio.gather(*appends)
        await self.jobs.current(id)

    async def complete(self, id: str, result: Any = None) -> None:
        job = await self.jobs.load(id)
        assert job is not None
        await self.jobs.complete(id, job.attempt, result, actor=ME)

    async def fail(self, id: str) -> None:
        job = await self.jobs.load(id)
        assert job is not None
        failed = AttemptFailed(job.attempt, "broken", False, None, "it broke")
        await self.jobs.fail(id, failed, actor=ME)

    async def completed_job(self, type: str = "a", **spec: Any) -> str:
        """The id of a completed job with four events."""
        id = await self.submit(type, **spec)
        await self.start(id)
        await self.write_lines(id, "line")
        await self.complete(id, {"n": 1})
        return id

    async def wait_for_views(self) -> None:
        """Wait until the views are at the head."""
        await self.service.views.wait_for_position(self.head)


def events_path(job_id: str) -> str:
    return f"/v1/jobs/{job_id}/events"


def as_messages(events: list[Recorded]) -> list[Message]:
    """The messages that a browser dispatches for *events*."""
    return [Message("event", each.json().decode(), str(each.position)) for each in events]


@asynccontextmanager
async def open_site(path: Path, clock: Clock | None = None, **settings: Any) -> AsyncIterator[Site]:
    all_streams: list[Streams] = []

    class RecordedStreams(Streams):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            all_streams.append(self)

    values = Settings(**{"concurrency": 0, "heartbeat_s": 60.0, "stall_s": 60.0, **settings})
    before = asyncio.all_tasks()
    async with Service(path / "data", settings=values, clock=clock) as service:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(http, "Streams", RecordedStreams)
            listening = await http.serve(service, "127.0.0.1", 0)
        site = Site(service, all_streams[0], listening.port, listening.close)
        try:
            yield site
        finally:
            for each in site.opened:
                each.drop()
            await listening.close()
            await asyncio.gather(*(each.wait_closed() for each in site.opened))
    late: set[Any] = asyncio.all_tasks() - before - {asyncio.current_task()}
    if late:
        _, late = await asyncio.wait(late, timeout=1)
    assert not late, "a task is left"


async def change(jobs: Jobs, rng: random.Random, number: int, *, hide: bool = True) -> None:
    """Submit or change a job in a random way that its state allows."""
    job = await jobs.load(job_id(number))
    with suppress(Rejected):
        await _change(jobs, job, rng, number, hide)


async def _change(jobs: Jobs, job: Job | None, rng: random.Random, number: int, hide: bool) -> None:
    if job is None:
        spec = JobSpec("ab"[number % 2], tags=("t",) * (number % 3), max_attempts=2)
        await jobs.submit(spec, job_id=job_id(number), actor=ME)
        return
    id, attempt = job.job_id, job.attempt
    if job.status == Status.QUEUED:
        if rng.random() < 0.1:
            await jobs.cancel(id, actor=ME)
        else:
            await jobs.start(id, worker=ME)
        return
    if job.finished:
        if hide and rng.random() < 0.05:
            await jobs.expire(id, "over", actor=ME)
        elif rng.random() < 0.5:
            await jobs.retry(id, actor=ME)
        return
    match rng.randrange(12):
        case 0:
            await jobs.complete(id, attempt, {"n": 1}, actor=ME)
        case 1:
            failed = AttemptFailed(attempt, "broken", True, rng.choice((None, 1)))
            await jobs.fail(id, failed, actor=ME)
        case 2:
            await jobs.release(id, attempt, "stop", actor=ME)
        case 3 | 4 | 5:
            await jobs.report(id, ProgressReported(attempt, 1, 9), actor=ME)
        case _:
            line = LogWritten(attempt, "info", "x" * rng.choice((1, 100, 600)))
            await jobs.report(id, line, actor=ME)
