"""Responses that are encoded here and written to the transport at once.

They serve the two most frequent requests, reading a job and submitting one: aiohttp's own response
takes longer than everything else that these requests need.
"""

from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from aiohttp import HttpVersion11, web

_COMMON_HEADERS = (
    "Content-Type: application/json\r\n"
    "Cache-Control: private, no-cache\r\n"
    "Server: eventjobs\r\n"
    "X-Content-Type-Options: nosniff\r\n"
)
_HEADS = {
    status: f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{_COMMON_HEADERS}"
    for status in (200, 202, 304)
}


class RawResponse(web.StreamResponse):
    """An encoded response. Preparing it writes it, without aiohttp's headers and signals."""

    def __init__(self, status: int, data: bytes) -> None:
        # super().__init__() is not called: it prepares headers, and those are in *data*.
        self._status = status
        self._data = data
        self._stays_open = True

    @property
    def status(self) -> int:
        return self._status

    @property
    def body_length(self) -> int:
        """The size in bytes with the head, as aiohttp counts."""
        return len(self._data)

    @property
    def keep_alive(self) -> bool:
        return self._stays_open

    def force_close(self) -> None:
        self._stays_open = False
        self.add_headers({"Connection": "close"})

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """Add *headers*, which must not hold text of a client."""
        lines = "".join([f"\r\n{name}: {value}" for name, value in headers.items()])
        self._data = self._data.replace(b"\r\n", lines.encode() + b"\r\n", 1)

    async def prepare(self, request: web.BaseRequest) -> None:
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has disconnected")
        transport.write(self._data)
        # A client that sends requests without reading responses waits here.
        await request.writer.drain()

    async def write_eof(self, data: bytes = b"") -> None:
        pass


def can_send_raw(request: web.BaseRequest) -> bool:
    """Whether a RawResponse can answer: HTTP/1.1 and a connection that stays open."""
    return request.version == HttpVersion11 and request.keep_alive


def raw_response(
    request: web.BaseRequest,
    status: int,
    headers: dict[str, str],
    body: bytes,
    request_id: str,
    now_us: int,
) -> RawResponse:
    """The encoded response. *headers* are not escaped: they must not hold text of a client."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if status != 304:
        lines = f"{lines}Content-Length: {len(body)}\r\n"
    date = _date(now_us // 1_000_000)
    head = f"{_HEADS[status]}{lines}Date: {date}\r\nX-Request-ID: {request_id}\r\n\r\n"
    return RawResponse(status, head.encode() if request.method == "HEAD" else head.encode() + body)


@lru_cache(maxsize=4)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
