"""A route: what is said about it once, and what surrounds its handler."""

import ipaddress
import logging
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from structlog.contextvars import bind_contextvars

from eventjobs.errors import EventjobsError
from eventjobs.http import problem
from eventjobs.http.headers import check_command, is_conditional
from eventjobs.http.polls import Polls
from eventjobs.http.problem import BadHost, CrossOrigin, Misdirected, RequestError
from eventjobs.http.snapshot import Snapshots
from eventjobs.http.stream import Streams
from eventjobs.http.takers import Takers
from eventjobs.logs import get_logger
from eventjobs.service import Service

REQUEST_ID = web.RequestKey("request_id", str)
JOB_ID = web.RequestKey("job_id", str)
VARIES = web.RequestKey("varies", bool)

_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: A name or an address, and a port (RFC 3986, 3.2); what is quoted with % is no name of ours.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::([0-9]{0,10}))?")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Site:
    """What handlers work with."""

    service: Service
    snapshots: Snapshots
    streams: Streams
    polls: Polls
    ids: "RequestIds"
    takers: Takers


SITE = web.AppKey("site", Site)

#: Answers at once, or not at all; it asks *is_strange* by itself.
Quick = Callable[[Site, web.Request], web.StreamResponse | None]
Handler = Callable[[Site, web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Takes:
    """What a request brings. A *media_type* with no *body* model is raw bytes."""

    body: type[BaseModel] | None = None
    media_type: str | None = None
    optional: bool = False
    query: type[BaseModel] | None = None
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What comes back when all is well. A *media_type* with no *shape* is raw bytes."""

    status: int
    says: str
    shape: type[BaseModel] | None = None
    media_type: str | None = None
    headers: tuple[str, ...] = ()
    streams: bool = False


@dataclass(frozen=True)
class Route:
    """Its handler's docstring describes it. Errors that any route can end in are not listed."""

    method: str
    path: str
    handler: Handler
    takes: Takes
    gives: tuple[Answer | type[EventjobsError], ...]
    quick: Quick | None = None

    @property
    def varies(self) -> bool:
        """Whether it answers with JSON or with a stream."""
        return any(isinstance(each, Answer) and each.streams for each in self.gives)

    @property
    def unconditional(self) -> bool:
        """Whether it is a command on what has no tag."""
        return self.method not in _SAFE_METHODS and "If-Match" not in self.takes.headers


class RequestIds:
    """Names for requests that bring none: a random start, then counted."""

    def __init__(self) -> None:
        self._prefix = os.urandom(6).hex()
        self._numbers = count(1)

    def of(self, request: web.BaseRequest) -> str:
        given = request.headers.get("X-Request-ID")
        if given is not None and _ACCEPTED_ID.fullmatch(given):
            return given
        return self.new()

    def new(self) -> str:
        return f"{self._prefix}-{next(self._numbers):x}"


def surrounded(
    handler: Handler,
    site: Site,
    quick: Quick | None = None,
    *,
    varies: bool = False,
    unconditional: bool = False,
) -> Any:
    """*handler* as aiohttp wants it: with a request id, and errors as problems.

    The answers of one that *varies* say that they depend on Accept. An *unconditional* command is
    on a resource that has no tag, so no condition with one holds.

    Around each handler and not a middleware: this is on the path of every request.
    """
    log = get_logger("eventjobs.http")
    if log.isEnabledFor(logging.DEBUG):
        quick = None  # it gives the request no id, for its line

    async def handle(request: web.Request) -> web.StreamResponse:
        if quick is not None and (answer := quick(site, request)) is not None:
            return answer
        request[REQUEST_ID] = request_id = site.ids.of(request)
        bind_contextvars(request_id=request_id)
        if varies:
            request[VARIES] = True
        try:
            if error := is_strange(request):
                raise error
            if unconditional and is_conditional(request):
                check_command(request, "")
            return await handler(site, request)
        except ConnectionError:  # the client has gone, or is cut off; aiohttp writes no line of it
            log.debug("request cut off", method=request.method, path=request.rel_url.raw_path)
            raise
        except Exception as error:  # noqa: BLE001 the outermost place there is
            return _problem(request, problem.translated(error), log)

    return handle


def _problem(request: web.Request, error: Exception, log: Any) -> web.StreamResponse:
    if not isinstance(error, EventjobsError | web.HTTPException):
        log.error("unexpected error", exc_info=error)
    if request.writer.output_size > 0:
        # A part of the answer is out: only a broken connection tells that it is not the whole.
        if request.transport is not None:
            request.transport.abort()  # closing would wait for a client that may not read
        raise ConnectionResetError("cut off after an error") from error
    job_id = request.get(JOB_ID) or request.match_info.get("id")
    return problem.response(error, request.rel_url.raw_path, request[REQUEST_ID], job_id)


async def sign(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Put on every response what every response has; a signal, so that streams have it too."""
    if (request_id := request.get(REQUEST_ID)) is not None:
        signature(response.headers, request_id)
    if VARIES in request:
        response.headers["Vary"] = "Accept"


def signature(headers: MutableMapping[str, str], request_id: str) -> None:
    headers["Server"] = "eventjobs"  # and not which versions of what
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Request-ID"] = request_id


# --- what a browser can be made to send by somebody else's page


def is_strange(request: web.BaseRequest) -> type[RequestError] | None:
    """Why this request is refused, if it is.

    Without authentication every page in a local browser could otherwise use this service: by a
    name of its own that resolves to 127.0.0.1, or by sending forms here blindly.
    """
    headers = request.headers
    host = headers.get("Host")
    if host is not None and (error := host_error(host)) is not None:
        return error
    if request.method in _SAFE_METHODS:
        return None
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return None if site in {"same-origin", "none"} else CrossOrigin
    origin = headers.get("Origin")
    return None if origin is None or origin.partition("://")[2] == host else CrossOrigin


@lru_cache(maxsize=256)
def host_error(host: str) -> type[RequestError] | None:
    """Why requests for *host*, with or without a port, are refused; None if it names this machine.

    What is not written as a host at all is a bad request (RFC 9112, 3.2).
    """
    written = _HOST.fullmatch(host)
    if written is None or int(written[2] or 0) > 65_535:
        return BadHost
    name = written[1].strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return None
    try:
        return None if ipaddress.ip_address(name).is_loopback else Misdirected
    except ValueError:
        return Misdirected
