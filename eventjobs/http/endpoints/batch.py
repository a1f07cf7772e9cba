"""Many submissions in one request: NDJSON in, NDJSON out, an outcome for each line."""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import orjson
from aiohttp import web

from eventjobs.auth.principals import Principal
from eventjobs.commands.command_queue import CommandResult
from eventjobs.commands.submissions import GROUP_MAX, NewJob
from eventjobs.domain.ids import new_id, parse_chosen_id
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
#: Bytes of lines that are submitted together.
GROUP_BYTES_MAX = 2**20
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
    batch = _Batch(service, principal)
    number = 0
    quota = None  # the first line is counted with the request
    try:
        async for lines in _lines(service, request):
            for group in _groups(lines):
                if outcomes.full:
                    await outcomes.drain_half()
                parsed = []
                for number, line in group:
                    parsed.append(await batch.parse(number, line, quota))
                    quota = request.get(QUOTA)
                outcomes.append(batch.submit(parsed), len(group))
    except EventjobsError as error:
        # The rest of the batch cannot be read: the last outcome holds the error.
        outcomes.append(asyncio.create_task(_unread_line(number + 1, error)), 1)
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
        #: Each returns the outcomes of so many lines.
        self._tasks: deque[tuple[asyncio.Task[bytes], int]] = deque()
        self._count = 0  # of their lines
        self._unwritten = bytearray()

    def append(self, task: asyncio.Task[bytes], count: int) -> None:
        """Add the outcomes of *count* lines, which *task* returns."""
        self._tasks.append((task, count))
        self._count += count

    @property
    def full(self) -> bool:
        return self._count >= CONCURRENT_LINES_MAX

    async def drain_half(self) -> None:
        """Return when half of the lines have their outcomes. The other half keeps the log busy."""
        while self._count > CONCURRENT_LINES_MAX // 2:
            await self._collect_first()
        while len(self._unwritten) >= WRITE_BYTES and self._write_buffer_is_empty():
            await self._response.write(self._unwritten[:WRITE_BYTES])
            del self._unwritten[:WRITE_BYTES]

    def _write_buffer_is_empty(self) -> bool:
        transport = self._request.transport
        return transport is not None and transport.get_write_buffer_size() == 0

    async def collect(self) -> None:
        """Return when every line has its outcome, also after the client has disconnected."""
        while self._tasks:
            await self._collect_first()

    async def _collect_first(self) -> None:
        task, count = self._tasks.popleft()
        self._count -= count
        self._unwritten += await task

    async def write_all(self) -> None:
        """Write the rest. Raises ConnectionResetError when the client stops reading."""
        for begin in range(0, len(self._unwritten), WRITE_BYTES):
            part = self._unwritten[begin : begin + WRITE_BYTES]
            await slow_clients.write(self._service, self._request, self._response, part)
        await self._response.write_eof()


NumberedLines = list[tuple[int, bytes | None]]


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


def _groups(lines: NumberedLines) -> Iterator[NumberedLines]:
    """*lines* in order, as many together as are submitted together."""
    group: NumberedLines = []
    size = 0
    for number, line in lines:
        if len(group) == GROUP_MAX or size > GROUP_BYTES_MAX:
            yield group
            group, size = [], 0
        group.append((number, line))
        size += len(line or b"")
    if group:
        yield group


class _Line(NamedTuple):
    """A line: the job that it submits, or the outcome of a line that is refused."""

    number: int
    new: NewJob | None
    #: Whether it has an id that other lines can name.
    is_named: bool = False
    outcome: bytes = b""


class _Batch:
    """Submits groups of lines."""

    def __init__(self, service: Service, principal: Principal) -> None:
        self._service = service
        self._principal = principal
        #: By job id that a line names, or has by its key: the submission of its group.
        self._submissions: dict[str, asyncio.Task[bytes]] = {}

    async def parse(self, number: int, raw: bytes | None, quota: Quota | None) -> _Line:
        """One line, which counts against *quota*. Errors of the line are its outcome."""
        service, principal = self._service, self._principal
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
            spec = await line.spec(service, principal, owner, named=job_id is not None)
        except EventjobsError as error:
            return _Line(number, None, outcome=_error_line(number, error))
        new = NewJob(
            spec, job_id or new_id(service.clock.now_us()), line.idempotency_key is not None
        )
        return _Line(number, new, is_named=job_id is not None)

    def submit(self, lines: list[_Line]) -> asyncio.Task[bytes]:
        """The outcomes of *lines*, in order. Those of jobs that they name come before."""
        new_jobs = [line.new for line in lines if line.new is not None]
        named = [each for new in new_jobs for each in (*new.spec.after, new.spec.parent or "")]
        earlier = {self._submissions[each] for each in named if each in self._submissions}
        task = asyncio.create_task(self._submit(lines, new_jobs, earlier))
        for line in lines:
            if line.is_named and line.new is not None and line.new.job_id is not None:
                self._submissions[line.new.job_id] = task
        return task

    async def _submit(
        self, lines: list[_Line], new_jobs: list[NewJob], earlier: set[asyncio.Task[bytes]]
    ) -> bytes:
        if earlier:
            await asyncio.wait(earlier)
        principal = self._principal
        outcomes = await self._service.submissions.submit_many(
            new_jobs, actor=principal.name, principal=principal
        )
        each = iter(outcomes)
        return b"".join(
            line.outcome if line.new is None else _outcome_line(line.number, line.new, next(each))
            for line in lines
        )


def _outcome_line(number: int, new: NewJob, outcome: CommandResult | EventjobsError) -> bytes:
    if isinstance(outcome, EventjobsError):
        unknown = new.job_id if isinstance(outcome, OutcomeUnknown) else None
        return _error_line(number, outcome, unknown)
    job, changed = outcome
    return b'{"line":%d,"status":%d,"job_id":"%b","position":%d}\n' % (
        number,
        202 if changed else 200,
        job.job_id.encode(),
        job.position,
    )


async def _unread_line(number: int, error: EventjobsError) -> bytes:
    """The outcome of the line at which reading ended."""
    return _error_line(number, error)


def _error_line(number: int, error: EventjobsError, job_id: str | None = None) -> bytes:
    """The outcome of a refused line; *job_id* where it was perhaps submitted."""
    members = problem.members(error)
    outcome = {"line": number, "status": members["status"], "error": members}
    return orjson.dumps(outcome | ({"job_id": job_id} if job_id else {})) + b"\n"
