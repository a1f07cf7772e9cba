"""Request bodies: headers and length are checked, and time limits hold while they arrive."""

import asyncio
import re
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from eventjobs.clock import expire_now, timeout
from eventjobs.errors import InvalidCredential, TooLarge
from eventjobs.http.auth import PRINCIPAL
from eventjobs.http.headers import media_type
from eventjobs.http.request_errors import BodyTimeout, NotReady, RequestError, UnsupportedMediaType
from eventjobs.service import Service

#: The maximum time of a whole body, as a multiple of the setting body_timeout_s, which bounds each
#: pause. A second more is allowed for each SLOWEST_BYTES_S bytes.
PAUSES_MAX = 2
SLOWEST_BYTES_S = 65_536

#: The timeout of the wait for the next part of a body.
_READ_TIMEOUT = web.RequestKey("read_timeout", asyncio.Timeout)
_ABANDONED = web.RequestKey("abandoned", bool)

JSON_TYPES = re.compile(r"application/(?:[\w.-]+\+)?json")


async def read_body(service: Service, request: web.Request, limit: int) -> bytes:
    """The bytes of a JSON body. Raises UnsupportedMediaType, TooLarge, and as *chunks*."""
    if request.headers.get("Content-Type") != "application/json":
        check_type(request, JSON_TYPES, "application/json")
    if "Content-Encoding" in request.headers:
        check_encoding(request)
    check_length(request, limit)
    content = request.content
    if content.is_eof() and content.exception() is None:
        raw = content.read_nowait()  # the whole body has arrived
        if len(raw) > limit:
            raise _too_long(limit)
        return raw
    parts: list[bytes] = []
    size = 0
    async for part in chunks(service, request):
        size += len(part)
        if size > limit:
            raise _too_long(limit)
        parts.append(part)
    return b"".join(parts)


async def chunks(service: Service, request: web.Request) -> AsyncIterator[bytes]:
    """The parts of the body as they arrive. Raises BodyTimeout when it arrives too slowly,
    RequestError when it is broken, InvalidCredential when the credential is revoked or expires
    before its end, and NotReady when the service stops first.
    """
    clock, pause_s = service.clock, service.settings.body_timeout_s
    waited_s, size = 0.0, 0  # seconds of waiting: the caller's own work does not count
    while _ABANDONED not in request:
        began_s = clock.monotonic_s()
        left_s = PAUSES_MAX * pause_s + size / SLOWEST_BYTES_S - waited_s
        try:
            async with timeout(clock, max(0.0, min(pause_s, left_s))) as wait:
                request[_READ_TIMEOUT] = wait
                part = await request.content.readany()
        except TimeoutError as error:
            if _ABANDONED in request:
                break
            raise BodyTimeout from error
        except (HttpProcessingError, web.RequestPayloadError, ConnectionError) as error:
            # The frames of the error refer to the reader of the body, which refers to the error:
            # the cycle would keep the body in memory until the next garbage collection.
            error.__traceback__ = None
            raise RequestError("the body is broken, or ended early") from error
        finally:
            del request[_READ_TIMEOUT]
        principal = request.get(PRINCIPAL)
        if principal is not None and not service.credentials.is_valid(principal):
            raise InvalidCredential
        if not part:
            return
        waited_s += clock.monotonic_s() - began_s
        size += len(part)
        yield part
    raise NotReady("the service is stopping, and the body did not arrive in time")


def abandon_body(request: web.BaseRequest) -> None:
    """Stop waiting for the rest of the body: *chunks* raises NotReady."""
    if request.content.is_eof():
        return
    request[_ABANDONED] = True
    if (wait := request.get(_READ_TIMEOUT)) is not None:
        expire_now(wait)


def check_type(request: web.Request, types: re.Pattern[str], name: str) -> None:
    """Raises UnsupportedMediaType for a Content-Type that does not match; the error has *name*."""
    if not types.fullmatch(media_type(request)):
        raise UnsupportedMediaType(f"send {name} in Content-Type")


def check_file(request: web.Request) -> None:
    """Raises UnsupportedMediaType for a form: its encoding would be stored with the file."""
    kind = media_type(request)
    if kind.startswith("multipart/") or kind == "application/x-www-form-urlencoded":
        raise UnsupportedMediaType(
            "the body is the file itself, not a form: send application/octet-stream, "
            "as by curl --data-binary @FILE -H 'Content-Type: application/octet-stream'"
        )


def check_encoding(request: web.Request) -> None:
    """Raises UnsupportedMediaType for a compressed body: kilobytes may expand to gigabytes."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("send the body without Content-Encoding")


def check_length(request: web.Request, limit: int) -> None:
    """Raises TooLarge where Content-Length is above *limit* bytes."""
    if (request.content_length or 0) > limit:
        raise _too_long(limit)


def _too_long(limit: int) -> TooLarge:
    return TooLarge(f"the body has more than {limit} bytes")
