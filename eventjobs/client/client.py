"""The Python client: submit jobs, follow them, fetch their results.

    async with Client("http://127.0.0.1:8080") as client:
        job = await client.submit("analyze_csv", artifacts={"data.csv": Path("data.csv")})
        job = await client.wait(job["job_id"])

A job is the dict that the HTTP API returns.
"""

import asyncio
import builtins
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Self

import aiohttp

from eventjobs.client.admin import AdminAPI
from eventjobs.client.connection import REQUEST, TRANSFER, Connection
from eventjobs.client.poll import PollAPI, split_address
from eventjobs.client.requests import (
    BLOCK_BYTES,
    JSONObject,
    base_url,
    bearer,
    blocks,
    check_readable,
    format_time,
    job_path,
    query_params,
    quote_key,
)
from eventjobs.clock import Clock, SystemClock
from eventjobs.domain.events import DELIVERY
from eventjobs.domain.ids import new_id
from eventjobs.domain.validation import read_contents
from eventjobs.durability import replace
from eventjobs.storable import storable_json

DEFAULT_URL = "http://127.0.0.1:8080"


class Client(PollAPI, AdminAPI):
    """One service, used as `async with Client(url) as client`.

    A stream that breaks is resumed, however long the service is away; *on_connection_lost* is
    called with the seconds until the next attempt. A stream without a byte for *silence_s* counts
    as broken. *token*, an API key or a JWT, is sent with every request. Every method raises
    ApiError when the service refuses a request, and Unreachable.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        session: aiohttp.ClientSession | None = None,
        clock: Clock | None = None,
        silence_s: float = 60.0,
        on_connection_lost: Callable[[float], object] | None = None,
    ) -> None:
        self.url = base_url(url)
        self._headers = bearer(self.url, token)
        self._session = session
        self._own_session: aiohttp.ClientSession | None = None
        self._clock = clock or SystemClock()
        self._silence_s = silence_s
        self.on_connection_lost = on_connection_lost or (lambda delay_s: None)

    @property
    def is_confirmed(self) -> bool:
        """Whether eventjobs has answered at this address."""
        return self._http.is_confirmed

    async def __aenter__(self) -> Self:
        if self._session is None:
            # No limit on connections: each stream holds one, and must not starve requests.
            self._own_session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=REQUEST
            )
        session = self._session or self._own_session
        assert session is not None
        self._http = Connection(
            session,
            self.url,
            self._clock,
            self._silence_s,
            self._notify_connection_lost,
            self._headers,
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._own_session is not None:
            await self._own_session.close()
            self._own_session = None

    def _notify_connection_lost(self, delay_s: float) -> None:
        self.on_connection_lost(delay_s)  # which may have been set since the start

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
    ) -> JSONObject:
        """Submit a job; *fields* are further ones of a submission: tags, priority, run_at, …

        *artifacts* are files by name: a path or bytes, which are uploaded first, or the sha256 of
        an uploaded file. Raises InvalidInput for what JSON cannot hold.
        """
        if (at := fields.get("run_at")) is not None and not issubclass(builtins.type(at), str):
            fields["run_at"] = format_time(at, "run_at")
        spec = storable_json({"type": type, "payload": payload, **fields})
        if artifacts is not None:
            contents = read_contents(artifacts, "artifacts").items()
            spec["artifacts"] = {name: await self.upload(each) for name, each in contents}
        if idempotency_key is not None:
            headers = {"Idempotency-Key": quote_key(idempotency_key)}
            return await self._http.call("POST", "/v1/jobs", json=spec, headers=headers)
        if job_id is None and "delay_s" in spec:  # relative to now: a repeated one is another job
            return await self._http.call("POST", "/v1/jobs", json=spec, retry=False)
        # With an id from the client, a submission whose response was lost can be repeated.
        return await self._http.call(
            "PUT", job_path(new_id(self._clock.now_us()) if job_id is None else job_id), json=spec
        )

    async def upload(self, content: Path | bytes | str) -> str:
        """Upload *content*; returns its sha256. A string is a sha256 already."""
        if isinstance(content, str):
            return content
        if isinstance(content, Path):
            await asyncio.to_thread(check_readable, content)
        uploaded = await self._http.call(
            "POST",
            "/v1/artifacts",
            data=lambda: content if isinstance(content, bytes) else blocks(content),
            headers={"Content-Type": "application/octet-stream"},
            timeout=TRANSFER,
        )
        return str(uploaded["sha256"])

    async def cancel(self, job_id: str, reason: str | None = None) -> JSONObject:
        """Cancel a job that waits; ask one that runs to stop. Returns the job."""
        return await self._http.call("POST", job_path(job_id, "cancel"), json={"reason": reason})

    async def retry(
        self,
        job_id: str,
        reason: str | None = None,
        *,
        from_step: str | None = None,
        restart: bool = False,
    ) -> JSONObject:
        """Queue a job again: after its completed steps, *from_step*, or from the start."""
        body = {"reason": reason, "from_step": from_step, "restart": restart}
        # Not repeated: after a first request the job may have run and failed again.
        return await self._http.call("POST", job_path(job_id, "retry"), json=body, retry=False)

    async def delete(self, job_id: str) -> JSONObject | None:
        """Hide a job that has ended: None. Ask one that runs to stop: the job."""
        return await self._http.call("DELETE", job_path(job_id)) or None

    # --- queries

    async def get(self, job_id: str) -> JSONObject:
        return await self._http.call("GET", job_path(job_id))

    async def page(self, *, cursor: str | None = None, **filters: Any) -> JSONObject:
        """One page of jobs: `jobs`, `next` (the cursor of the next page) and `position`.

        *filters*: id, status, type, tag, owner, queue, since, until, order, limit.
        """
        params = query_params(cursor=cursor, **filters)
        return await self._http.call("GET", "/v1/jobs", params=params)

    async def list(self, **filters: Any) -> AsyncGenerator[JSONObject, None]:
        """All jobs that match, page by page; *filters* as for *page*."""
        cursor = None
        while True:
            page = await self.page(cursor=cursor, **filters)
            for job in page["jobs"]:
                yield job
            cursor = page["next"]
            if cursor is None:
                return

    async def deliveries(self, webhook_id: str, **filters: Any) -> AsyncGenerator[JSONObject, None]:
        """The messages to a webhook, which are jobs; *filters* as for *page*."""
        await self.webhook(webhook_id)  # raises if there is no such webhook
        tag = f"webhook:{webhook_id}"
        async with aclosing(self.list(type=DELIVERY, tag=tag, **filters)) as jobs:
            async for job in jobs:
                yield job

    async def counts(self) -> dict[str, dict[str, int]]:
        """Numbers of jobs by type and status."""
        counts: dict[str, dict[str, int]] = (await self._http.call("GET", "/v1/counts"))["counts"]
        return counts

    async def history(self, job_id: str) -> JSONObject:
        """What happened to the job, in sentences, and its attempts."""
        return await self._http.call("GET", job_path(job_id, "history"))

    async def why(self, job_id: str) -> JSONObject:
        """The `reasons` why the job waits, runs or has ended."""
        return await self._http.call("GET", job_path(job_id, "why"))

    async def receipt(self, job_id: str) -> JSONObject:
        """Every attempt, with overlaps and refused late reports; `text` has it in lines."""
        return await self._http.call("GET", job_path(job_id, "receipt"))

    async def download(self, job_id: str, name: str, to: Path) -> int:
        """Write an artifact of the job to *to*, all of it or nothing. Returns its bytes."""
        part = to.with_name(f"{to.name}.part")
        path = job_path(job_id, "artifacts", name)
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


def poll(url: str, *, token: str | None = None, **options: Any) -> JSONObject:
    """Client.poll for scripts without an event loop. *url* is the whole address of the job."""

    async def run() -> JSONObject:
        service, path = split_address(url)
        async with Client(service, token=token) as client:
            return await client.poll(path, **options)

    return asyncio.run(run())
