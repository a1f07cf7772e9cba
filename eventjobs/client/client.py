"""The Python client: submit jobs, follow them, fetch what they made.

    async with Client("http://127.0.0.1:8080") as client:
        job = await client.submit("analyze_csv", artifacts={"data.csv": Path("data.csv")})
        job = await client.wait(job["job_id"])

A job is the dict that the service answers. What the service refuses raises Problem.
"""

import asyncio
import builtins
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from eventjobs.client.admin import AdminAPI
from eventjobs.client.connection import (
    REQUEST,
    TRANSFER,
    ApiError,
    Connection,
    ConnectionLost,
    Unreachable,
    address,
)
from eventjobs.client.requests import (
    BLOCK_BYTES,
    Fields,
    _params,
    _path,
    _quoted,
    _readable,
    _time,
    blocks,
)
from eventjobs.clock import Clock, SystemClock
from eventjobs.domain.events import DELIVERY
from eventjobs.domain.ids import new_id
from eventjobs.domain.job import FINISHED
from eventjobs.domain.validation import read_contents
from eventjobs.durability import replace
from eventjobs.errors import EventjobsError
from eventjobs.storable import storable_json

__all__ = ["ApiError", "Client", "ConnectionLost", "LogChanged", "Unreachable"]

DEFAULT_URL = "http://127.0.0.1:8080"


class LogChanged(EventjobsError):
    """The position to continue from is not one of this log; begin again, from 0."""

    code = "log_changed"


