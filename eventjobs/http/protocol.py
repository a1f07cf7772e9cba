"""One connection of HTTP/1.1: its end in good order, and what is refused before any route."""

import asyncio
import resource
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_exceptions import LineTooLong
from yarl import URL

from eventjobs.concurrency import forks
from eventjobs.http import problem
from eventjobs.http.app_context import RequestIds
from eventjobs.http.middleware import signature
from eventjobs.http.origin_guard import host_error
from eventjobs.http.problem import (
    BadHost,
    ExpectationFailed,
    HeadersTooLarge,
    OutOfDescriptors,
    RequestError,
    TargetTooLong,
    UnknownTransferCoding,
    VersionNotSupported,
)
from eventjobs.http.request_body import abandon_body
from eventjobs.http.streams.subscriber import SUBSCRIBER
from eventjobs.observability.logging import get_logger

#: What a client still sends is read for so long, so that it gets to read why it is refused.
LINGER_S = 1.0

#: Of the address in a request line. RFC 9112, 3 asks for 8,000 at least.
TARGET_BYTES_MAX = 8190
#: Of one header field, its name included. Another number than the one before: aiohttp's
#: LineTooLong says only by its limit which of the two was passed.
FIELD_BYTES_MAX = 8192
FIELDS_MAX = 128
SPOKEN = frozenset({HttpVersion10, HttpVersion11})
#: Descriptors that connections leave to files, the log and processes; a quarter of few.
DESCRIPTORS_KEPT = 64
#: Between two lines in the log about descriptors that run out.
REPEATED_S = 10.0

#: As aiohttp has it: the message, its payload, the protocol, the writer and the task.
Make = Callable[[Any, Any, Any, Any, "asyncio.Task[None]"], web.BaseRequest]


class Connected:
    """Everyone who is connected, and whether they are to leave."""

    def __init__(self) -> None:
        self.leaving = False
        self._all: set[Connection] = set()
        self._fewer = asyncio.Event()
        self._complained_s = -REPEATED_S

    def add(self, connection: "Connection") -> None:
        self._all.add(connection)

    def discard(self, connection: "Connection") -> None:
        self._all.discard(connection)
        self._fewer.set()

    def everyone(self) -> list["Connection"]:
        return list(self._all)

    async def gone(self, within_s: float) -> None:
        """Return when nobody is connected any more, or after *within_s*."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._all:
                    self._fewer.clear()
                    await self._fewer.wait()

    def too_many(self, transport: asyncio.BaseTransport) -> bool:
        """Whether the process has hardly a descriptor left after this connection.

        The kernel gives out the lowest number that is free: a high one says that the others are
        in use, whatever they are used for.
        """
        connection = transport.get_extra_info("socket")
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if connection is None or limit == resource.RLIM_INFINITY:
            return False
        if connection.fileno() < limit - min(DESCRIPTORS_KEPT, limit // 4):
            return False
        now_s = asyncio.get_running_loop().time()
        if now_s - self._complained_s >= REPEATED_S:
            self._complained_s = now_s
            log = get_logger("eventjobs.http")
            log.error(
                "connections refused",
                error=OutOfDescriptors.__doc__,
                open=len(self._all),
                limit=limit,
            )
        return True


class Connection(web.RequestHandler):
    """Can be left in good order, and tells in our own words what cannot be read as HTTP."""

    __slots__ = (
        "_connected",
        "_farewell",
        "_lingering",
        "_request",
        "cut_off",
        "input_ended",
        "refusal",
    )

    def __init__(self, connected: Connected, manager: web.Server, **more: Any) -> None:
        super().__init__(manager, **more)
        self._connected = connected
        #: Whether the client has ended its side: it sends no more, and may be gone.
        self.input_ended = False
        #: Set when it does.
        self._lingering: asyncio.Event | None = None
        #: Made of what came, and not answered yet.
        self._request: web.BaseRequest | None = None
        #: Why the newest request is refused without a look at its route.
        self.refusal: RequestError | None = None
        #: What ended the newest request without an answer.
        self.cut_off: ConnectionError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        forks.close_in_children(transport.get_extra_info("socket").fileno())
        self._connected.add(self)
        if self._connected.too_many(transport):
            self.close()  # nothing that is sent is a request any more
            self._farewell = asyncio.ensure_future(self._turn_away())

    def connection_lost(self, error: BaseException | None) -> None:
        super().connection_lost(error)
        self._request = None
        self._end_input()
        self._connected.discard(self)

    # --- a client that ends its side first still reads (RFC 9293, 3.6)

    def eof_received(self) -> bool:  # type: ignore[override] # aiohttp's always closes
        """Keep the connection while requests that came are not answered."""
        self._end_input()
        if (request := self._request) is None:
            return bool(self._messages)
        self._end_body(request)
        if (subscriber := request.get(SUBSCRIBER)) is not None:
            subscriber.probe()
        return True

    def _end_input(self) -> None:
        self.input_ended = True
        if self._lingering is not None:
            self._lingering.set()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages and self._request is not None:
            self._end_body(self._request)

    def begin(self, request: web.BaseRequest) -> None:
        """Note that *request* is to be answered."""
        self._request = request
        if self.input_ended or self._messages:
            self._end_body(request)

    def _end_body(self, request: web.BaseRequest) -> None:
        """Break a body that is not whole: what came after it is the end, or an error of aiohttp's
        parser, which tells the body nothing.
        """
        if not request.content.is_eof():
            request.content.set_exception(web.RequestPayloadError("the body broke off"))

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        try:
            answered = await super().finish_response(request, resp, start_time)
            if self.refusal is not None:
                await self._linger()
            return answered
        finally:
            self._request = None
            if request.content.exception() is not None:
                request.content.feed_eof()  # aiohttp would wait for the rest of the body
                self.close()
            elif self.input_ended and not self._messages:
                self.close()

    async def start(self) -> None:
        try:
            await super().start()
        except Exception as error:  # noqa: BLE001 a connection that nothing answers would stay open
            get_logger("eventjobs.http").error("unexpected error", exc_info=error)
            self.force_close()
        finally:
            # Errors whose frames hold what holds them: the task, or this connection. The request,
            # and what came of its body, would stay until the next look for cycles.
            self.refusal = None
            if self.cut_off is not None:
                self.cut_off.__traceback__ = None
                self.cut_off = None

    # aiohttp's own way out does not read the bodies of requests that it has begun to handle.

    def close_if_idle(self) -> None:
        """Close it, unless there is something to be answered."""
        if self._waiter is not None and not self._waiter.done():
            self.force_close()

    def give_up(self) -> None:
        """Wait no longer for what is missing of a request."""
        if self._request is not None:
            abandon_body(self._request)

    # --- what is refused before it is a request

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError):
            raise exc  # the client has gone, or was cut off: there is nobody to tell
        log = get_logger("eventjobs.http")
        if status >= 500:
            log.error("unexpected error", exc_info=exc)
        else:
            log.info("not HTTP", status=status, error=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer is out") from exc
        error = exc or RuntimeError()
        if status < 500:
            error = self.refusal = _unreadable(exc)
        response = refused(request, error, RequestIds().of(request))
        response.force_close()
        return response

    async def _linger(self) -> None:
        """Drop what the client still sends, for a moment: closing a connection with unread bytes
        resets it, and takes the answer away from the client (RFC 9112, 9.6).
        """
        self.close()  # for aiohttp: take no more requests
        if self.transport is not None and not self.input_ended:
            self.transport.write_eof()
            self._lingering = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    await self._lingering.wait()

    async def _turn_away(self) -> None:
        """Answer whatever will be asked with 503, and close."""
        told = problem.response(OutOfDescriptors(), "", request_id := RequestIds().new(), None)
        signature(told.headers, request_id)
        assert self.transport is not None
        assert isinstance(told.body, bytes)
        headers = {**told.headers, "Content-Length": str(len(told.body)), "Connection": "close"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {told.status} {told.reason}\r\n{lines}\r\n"
        self.transport.write(head.encode() + told.body)
        await self._linger()
        self.force_close()


def _unreadable(error: BaseException | None) -> RequestError:
    """What aiohttp's parser refuses, as a problem that says the limit."""
    if isinstance(error, LineTooLong):
        limit = error.args[1]
        if limit == TARGET_BYTES_MAX:
            return TargetTooLong(f"the address of a request has at most {limit} bytes")
        return HeadersTooLarge(f"a header field has at most {limit} bytes")
    if str(error) == "400, message:\n  Too many headers received":
        return HeadersTooLarge(f"a request has at most {FIELDS_MAX} header fields")
    return RequestError("this is not a request of HTTP/1.1")


