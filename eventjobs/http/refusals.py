"""Requests that are refused before routing: malformed, too large, or not supported."""

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_exceptions import LineTooLong
from yarl import URL

from eventjobs.http import problem
from eventjobs.http.middleware import set_default_headers
from eventjobs.http.origin_guard import OriginGuard
from eventjobs.http.request_errors import (
    BadHost,
    ExpectationFailed,
    HeadersTooLarge,
    RequestError,
    TargetTooLong,
    UnknownTransferCoding,
    VersionNotSupported,
)
from eventjobs.http.request_ids import RequestIds

#: Bytes of the address in a request line. RFC 9112, 3 requires 8,000 at least.
TARGET_BYTES_MAX = 8190
#: Bytes of one header field with its name. It must differ from TARGET_BYTES_MAX: the limit is all
#: that tells the two apart in aiohttp's LineTooLong.
FIELD_BYTES_MAX = 8192
FIELDS_MAX = 128
#: The names of these limits in aiohttp.
PARSER_LIMITS = {
    "max_line_size": TARGET_BYTES_MAX,
    "max_field_size": FIELD_BYTES_MAX,
    "max_headers": FIELDS_MAX,
}
#: Bytes of a request line and its header fields. It bounds the memory of an incomplete head.
HEAD_BYTES_MAX = 131_072
VERSIONS = frozenset({HttpVersion10, HttpVersion11})

#: A factory of requests of aiohttp: message, payload, protocol, writer, task.
RequestFactory = Callable[[Any, Any, Any, Any, "asyncio.Task[None]"], web.BaseRequest]


def parser_error(error: BaseException | None) -> RequestError:
    """The refusal of input that is no request, with the limit that was exceeded."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, LineTooLong):
        limit = error.args[1]
        if limit == TARGET_BYTES_MAX:
            return TargetTooLong(f"the address of a request has at most {limit} bytes")
        return HeadersTooLarge(f"a header field has at most {limit} bytes")
    if str(error) == "400, message:\n  Too many headers received":
        return HeadersTooLarge(f"a request has at most {FIELDS_MAX} header fields")
    return RequestError("this is not a request of HTTP/1.1")


def with_refusals(make: RequestFactory, guard: OriginGuard) -> RequestFactory:
    """The factory *make*, which sets the refusal of each request on its connection. A message that
    *make* cannot read becomes a request for `/`.
    """

    def make_request(
        message: Any, payload: Any, protocol: Any, writer: Any, task: "asyncio.Task[None]"
    ) -> web.BaseRequest:
        refusal: RequestError | None = None
        # On the path of every request: nearly all are HTTP/1.1 with a relative target.
        if message.version is not HttpVersion11 or message.chunked or message.url.absolute:
            refusal = _refusal(message, message.url, guard)
            if refusal is not None:
                message = message._replace(url=URL("/"), version=HttpVersion11)
        request = make(message, payload, protocol, writer, task)
        protocol.refusal = refusal
        protocol.begin(request)
        return request

    return make_request


def _refusal(message: Any, target: URL, guard: OriginGuard) -> RequestError | None:
    """The refusal of a request of another version, with an absolute target, or chunked."""
    if message.version not in VERSIONS:
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
    except ValueError:  # not a host name (RFC 3490), or not a port
        return BadHost()
    if target.scheme not in {"", "http", "https"} or target.raw_user is not None:
        return RequestError("the address is not one of http, or names a user")
    # The target overrides the header Host (RFC 9112, 3.2.2).
    error = guard.host_error(host)
    return None if error is None else error()


def check_expectation(request: web.BaseRequest) -> None:
    """Raises ExpectationFailed for an expectation other than 100-continue (RFC 9110, 10.1.1)."""
    if "Expect" in request.headers and request.version >= (1, 1):
        expectations = ",".join(request.headers.getall("Expect")).split(",")
        if any(each.strip().lower() not in {"100-continue", ""} for each in expectations):
            raise ExpectationFailed


def refusal_response(
    request: web.BaseRequest, error: BaseException, request_id: str
) -> web.Response:
    """The response to a request that no application handles."""
    response = problem.response(error, request.rel_url.raw_path, request_id, None)
    set_default_headers(response.headers, request_id)
    return response


def refusal_bytes(error: RequestError) -> bytes:
    """The response on a connection that is refused before it has sent a request."""
    request_id = RequestIds().new()
    response = problem.response(error, "", request_id, None)
    set_default_headers(response.headers, request_id)
    body = response.body
    assert isinstance(body, bytes)
    headers = {
        **response.headers,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {response.status} {response.reason}\r\n{lines}\r\n".encode() + body


def asks_for_upgrade(request: web.BaseRequest) -> bool:
    """Whether another protocol may follow *request*: it has Upgrade, or is a CONNECT.

    What follows is no request then, so the connection is closed (RFC 9110, 7.8 and 9.3.6).
    """
    return request._message.upgrade
