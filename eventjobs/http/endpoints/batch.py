"""Many submissions in one request: NDJSON in, NDJSON out, an outcome for each line."""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import orjson
from aiohttp import web

from eventjobs.auth.principals import Principal
from eventjobs.domain.ids import new_id, parse_chosen_id
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import EventjobsError, OutcomeUnknown, TooLarge
from eventjobs.http import problem, slow_clients
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import owner_of, principal_of
from eventjobs.http.json_body import parse, request_limits
from eventjobs.http.rate_limits import QUOTA, Quota
from eventjobs.http.request_body import check_encoding, check_length, check_type, chunks
from eventjobs.http.schemas.submission import BatchLine
from eventjobs.service import Service

NDJSON = "application/x-ndjson"
_NDJSON_TYPES = re.compile(r"application/(?:x-)?(?:ndjson|jsonl|json-?lines)")

#: Lines that are submitted concurrently: enough to fill two commits.
CONCURRENT_LINES_MAX = 2048
#: Bytes of one write: less than the transport's buffer, so that the write does not wait.
WRITE_BYTES = 32_768


async def submit_batch(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Submit a job per line. The answer has an outcome per line, in the same order.

    Lines are accepted or refused independently. A job answered 202 is durable.
    """
    service = context.service
    principal = principal_of(request)
    check_type(request, _NDJSON_TYPES, NDJSON)
    check_encoding(request)
    check_length(request, service.settings.batch_bytes_max)
    response = web.StreamResponse(headers={"Content-Type": NDJSON, "Cache-Control": "no-store"})
    await response.prepare(request)
    outcomes = _Outcomes(service, request, response)
    named: _NamedLines = {}
    number = 0
    quota = None  # the first line is counted with the request
    try:
        async for lines in _lines(service, request):
            for number, line in lines:
                if outcomes.full:
                    await outcomes.drain_half()
                outcome = _submit(service, principal, number, line, named, quota)
                outcomes.append(asyncio.create_task(outcome))
                quota = request.get(QUOTA)
    except EventjobsError as error:
        # The rest of the batch cannot be read: the last outcome holds the error.
        outcomes.append(asyncio.create_task(_unread_line(number + 1, error)))
    finally:
        await outcomes.collect()
    await outcomes.write_all()
    return response


class _Outcomes:
    """The outcomes of a batch, in order. They are buffered while the client does not read.

    Many clients send the whole batch before they read. Waiting for such a client to read would be
    a deadlock, so no write waits before the last line is read. The maximum number of lines bounds
    the buffer.
    """

    def __init__(
        self, service: Service, request: web.Request, response: web.StreamResponse
    ) -> None:
        self._service = service
        self._request = request
        self._response = response
        self._tasks: deque[asyncio.Task[bytes]] = deque()
        self._unwritten = bytearray()

    def append(self, task: asyncio.Task[bytes]) -> None:
        """Add the outcome that *task* returns."""
        self._tasks.append(task)

    @property
    def full(self) -> bool:
        return len(self._tasks) >= CONCURRENT_LINES_MAX

    async def drain_half(self) -> None:
        """Return when half of the lines have their outcomes. The other half keeps the log busy."""
        while len(self._tasks) > CONCURRENT_LINES_MAX // 2:
            self._unwritten += await self._tasks.popleft()
        while len(self._unwritten) >= WRITE_BYTES and self._write_buffer_is_empty():
            await self._response.write(self._unwritten[:WRITE_BYTES])
            del self._unwritten[:WRITE_BYTES]

    def _write_buffer_is_empty(self) -> bool:
        transport = self._request.transport
        return transport is not None and transport.get_write_buffer_size() == 0

    async def collect(self) -> None:
        """Return when every line has its outcome, also after the client has disconnected."""
        while self._tasks:
            self._unwritten += await self._tasks.popleft()

    async def write_all(self) -> None:
        """Write the rest. Raises ConnectionResetError when the client stops reading."""
        for begin in range(0, len(self._unwritten), WRITE_BYTES):
            part = self._unwritten[begin : begin + WRITE_BYTES]
            await slow_clients.write(self._service, self._request, self._response, part)
        await self._response.write_eof()


NumberedLines = list[tuple[int, bytes | None]]
#: The lines that name a job id or key, by job id: the line's number and its task.
_NamedLines = dict[str, tuple[int, asyncio.Task[Any]]]


async def _lines(service: Service, request: web.Request) -> AsyncIterator[NumberedLines]:
    """The numbered lines that are not empty, as they arrive; None for a line that is too long.

    Raises TooLarge beyond the limits of a batch, and as *chunks*.
    """
    settings = service.settings
    number = size = 0
    rest = b""
    skipping = False
    async for chunk in _with_final_newline(chunks(service, request)):
        size += len(chunk)
        beyond = max(0, size - settings.batch_bytes_max - 1)  # 1 for the newline added here
        *whole, rest = (rest + chunk[: len(chunk) - beyond]).split(b"\n")
        lines_left = settings.batch_lines_max - number
        whole, excess = whole[:lines_left], whole[lines_left:]
        lines: NumberedLines = []
        for line in whole:
            number += 1
            if skipping or len(line) > settings.body_bytes_max:
                skipping = False
                lines.append((number, None))
            elif line.strip():
                lines.append((number, line))
        yield lines
        if any(map(bytes.strip, excess)):
            raise TooLarge(f"the batch has more than {settings.batch_lines_max} lines")
        if beyond:
            raise TooLarge(f"the batch has more than {settings.batch_bytes_max} bytes")
        if skipping or len(rest) > settings.body_bytes_max:
            skipping, rest = True, b""


async def _with_final_newline(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """*parts*, and a newline after the last line."""
    async for part in parts:
        yield part
    yield b"\n"


async def _submit(
    service: Service,
    principal: Principal,
    number: int,
    raw: bytes | None,
    named: _NamedLines,
    quota: Quota | None,
) -> bytes:
    """The outcome of one line, which counts against *quota*. Errors of the line are a part of it,
    and are not raised.
    """
    job_id = None
    try:
        if quota is not None:
            quota.count_again()
        if raw is None:
            raise TooLarge(f"the line has more than {service.settings.body_bytes_max} bytes")
        line = parse(raw, BatchLine, request_limits(service.settings))
        owner = owner_of(principal, line.owner)
        if line.job_id is not None:
            job_id = parse_chosen_id(line.job_id)
        elif line.idempotency_key is not None:
            job_id = await service.jobs.id_of_key(line.idempotency_key, owner)
        if job_id is not None and (task := asyncio.current_task()) is not None:
            named.setdefault(job_id, (number, task))
        spec = await line.spec(service, principal, owner, named=job_id is not None)
        await _wait_for_named_jobs(spec, number, named)
        job_id = job_id or new_id(service.clock.now_us())
        job, changed = await service.submissions.submit(
            spec,
            actor=principal.name,
            principal=principal,
            job_id=job_id,
            key=line.idempotency_key is not None,
        )
    except EventjobsError as error:
        unknown = job_id if isinstance(error, OutcomeUnknown) else None
        return _error_line(number, error, unknown)
    return b'{"line":%d,"status":%d,"job_id":"%b","position":%d}\n' % (
        number,
        202 if changed else 200,
        job.job_id.encode(),
        job.position,
    )


async def _wait_for_named_jobs(spec: JobSpec, number: int, named: _NamedLines) -> None:
    """Return when the jobs that *spec* names and earlier lines submit have their outcomes."""
    lines = [named[each] for each in (*spec.after, spec.parent or "") if each in named]
    if earlier := [task for line, task in lines if line < number]:
        await asyncio.wait(earlier)


async def _unread_line(number: int, error: EventjobsError) -> bytes:
    """The outcome of the line at which reading ended."""
    return _error_line(number, error)


def _error_line(number: int, error: EventjobsError, job_id: str | None = None) -> bytes:
    """The outcome of a refused line; *job_id* where it was perhaps submitted."""
    members = problem.members(error)
    outcome = {"line": number, "status": members["status"], "error": members}
    return orjson.dumps(outcome | ({"job_id": job_id} if job_id else {})) + b"\n"