class Client(AdminAPI):
    """Use it as `async with Client(url) as client`.

    A stream that breaks is continued where it was, however long that takes; *lost* is told the
    seconds until the next attempt. One that says nothing for *silence_s* counts as broken.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        session: aiohttp.ClientSession | None = None,
        clock: Clock | None = None,
        silence_s: float = 60.0,
        lost: Callable[[float], object] | None = None,
    ) -> None:
        self.url = address(url)
        self._session = session
        self._ours: aiohttp.ClientSession | None = None
        self._clock = clock or SystemClock()
        self._silence_s = silence_s
        self.lost = lost or (lambda delay_s: None)

    _http: Connection

    @property
    def known(self) -> bool:
        """Whether it was eventjobs that answered."""
        return self._http.known

    async def __aenter__(self) -> Self:
        if self._session is None:
            # No limit on connections: streams keep theirs, and must not starve requests.
            self._ours = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=REQUEST
            )
        session = self._session or self._ours
        assert session is not None
        self._http = Connection(session, self.url, self._clock, self._silence_s, self._tell_lost)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._ours is not None:
            await self._ours.close()
            self._ours = None

    def _tell_lost(self, delay_s: float) -> None:
        self.lost(delay_s)

    # --- commands

    async def submit(
        self,
        type: str,
        payload: Any = None,
        *,
        idempotency_key: str | None = None,
        job_id: str | None = None,
        artifacts: Mapping[str, Path | bytes | str] | None = None,
        **fields: Any,
    ) -> Fields:
        """Submit a job; *fields* are further ones of a submission: tags, priority, run_at, …

        *artifacts* are files by name: a path or bytes, which are uploaded first, or the sha256
        of what was. Raises Problem, Unreachable, and InvalidInput for what JSON cannot hold.
        """
        if (at := fields.get("run_at")) is not None and not issubclass(builtins.type(at), str):
            fields["run_at"] = _time(at, "run_at")
        spec = storable_json({"type": type, "payload": payload, **fields})
        if artifacts is not None:
            given = read_contents(artifacts, "artifacts").items()
            spec["artifacts"] = {name: await self.upload(each) for name, each in given}
        if idempotency_key is not None:
            headers = {"Idempotency-Key": _quoted(idempotency_key)}
            return await self._http.call("POST", "/v1/jobs", json=spec, headers=headers)
        if job_id is None and "delay_s" in spec:  # it counts from now: repeated, it is another job
            return await self._http.call("POST", "/v1/jobs", json=spec, again=False)
        # Under an id of ours the submission can be sent again, when the answer does not come.
        return await self._http.call(
            "PUT", _path(new_id(self._clock.now_us()) if job_id is None else job_id), json=spec
        )

    async def upload(self, content: Path | bytes | str) -> str:
        """The sha256 under which *content* is now kept; a string is one already."""
        if isinstance(content, str):
            return content
        if isinstance(content, Path):
            await asyncio.to_thread(_readable, content)
        stored = await self._http.call(
            "POST",
            "/v1/artifacts",
            data=lambda: content if isinstance(content, bytes) else blocks(content),
            headers={"Content-Type": "application/octet-stream"},
            timeout=TRANSFER,
        )
        return str(stored["sha256"])

    async def cancel(self, job_id: str, reason: str | None = None) -> Fields:
        """The job, cancelled or asked to stop."""
        return await self._http.call("POST", _path(job_id, "cancel"), json={"reason": reason})

    async def retry(
        self,
        job_id: str,
        reason: str | None = None,
        *,
        from_step: str | None = None,
        restart: bool = False,
    ) -> Fields:
        """The job, queued again: after its completed steps, from one of them, or from the start."""
        how = {"reason": reason, "from_step": from_step, "restart": restart}
        # Not sent again: meanwhile it may have been queued, run, and failed once more.
        return await self._http.call("POST", _path(job_id, "retry"), json=how, again=False)

    async def delete(self, job_id: str) -> Fields | None:
        """None once it is hidden; the job, while it runs and was asked to stop."""
        return await self._http.call("DELETE", _path(job_id)) or None

    # --- streams

    async def events(
        self, ids: str | Iterable[str] | None = None, *, after: int = 0, follow: bool = True
    ) -> AsyncGenerator[Fields, None]:
        """The facts of these jobs, or of all, in order, none missing and none twice.

        Ends when the named jobs have ended; without *follow*, at the newest fact there is.
        Raises LogChanged when *after* is not a position of this log.
        """
        path, params = "/v1/events", {}
        if isinstance(ids, str):
            path = _path(ids, "events")
        elif ids is not None and not (params := _params(id=ids))["id"]:
            return  # no id would be everybody's
        async with aclosing(self._facts(path, params, after, follow=follow)) as events:
            async for event in events:
                yield event

    async def logs(
        self, job_id: str, *, after: int = 0, follow: bool = True
    ) -> AsyncGenerator[Fields, None]:
        """The lines of a job's log, as *events* gives facts."""
        path = _path(job_id, "logs")
        async with aclosing(self._facts(path, {}, after, follow=follow)) as lines:
            async for line in lines:
                yield line

    async def _facts(
        self, path: str, params: Fields, after: int, *, follow: bool
    ) -> AsyncGenerator[Fields, None]:
        if not follow:
            async for event in self._pages(path, params, after):
                yield event
            return
        async with aclosing(self._http.messages(path, params, after)) as messages:
            async for message in messages:
                if message.event == "reset":
                    raise LogChanged
                if message.event == "event":
                    event = orjson.loads(message.data)
                    if event["position"] > after:
                        after = event["position"]
                        yield event

    async def watch(
        self,
        ids: str | Iterable[str] | None = None,
        *,
        after: int = 0,
        gone: bool = False,
        **filters: Any,
    ) -> AsyncGenerator[Fields, None]:
        """The jobs as they are now, and again whenever one changes; changes may be skipped over.

        Ends when all the named jobs have ended; a selection by filters (type, status, tag,
        owner, queue) never does. Given *after*, only what changed since that position. With
        *gone*, a job that was deleted or has expired is given, too: as `job_id`, `status` "gone",
        `expired_at` and `position`, and no more.
        """
        params = _params(id=[ids] if isinstance(ids, str) else ids, **filters)
        if params.get("id") == "":
            return
        async with aclosing(self._http.messages("/v1/jobs", params, after)) as messages:
            async for message in messages:
                if message.event == "job":
                    yield orjson.loads(message.data)
                elif message.event == "gone" and gone:
                    yield {**orjson.loads(message.data), "status": "gone"}

    async def wait(self, job_id: str) -> Fields:
        """The job, once it has ended."""
        async with aclosing(self.watch(job_id)) as snapshots:
            async for job in snapshots:
                if job["status"] in FINISHED:
                    return job
        return await self.get(job_id)

    # --- questions

    async def get(self, job_id: str) -> Fields:
        return await self._http.call("GET", _path(job_id))

    async def page(self, *, cursor: str | None = None, **filters: Any) -> Fields:
        """One page of jobs: `jobs`, `next` (the cursor of the next page) and `position`.

        *filters*: id, status, type, tag, owner, queue, since, until, order, limit.
        """
        return await self._http.call("GET", "/v1/jobs", params=_params(cursor=cursor, **filters))

    async def list(self, **filters: Any) -> AsyncGenerator[Fields, None]:
        """All jobs that match, page by page."""
        cursor = None
        while True:
            page = await self.page(cursor=cursor, **filters)
            for job in page["jobs"]:
                yield job
            cursor = page["next"]
            if cursor is None:
                return

    async def deliveries(self, webhook_id: str, **filters: Any) -> AsyncGenerator[Fields, None]:
        """The messages to a webhook, which are jobs; *filters* as for *list*."""
        await self.webhook(webhook_id)  # none at all is something else than no such webhook
        tag = f"webhook:{webhook_id}"
        async with aclosing(self.list(type=DELIVERY, tag=tag, **filters)) as found:
            async for job in found:
                yield job

    async def counts(self) -> dict[str, dict[str, int]]:
        """Jobs by type and status."""
        counted: dict[str, dict[str, int]] = (await self._http.call("GET", "/v1/counts"))["counts"]
        return counted

    async def history(self, job_id: str) -> Fields:
        return await self._http.call("GET", _path(job_id, "history"))

    async def why(self, job_id: str) -> Fields:
        """The `reasons` for which the job is where it is."""
        return await self._http.call("GET", _path(job_id, "why"))

    async def receipt(self, job_id: str) -> Fields:
        """Every attempt, with what overlaps and what came too late; `text` has it in lines."""
        return await self._http.call("GET", _path(job_id, "receipt"))

    async def download(self, job_id: str, name: str, to: Path) -> int:
        """Write an artifact of the job to *to*, which appears once it is whole; its bytes."""
        part = to.with_name(f"{to.name}.part")
        path = _path(job_id, "artifacts", name)
        async with self._http.request("GET", path, timeout=TRANSFER) as response:
            file = await asyncio.to_thread(part.open, "wb")
            try:
                size = 0
                async for block in response.content.iter_chunked(BLOCK_BYTES):
                    size += await asyncio.to_thread(file.write, block)
                await asyncio.to_thread(file.close)
                await asyncio.to_thread(replace, part, to)
            except BaseException:
                await asyncio.to_thread(file.close)
                await asyncio.to_thread(part.unlink, missing_ok=True)
                raise
        return size

    async def _pages(self, path: str, params: Fields, after: int) -> AsyncGenerator[Fields, None]:
        head = None
        while head is None or after < head:
            asked = {**params, "after": str(after), "limit": "1000"}
            page = await self._http.call("GET", path, params=asked)
            head = head or page["head"]
            for event in page["events"]:
                yield event
            if page["end"] or page["next"] == after:
                return
            after = page["next"]
