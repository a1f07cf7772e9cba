"""Answers whose bytes are all there: put together by us, and given to the transport in one write.

For the two requests that come most, reading a job and submitting one. What aiohttp does for any
response costs more than everything else these two need.
"""

from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from aiohttp import HttpVersion11, web

_ALWAYS = (
    "Content-Type: application/json\r\n"
    "Cache-Control: no-cache\r\n"
    "Server: eventjobs\r\n"
    "X-Content-Type-Options: nosniff\r\n"
)
_BEGINNINGS = {
    status: f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{_ALWAYS}"
    for status in (200, 202, 304)
}


class RawResponse(web.StreamResponse):
    """It is written when aiohttp prepares it; signals and headers are over by then."""

    def __init__(self, status: int, data: bytes) -> None:
        # Without super().__init__(): what that makes is for headers, which are in *data*.
        self._answered = status
        self._data = data
        self._stays = True

    @property
    def status(self) -> int:
        return self._answered

    @property
    def body_length(self) -> int:
        """With the head, as aiohttp counts it, too."""
        return len(self._data)

    @property
    def keep_alive(self) -> bool:
        return self._stays

    def force_close(self) -> None:
        self._stays = False
        self._data = self._data.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)

    async def prepare(self, request: web.BaseRequest) -> None:
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        transport.write(self._data)
        # A client that sends on and on, and reads nothing, waits here.
        await request.writer.drain()

    async def write_eof(self, data: bytes = b"") -> None:
        pass


def can_send_raw(request: web.BaseRequest) -> bool:
    """Whether a Ready can answer: HTTP/1.1, and the connection stays open."""
    return request.version == HttpVersion11 and request.keep_alive


def raw_response(
    request: web.BaseRequest,
    status: int,
    headers: dict[str, str],
    body: bytes,
    request_id: str,
    now_us: int,
) -> RawResponse:
    """*headers* hold nothing that a client said: they are written as they are."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if status != 304:
        lines = f"{lines}Content-Length: {len(body)}\r\n"
    date = _date(now_us // 1_000_000)
    head = f"{_BEGINNINGS[status]}{lines}Date: {date}\r\nX-Request-ID: {request_id}\r\n\r\n"
    return RawResponse(status, head.encode() if request.method == "HEAD" else head.encode() + body)


@lru_cache(maxsize=4)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
