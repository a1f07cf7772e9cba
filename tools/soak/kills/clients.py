"""The load: submitters that repeat unanswered requests, and readers that resume their streams."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from typing import Any

import aiohttp
import orjson

from eventjobs.client.sse import Message, Parser

from .history import Claim, History, Stream
from .requests import Request, Requests, Targets

#: Raised when a kill closes the connection.
CUT_OFF = (aiohttp.ClientError, ConnectionError)
#: A response takes longer only when the service hangs.
PATIENCE_S = 30.0


class Gate:
    """The address of the service while it runs."""

    def __init__(self) -> None:
        self._url: str | None = None
        self._moved = asyncio.Event()

    def open(self, url: str) -> None:
        self._url = url
        self._moved.set()
        self._moved = asyncio.Event()

    def close(self) -> None:
        self._url = None

    async def address(self, last: str | None = None) -> str:
        """Wait for an address other than *last*, the one of a lost connection."""
        while self._url is None or self._url == last:
            await self._moved.wait()
        return self._url


class Submitter:
    """Sends one request after the other, and repeats idempotent ones without a response."""

    def __init__(
        self,
        requests: Requests,
        history: History,
        targets: Targets,
        gate: Gate,
        session: aiohttp.ClientSession,
        name: str,
    ) -> None:
        self._requests = requests
        self._history = history
        self._targets = targets
        self._gate = gate
        self._session = session
        self._name = name
        self._again: list[Request] = []
        self._stopping = False

    def stop(self) -> None:
        """Send nothing new; *run* returns when every unanswered request is settled."""
        self._stopping = True

    async def run(self) -> None:
        lost: str | None = None
        while self._again or not self._stopping:
            url = await self._gate.address(lost)
            request = self._again.pop() if self._again else self._requests.next()
            answered = list[str]()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._send(url, request, answered)
                self._requests.acknowledge(request)
            except aiohttp.ClientConnectorError:
                lost = url
                self._again.append(request)  # it was never sent
            except CUT_OFF:
                lost = url
                left = set(request.tokens) - set(answered)
                self._history.outcomes["unknown"] += len(left)
                self._history.unknown |= left
                if request.idempotent and not self._requests.gives_up():
                    self._again.append(request)
            except TimeoutError:
                self._history.fault(f"{self._name}: no answer to {request.method} {request.path}")

    async def _send(self, url: str, request: Request, answered: list[str]) -> None:
        seen = self._history.versions.get(request.job_id or "", 0)
        async with self._session.request(
            request.method, url + request.path, data=request.body, headers=request.headers
        ) as response:
            if request.kind == "batch" and response.status == 200:
                async for line in response.content:
                    self._line(request, orjson.loads(line), answered)
                if len(answered) != len(request.tokens):
                    self._history.fault(f"{self._name}: a batch was answered in part, and ended")
                return
            self._judge(request, response.status, orjson.loads(await response.read()), seen)

    def _line(self, request: Request, line: dict[str, Any], answered: list[str]) -> None:
        token = request.tokens[line["line"] - 1]
        answered.append(token)
        if line["status"] not in (200, 202):
            self._history.fault(f"{self._name}: {token!r} in a batch was answered {line}")
            return
        self._targets.add(line["job_id"])
        claim = Claim(self._name, line["job_id"], line["position"], token=token)
        self._history.acknowledge(claim)

    def _judge(self, request: Request, status: int, body: dict[str, Any], seen: int) -> None:
        self._history.outcomes[f"{request.kind} {status}"] += 1
        if status == 409 and request.kind in ("cancel", "retry") and body["code"] == "wrong_state":
            return
        if status not in (200, 202) or request.job_id not in (None, body["job_id"]):
            self._history.fault(
                f"{self._name}: {request.method} {request.path} was answered {status} {body}"
            )
            return
        if body["version"] < seen:
            self._history.fault(
                f"{self._name}: {request.method} {request.path} returned version {body['version']}"
                f" after version {seen}"
            )
        submitted = request.kind in ("put", "key", "post")
        token = request.tokens[0] if submitted else None
        self._history.acknowledge(claim_of(self._name, body, token, request.kind == "cancel"))
        if submitted:
            self._targets.add(body["job_id"])


def claim_of(
    who: str, job: dict[str, Any], token: str | None = None, cancelled: bool = False
) -> Claim:
    """The claim in the JSON of a job."""
    place = job["job_id"], job["position"], job["version"]
    return Claim(who, *place, job["status"], job["attempt"], token, cancelled)


class Source:
    """The connections of one reader; each resumes after the last message."""

    def __init__(self, gate: Gate, session: aiohttp.ClientSession, history: History) -> None:
        self._gate = gate
        self._session = session
        self._history = history
        self._lost: str | None = None

    async def messages(self, name: str, path: str) -> AsyncIterator[Message]:
        """Every message of the stream at *path*, until the service ends it."""
        last_id = ""
        while True:
            url = await self._gate.address(self._lost)
            headers = {"Accept": "text/event-stream"}
            if last_id:
                headers["Last-Event-ID"] = last_id
            parser = Parser(last_id)
            try:
                async with self._session.get(url + path, headers=headers) as response:
                    if response.status == 204:
                        return
                    if response.status != 200:
                        text = await response.text()
                        self._history.fault(f"{name}: {path} was answered {response.status} {text}")
                        return
                    async for chunk in response.content.iter_any():
                        for message in parser.feed(chunk):
                            yield message
                            if message.event == "end":
                                return
            except CUT_OFF:
                pass
            self._lost = url  # also when a shutdown closes the stream cleanly
            last_id = parser.last_id


async def read_events(source: Source, stream: Stream, path: str, history: History) -> None:
    """Follow *path* to its end, if the stream has one."""
    async for message in source.messages(stream.name, path):
        if message.event == "event":
            stream.receive(int(message.id), message.data)
        elif message.event != "end":
            history.fault(f"{stream.name} was sent {message.event}: {message.data}")
    stream.ended = True


async def read_jobs(
    source: Source,
    name: str,
    history: History,
    choose: Callable[[], Awaitable[list[str]]],
    stopping: asyncio.Event,
) -> None:
    """Follow a few jobs from their first to their last events, then other jobs."""
    for number in count(1):
        ids = await choose()
        if stopping.is_set():
            return
        stream = history.stream(f"{name}, stream {number}", ids=ids)
        one = f"/v1/jobs/{ids[0]}/events"
        path = one if len(ids) == 1 else f"/v1/events?id={','.join(ids)}"
        await read_events(source, stream, path, history)


async def read_snapshots(source: Source, name: str, history: History) -> None:
    """Follow the snapshots of all jobs."""
    async for message in source.messages(name, "/v1/jobs"):
        if message.event == "job":
            history.snapshot(claim_of(name, orjson.loads(message.data)))
        else:
            history.fault(f"{name} was sent {message.event}: {message.data}")
