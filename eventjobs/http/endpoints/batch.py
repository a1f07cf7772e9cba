"""Many submissions in one request: NDJSON in, NDJSON out, each line its own outcome."""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import orjson
from aiohttp import web

from eventjobs.domain.ids import id_of_key, new_id, parse_chosen_id
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import EventjobsError, OutcomeUnknown, TooLarge
from eventjobs.http import problem
from eventjobs.http import slow_clients as patience
from eventjobs.http.app_context import AppContext
from eventjobs.http.request_body import (
    check_encoding,
    check_length,
    check_type,
    chunks,
    parse,
    request_limits,
)
from eventjobs.http.requests import ACTOR
from eventjobs.http.schemas.submission import BatchLine
from eventjobs.service import Service

NDJSON = "application/x-ndjson"
_NDJSON_TYPES = re.compile(r"application/(?:x-)?(?:ndjson|jsonl|json-?lines)")

#: Lines on their way into the log at one time: enough to fill two commits.
ON_THEIR_WAY_MAX = 2048
#: Less than the transport takes without making anyone wait.
WRITTEN_AT_ONCE = 32_768


async def submit_batch(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Submit a job per line; an outcome per line comes back, in the same order.

    A line that is refused is no reason to refuse another. What was answered 202 is durable.
    """
    service = site.service
    check_type(request, _NDJSON_TYPES, NDJSON)
    check_encoding(request)
    check_length(request, service.settings.batch_bytes_max)
    response = web.StreamResponse(headers={"Content-Type": NDJSON, "Cache-Control": "no-store"})
    await response.prepare(request)
    outcomes = _Outcomes(service, request, response)
    named: _Named = {}
    number = 0
    try:
        async for lines in _lines(service, request):
            for number, line in lines:
                if outcomes.crowded:
                    await outcomes.thin_out()
                outcomes.follow(asyncio.create_task(_submit(service, number, line, named)))
    except EventjobsError as error:
        # The batch cannot be read further: its last outcome says why.
        outcomes.follow(asyncio.create_task(_broken(number + 1, error)))
    finally:
        await outcomes.settle()
    await outcomes.write_all()
    return response


class _Outcomes:
    """What is to be answered, and how much of it can be written without waiting.

    Many clients send everything before they read anything. Waiting for such a client to read,
    while it waits for us to read, would last for ever; so until its last line is here, what does
    not fit is kept. There is a bound on the lines of a batch, and so on this.
    """

    def __init__(
        self, service: Service, request: web.Request, response: web.StreamResponse
    ) -> None:
        self._service = service
        self._request = request
        self._response = response
        self._waiting: deque[asyncio.Task[bytes]] = deque()
        self._kept = bytearray()

    def follow(self, task: asyncio.Task[bytes]) -> None:
        self._waiting.append(task)

    @property
    def crowded(self) -> bool:
        return len(self._waiting) >= ON_THEIR_WAY_MAX

    async def thin_out(self) -> None:
        """Return when half of the lines have their outcomes: the others keep the log busy."""
        while len(self._waiting) > ON_THEIR_WAY_MAX // 2:
            self._kept += await self._waiting.popleft()
        while len(self._kept) >= WRITTEN_AT_ONCE and self._room():
            await self._response.write(self._kept[:WRITTEN_AT_ONCE])
            del self._kept[:WRITTEN_AT_ONCE]

    def _room(self) -> bool:
        transport = self._request.transport
        return transport is not None and transport.get_write_buffer_size() == 0

    async def settle(self) -> None:
        """Return when every line has its outcome, also if the client has gone."""
        while self._waiting:
            self._kept += await self._waiting.popleft()

    async def write_all(self) -> None:
        """The rest, as fast as the client reads. Raises ConnectionResetError when it does not."""
        for begin in range(0, len(self._kept), WRITTEN_AT_ONCE):
            part = self._kept[begin : begin + WRITTEN_AT_ONCE]
            await patience.write(self._service, self._request, self._response, part)
        await self._response.write_eof()


Numbered = list[tuple[int, bytes | None]]
#: Jobs of this batch that were given an id, each with the line that submits it.
_Named = dict[str, tuple[int, asyncio.Task[Any]]]


async def _lines(service: Service, request: web.Request) -> AsyncIterator[Numbered]:
    """The lines that are not empty, as they come; None for one that is too long to be read.

    Raises TooLarge past the limits of a batch, RequestError when the body breaks.
    """
    settings = service.settings
    number = size = 0
    rest = b""
    skipping = False
    async for chunk in _then_a_line_end(chunks(service, request)):
        size += len(chunk)
        beyond = max(0, size - settings.batch_bytes_max - 1)  # one is the line end that we add
        *whole, rest = (rest + chunk[: len(chunk) - beyond]).split(b"\n")
        room = settings.batch_lines_max - number
        whole, more = whole[:room], whole[room:]
        lines: Numbered = []
        for line in whole:
            number += 1
            if skipping or len(line) > settings.body_bytes_max:
                skipping = False
                lines.append((number, None))
            elif line.strip():
                lines.append((number, line))
        yield lines
        if any(map(bytes.strip, more)):
            raise TooLarge(f"the batch has more than {settings.batch_lines_max} lines")
        if beyond:
            raise TooLarge(f"the batch has more than {settings.batch_bytes_max} bytes")
        if skipping or len(rest) > settings.body_bytes_max:
            skipping, rest = True, b""


async def _then_a_line_end(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The last line may have come without."""
    async for part in parts:
        yield part
    yield b"\n"


async def _submit(service: Service, number: int, raw: bytes | None, named: _Named) -> bytes:
    """The outcome of one line; never raises for what is wrong with it."""
    job_id = None
    try:
        if raw is None:
            raise TooLarge(f"the line has more than {service.settings.body_bytes_max} bytes")
        line = parse(raw, BatchLine, request_limits(service.settings))
        if line.job_id is not None:
            job_id = parse_chosen_id(line.job_id)
        elif line.idempotency_key is not None:
            job_id = id_of_key(line.idempotency_key)
        if job_id is not None and (this := asyncio.current_task()) is not None:
            named.setdefault(job_id, (number, this))
        spec = await line.spec(service, named=job_id is not None)
        await _submitted(spec, number, named)
        job_id = job_id or new_id(service.clock.now_us())
        job, changed = await service.accept(
            spec, actor=ACTOR, job_id=job_id, key=line.idempotency_key is not None
        )
    except EventjobsError as error:
        unknown = job_id if isinstance(error, OutcomeUnknown) else None
        return _refused(number, error, unknown)
    return b'{"line":%d,"status":%d,"job_id":"%b","position":%d}\n' % (
        number,
        202 if changed else 200,
        job.job_id.encode(),
        job.position,
    )


async def _submitted(spec: JobSpec, number: int, named: _Named) -> None:
    """Return when those lines before *number* have their outcome whose jobs *spec* names."""
    lines = [named[each] for each in (*spec.after, spec.parent or "") if each in named]
    if earlier := [task for line, task in lines if line < number]:
        await asyncio.wait(earlier)


async def _broken(number: int, error: EventjobsError) -> bytes:
    return _refused(number, error)


def _refused(number: int, error: EventjobsError, job_id: str | None = None) -> bytes:
    told = problem.members(error)
    outcome = {"line": number, "status": told["status"], "error": told}
    return orjson.dumps(outcome | ({"job_id": job_id} if job_id else {})) + b"\n"
