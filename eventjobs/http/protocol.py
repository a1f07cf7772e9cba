"""Connections of HTTP/1.1: refusals of malformed input, and a graceful close."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import _ErrInfo

from eventjobs.clock import Clock, Timer
from eventjobs.concurrency import forks
from eventjobs.http.access_log import AccessLog
from eventjobs.http.connection_limits import ConnectionLimits
from eventjobs.http.held_connections import HeldConnection
from eventjobs.http.held_requests import HELD
from eventjobs.http.refusals import (
    HEAD_BYTES_MAX,
    PARSER_LIMITS,
    asks_for_upgrade,
    parser_error,
    refusal_bytes,
    refusal_response,
)
from eventjobs.http.request_body import abandon_body
from eventjobs.http.request_errors import HeadersTooLarge, HeadTimeout, RequestError
from eventjobs.http.request_ids import RequestIds
from eventjobs.observability.logging import get_logger

#: Seconds for which input is read after a refusal, so that the client receives the response.
LINGER_S = 1.0
#: Seconds of an idle connection after a response. aiohttp's default is an hour.
KEEPALIVE_S = 60.0


class Connections:
    """The open connections of a server, and whether it is closing them."""

    def __init__(
        self,
        manager: web.Server,
        limits: ConnectionLimits,
        access_log: AccessLog,
        clock: Clock,
        *,
        head_timeout_s: float,
    ) -> None:
        self.closing = False
        self.limits = limits
        self.access_log = access_log
        self.clock = clock
        self.head_timeout_s = head_timeout_s
        self._manager = manager
        self._served: set[ServerConnection] = set()
        #: Those with a stream.
        self.held: set[HeldConnection] = set()
        self._closed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._served) + len(self.held)

    def connect(self) -> "ServerConnection":
        """A new connection, for the event loop's server."""
        return ServerConnection(
            self,
            self._manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEPALIVE_S,
            tcp_keepalive=False,  # the listening socket has it
            lingering_time=LINGER_S,
            access_log_class=lambda *_: self.access_log,
            auto_decompress=False,
            **PARSER_LIMITS,
        )

    def add(self, connection: "ServerConnection") -> None:
        self._served.add(connection)

    def discard(self, connection: "ServerConnection | HeldConnection") -> None:
        """Drop a connection that is lost."""
        self._served.discard(connection)
        self.held.discard(connection)
        if connection.address is not None:
            self.limits.release(connection.address)
        self._closed.set()

    def take_back(self, held: HeldConnection) -> None:
        """Answer the next requests of *held*."""
        self.held.discard(held)
        self.connect().resume(held)

    def __iter__(self) -> Iterator["ServerConnection"]:
        """Those without a stream."""
        return iter(list(self._served))

    async def wait_closed(self, timeout_s: float) -> None:
        """Return when no connection is open, or after *timeout_s* seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while len(self):
                    self._closed.clear()
                    await self._closed.wait()


class ServerConnection(web.RequestHandler):
    """A connection that answers malformed requests with problems, and can be closed gracefully."""

    __slots__ = (
        "_body",
        "_connections",
        "_head_bytes",
        "_head_refused",
        "_head_timer",
        "_held",
        "_input_end",
        "_input_is_whole",
        "_refusal_task",
        "_request",
        "address",
        "connection_error",
        "input_ended",
        "refusal",
    )

    def __init__(self, connections: Connections, manager: web.Server, **more: Any) -> None:
        super().__init__(manager, **more)
        self._connections = connections
        #: The address by which the connection is counted; None where it is refused.
        self.address: str | None = None
        #: The body of the newest request that has a complete head.
        self._body: Any = EMPTY_PAYLOAD
        #: The bytes that were received of an incomplete head, and its timeout.
        self._head_bytes = 0
        self._head_timer: Timer | None = None
        self._head_refused = False
        #: Whether the client has ended its side of the connection.
        self.input_ended = False
        #: Whether the newest input ended with a head; what is behind a head may be part of another.
        self._input_is_whole = False
        #: Set at the end of the input, while the connection lingers.
        self._input_end: asyncio.Event | None = None
        #: The stream that goes on with the transport.
        self._held: HeldConnection | None = None
        #: The request that is not answered yet.
        self._request: web.BaseRequest | None = None
        #: The error of the newest request, where it is refused before routing.
        self.refusal: RequestError | None = None
        #: The error that ended the newest request without a response.
        self.connection_error: ConnectionError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        forks.close_in_children(transport.get_extra_info("socket").fileno())
        self._connections.add(self)
        try:
            self.address = self._connections.limits.admit(transport)
        except RequestError as error:
            self.close()  # its input is not parsed
            self._refusal_task = asyncio.ensure_future(self._refuse_connection(error))
        else:
            self._start_head_timer()

    def connection_lost(self, error: BaseException | None) -> None:
        super().connection_lost(error)
        if self._request is not None and (held := self._request.get(HELD)) is not None:
            held.leave()
        self._request = None
        self._end_input()
        self._end_head()
        self._body = EMPTY_PAYLOAD
        self._connections.discard(self)

    # --- a stream has the connection for itself until its end

    def hand_over(self, held: HeldConnection) -> None:
        """Let *held* write the rest of the response. The handler of its request returns then,
        without another await.
        """
        request, transport = self._request, self.transport
        assert request is not None
        assert transport is not None
        self._held = held
        # Another parser cannot go on with a request that this one has read in part.
        in_parser = self._upgraded or self._buffer_paused or not self._body.is_eof()
        is_whole = self._input_is_whole and not in_parser
        if held.is_chunked and request.keep_alive and is_whole:
            held.is_reusable = True
            held.requests = tuple(self._messages)
        held.is_paused = self._paused
        held.begin(self._connections, transport, self.address)
        self._connections.held.add(held)
        if self.input_ended:
            held.eof_received()
        self._end_head()
        self.transport = self.address = None
        self._connections.discard(self)
        super().connection_lost(None)

    def resume(self, held: HeldConnection) -> None:
        """Go on with the connection of *held*, whose stream has ended."""
        transport = held.transport
        assert transport is not None
        transport.set_protocol(self)
        transport.resume_reading()
        self.address = held.address
        self._connections.add(self)
        super().connection_made(transport)
        if held.is_paused:
            self.pause_writing()
        self._messages.extend(held.requests)
        if held.input:
            self.data_received(held.input)
        if held.input_ended and not self.eof_received():
            transport.close()

    # --- a client may end its side of the connection, and still read (RFC 9293, 3.6)

    def eof_received(self) -> bool:  # type: ignore[override] # aiohttp always closes
        """Keep the connection open while received requests are not answered."""
        self._end_input()
        if (request := self._request) is None:
            return bool(self._messages)
        self._end_body(request)
        if (held := request.get(HELD)) is not None:
            held.probe()
        return True

    def _end_input(self) -> None:
        self.input_ended = True
        if self._input_end is not None:
            self._input_end.set()

    def data_received(self, data: bytes) -> None:
        if self._head_refused:
            return
        self._input_is_whole = data.endswith(b"\r\n\r\n")
        in_body, requests = not self._body.is_eof(), self._request_count
        super().data_received(data)
        if self._request_count > requests:
            self._end_head()
        elif not (in_body or self._upgraded) and data.strip(b"\r\n"):
            self._begin_head(len(data))  # empty lines do not begin one (RFC 9112, 2.2)
        if self._messages and self._request is not None:
            self._end_body(self._request)

    def begin(self, request: web.BaseRequest) -> None:
        """Take *request* as the one to answer."""
        self._request = request
        if self.input_ended or self._messages:
            self._end_body(request)

    def _end_body(self, request: web.BaseRequest) -> None:
        """End an incomplete body with an error. The input ended, or aiohttp's parser failed, which
        does not end the body.
        """
        if not request.content.is_eof():
            request.content.set_exception(web.RequestPayloadError("the body is incomplete"))

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if self._held is not None:
            self._request = None
            assert start_time is not None
            log = self._connections.access_log
            self._held.log_end = log.end_of_stream(request, resp, start_time)
            return resp, True
        try:
            result = await super().finish_response(request, resp, start_time)
            if self.refusal is not None or asks_for_upgrade(request):
                await self._linger()
            return result
        finally:
            self._request = None
            if request.content.exception() is not None:
                request.content.feed_eof()  # otherwise aiohttp waits for the rest of the body
                self.close()
            elif self.input_ended and not self._messages:
                self.close()

    async def start(self) -> None:
        try:
            await super().start()
        except Exception as error:  # noqa: BLE001 otherwise the connection stays open
            get_logger("eventjobs.http").error("unexpected error", exc_info=error)
            self.force_close()
        finally:
            # The frames of these errors refer to the connection: a cycle that would keep the
            # request and its body in memory until the next garbage collection.
            self.refusal = None
            if self.connection_error is not None:
                self.connection_error.__traceback__ = None
                self.connection_error = None

    # --- the head of a request has limits of time and size

    def _start_head_timer(self) -> None:
        timeout_s = self._connections.head_timeout_s
        self._head_timer = self._connections.clock.call_later(timeout_s, self._time_out_head)

    def _begin_head(self, size: int) -> None:
        """Take *size* bytes of an incomplete head."""
        if self._close or self._force_close:
            return
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES_MAX:
            self._refuse_head(HeadersTooLarge(f"a head has at most {HEAD_BYTES_MAX} bytes"))
        elif self._head_timer is None:
            self._start_head_timer()

    def _end_head(self) -> None:
        """Take the end of a head; of several, the last one has a body that is not received yet."""
        if self._messages:
            message, self._body = self._messages[-1]
            if isinstance(message, _ErrInfo):
                # Its frames hold what was received, up to 256 KiB, and refer to the connection: a
                # cycle that would keep it in memory until the next garbage collection.
                message.exc.__traceback__ = None
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _time_out_head(self) -> None:
        if self._head_bytes:
            self._refuse_head(HeadTimeout())
        else:
            self.force_close()  # no request was begun, so none is answered

    def _refuse_head(self, error: RequestError) -> None:
        """Answer *error* after the requests that are complete, and read nothing more."""
        self._end_head()
        self._head_refused = True
        info = _ErrInfo(status=error.status, exc=error, message=error.message)
        self._messages.append((info, EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- a graceful close; aiohttp's own does not read the bodies of requests in progress

    def close_if_idle(self) -> None:
        """Close the connection, unless a request is not answered."""
        if self._waiter is not None and not self._waiter.done():
            self.force_close()

    def abandon_request(self) -> None:
        """Refuse the request whose body is incomplete."""
        if self._request is not None:
            abandon_body(self._request)

    # --- input that is refused before it is a request

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError):
            raise exc  # the client has disconnected
        log = get_logger("eventjobs.http")
        if status >= 500:
            log.error("unexpected error", exc_info=exc)
        else:
            log.info("not HTTP", status=status, error=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the response is sent") from exc
        error = exc or RuntimeError()
        if status < 500:
            error = self.refusal = parser_error(exc)
        response = refusal_response(request, error, RequestIds().of(request))
        response.force_close()
        return response

    async def _linger(self) -> None:
        """Read and drop input for LINGER_S seconds. A close with unread input resets the
        connection, and the client may lose the response (RFC 9112, 9.6).
        """
        self.close()  # aiohttp: handle no more requests
        if self.transport is not None and not self.input_ended:
            self.transport.write_eof()
            self._input_end = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    await self._input_end.wait()

    async def _refuse_connection(self, error: RequestError) -> None:
        """Send *error* without reading a request, and close."""
        assert self.transport is not None
        self.transport.write(refusal_bytes(error))
        await self._linger()
        self.force_close()


def connection_of(request: web.BaseRequest) -> ServerConnection:
    """The connection of *request*."""
    assert isinstance(request.protocol, ServerConnection)
    return request.protocol