def readable(make: Make) -> Make:
    """*make*, a factory of requests, that also takes what no request can be made of."""

    def made(
        message: Any, payload: Any, protocol: Any, writer: Any, task: "asyncio.Task[None]"
    ) -> web.BaseRequest:
        refusal: RequestError | None = None
        # Nearly every request is plain: this is on the path of all of them.
        if message.version is not HttpVersion11 or message.chunked or message.url.absolute:
            refusal = _refusal(message, message.url)
            if refusal is not None:
                message = message._replace(url=URL("/"), version=HttpVersion11)
        request = make(message, payload, protocol, writer, task)
        protocol.refusal = refusal
        protocol.begin(request)
        return request

    return made


def _refusal(message: Any, target: URL) -> RequestError | None:
    """Why a request of another version, with an absolute target or chunked, is not served."""
    if message.version not in SPOKEN:
        return VersionNotSupported()
    if message.chunked:
        codings = message.headers.getall("Transfer-Encoding", ())
        if [each.strip().lower() for each in codings] != ["chunked"]:
            return UnknownTransferCoding()
        if message.version < HttpVersion11:
            return RequestError("HTTP/1.0 has no Transfer-Encoding")
    if not target.absolute:
        return None
    try:
        host, _, _ = target.host_subcomponent or "", target.host, target.port
    except ValueError:  # what is no name of a host (RFC 3490), or no port
        return BadHost()
    if target.scheme not in {"", "http", "https"} or target.raw_user is not None:
        return RequestError("the address is not one of http, or names a user")
    # The target wins over the header Host (RFC 9112, 3.2.2).
    error = host_error(host)
    return None if error is None else error()


def check(connection: Connection, request: web.BaseRequest) -> None:
    """Raises RequestError for what is refused whatever its route."""
    if connection.refusal is not None:  # in no variable here, which its frames would hold
        raise connection.refusal
    if "Expect" in request.headers and request.version >= (1, 1):
        expected = ",".join(request.headers.getall("Expect")).split(",")
        if any(each.strip().lower() not in {"100-continue", ""} for each in expected):
            raise ExpectationFailed


def connection_of(request: web.BaseRequest) -> Connection:
    assert isinstance(request.protocol, Connection)
    return request.protocol


def refused(request: web.BaseRequest, error: BaseException, request_id: str) -> web.Response:
    response = problem.response(error, request.rel_url.raw_path, request_id, None)
    # No application is found yet that could sign it.
    signature(response.headers, request_id)
    return response
