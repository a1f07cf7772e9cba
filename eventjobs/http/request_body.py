"""Reading a request's body: its limits hold before anything is done with it."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from json import loads as read_slowly
from typing import Any, NamedTuple, TypeVar

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BaseModel, ValidationError

from eventjobs.clock import expire_now, timeout
from eventjobs.domain.validation import field_errors
from eventjobs.errors import InvalidInput, TooLarge
from eventjobs.http.headers import media_type
from eventjobs.http.problem import (
    BodyTimeout,
    MalformedJSON,
    NotReady,
    RequestError,
    UnsupportedMediaType,
)
from eventjobs.service import Service
from eventjobs.settings import Settings
from eventjobs.storable import DEPTH_MAX

Model = TypeVar("Model", bound=BaseModel)

#: Longer than any 64 bit integer that is not at its very end: worth a closer look.
LONG_NUMBER = re.compile(rb"\d{19}")
INTEGER_MAX = 2**64 - 1
INTEGER_MIN = -(2**63)

#: Of a report besides the result: issues, details, data of progress, names.
REPORT_ROOM_BYTES = 2**22
#: And the levels of JSON around it.
REPORT_DEPTH = 10
#: A whole body comes within so many times the setting body_timeout_s, which bounds each pause;
#: and within a second more for so many bytes of it.
PAUSES_MAX = 2
SLOWEST_BYTES_S = 65_536

#: Somebody waits for the next part of the body, until then at most.
_AWAITED = web.RequestKey("awaited", asyncio.Timeout)
_GIVEN_UP = web.RequestKey("given_up", bool)

JSON_TYPES = re.compile(r"application/(?:[\w.-]+\+)?json")


class Limits(NamedTuple):
    """What a JSON body may be so that it can be stored, sent again and read by everyone."""

    bytes_max: int
    string_chars_max: int
    keys_max: int
    depth_max: int


def request_limits(settings: Settings) -> Limits:
    return Limits(
        settings.body_bytes_max, settings.string_chars_max, settings.keys_max, settings.depth_max
    )


def report_limits(settings: Settings) -> Limits:
    """Of what a handler says through a worker: room for all that one of the service itself may say
    at once, a result that becomes no artifact with its issues, say.
    """
    bytes_max = max(settings.body_bytes_max, settings.result_bytes_max + REPORT_ROOM_BYTES)
    return Limits(bytes_max, bytes_max, bytes_max, DEPTH_MAX + REPORT_DEPTH)


def child_limits(settings: Settings) -> Limits:
    """Of a child that a handler submits through a worker; one here has no limit besides memory."""
    bytes_max = settings.batch_bytes_max
    return Limits(bytes_max, bytes_max, bytes_max, DEPTH_MAX + REPORT_DEPTH)


async def read_json(
    service: Service,
    request: web.Request,
    model: type[Model],
    limits: Callable[[Settings], Limits] = request_limits,
) -> Model:
    """The body as *model*. Raises InvalidInput naming the fields, TooLarge, RequestError."""
    allowed = limits(service.settings)
    return parse(await read(service, request, allowed.bytes_max), model, allowed)


async def read_report(service: Service, request: web.Request, model: type[Model]) -> Model:
    """As *read_json*, of what a handler says through a worker."""
    return await read_json(service, request, model, report_limits)


async def read(service: Service, request: web.Request, limit: int) -> bytes:
    """The bytes of a JSON body. Raises UnsupportedMediaType, TooLarge, and as *chunks*."""
    if request.headers.get("Content-Type") != "application/json":
        check_type(request, JSON_TYPES, "application/json")
    if "Content-Encoding" in request.headers:
        check_encoding(request)
    check_length(request, limit)
    content = request.content
    if content.is_eof() and content.exception() is None:
        raw = content.read_nowait()  # all of it came with the headers
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
    """The body as it arrives. Raises BodyTimeout when it stops coming, or comes too slowly,
    RequestError when broken, NotReady when the service stops before it is here.
    """
    clock, pause_s = service.clock, service.settings.body_timeout_s
    waited_s, size = 0.0, 0  # what we do with a part is no time of the client's
    while _GIVEN_UP not in request:
        began_s = clock.monotonic_s()
        left_s = PAUSES_MAX * pause_s + size / SLOWEST_BYTES_S - waited_s
        try:
            async with timeout(clock, max(0.0, min(pause_s, left_s))) as wait:
                request[_AWAITED] = wait
                part = await request.content.readany()
        except TimeoutError as error:
            if _GIVEN_UP in request:
                break
            raise BodyTimeout from error
        except (HttpProcessingError, web.RequestPayloadError, ConnectionError) as error:
            # Its frames hold the reader of the body, which holds the error: megabytes would stay
            # until the next look for cycles, which is seldom.
            error.__traceback__ = None
            raise RequestError("the body is broken, or ended early") from error
        finally:
            del request[_AWAITED]
        if not part:
            return
        waited_s += clock.monotonic_s() - began_s
        size += len(part)
        yield part
    raise NotReady("the service is stopping, and the body was not here in time")


def abandon_body(request: web.BaseRequest) -> None:
    """Wait no longer for what is missing of the body."""
    if request.content.is_eof():
        return
    request[_GIVEN_UP] = True
    if (wait := request.get(_AWAITED)) is not None:
        expire_now(wait)


def check_type(request: web.Request, wanted: re.Pattern[str], named: str) -> None:
    if not wanted.fullmatch(media_type(request)):
        raise UnsupportedMediaType(f"send {named} in Content-Type")


def check_file(request: web.Request) -> None:
    """Raises UnsupportedMediaType for a form: its envelope would be stored with the file."""
    kind = media_type(request)
    if kind.startswith("multipart/") or kind == "application/x-www-form-urlencoded":
        raise UnsupportedMediaType(
            "the body is the file itself, not a form: send application/octet-stream, "
            "as by curl --data-binary @FILE -H 'Content-Type: application/octet-stream'"
        )


def check_encoding(request: web.Request) -> None:
    # A few kilobytes of gzip can be gigabytes; nobody needs that here.
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("send the body without Content-Encoding")


def check_length(request: web.Request, limit: int) -> None:
    if (request.content_length or 0) > limit:
        raise _too_long(limit)


def _too_long(limit: int) -> TooLarge:
    return TooLarge(f"the body has more than {limit} bytes")


def parse(raw: bytes, model: type[Model], limits: Limits) -> Model:
    """*raw* as *model*. Raises MalformedJSON, TooLarge, InvalidInput."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise MalformedJSON(f"the body is not JSON: {error}") from error
    if not _harmless(raw, limits):
        _Check(limits).check(raw, value)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidInput("the body does not fit", field_errors(error)) from error


def _harmless(raw: bytes, limits: Limits) -> bool:
    """Whether no limit can be passed in a text like this: cheap, and nearly always so."""
    return (
        len(raw) <= limits.string_chars_max
        and raw.count(b",") + raw.count(b"{") + raw.count(b"[") < limits.keys_max
        and raw.count(b"{") + raw.count(b"[") <= limits.depth_max
        and LONG_NUMBER.search(raw) is None
    )


class _Check:
    """Whether a value stays within *limits*."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def check(self, raw: bytes, value: Any) -> None:
        """Raises TooLarge, InvalidInput."""
        keys = 0
        suspicious = False
        level = [value]
        for _ in range(self._limits.depth_max + 1):
            deeper: list[Any] = []
            for each in level:
                if isinstance(each, dict):
                    keys += len(each)
                    self._texts(each)
                    deeper += each.values()
                elif isinstance(each, list):
                    keys += len(each)
                    deeper += each
                elif isinstance(each, str):
                    self._text(each)
                elif isinstance(each, float) and abs(each) >= -INTEGER_MIN:
                    suspicious = True
            if keys > self._limits.keys_max:
                raise TooLarge(f"more than {self._limits.keys_max} keys and items")
            if not deeper:
                break
            level = deeper
        else:
            raise TooLarge(f"nested deeper than {self._limits.depth_max}")
        if suspicious:
            # orjson reads an integer beyond 64 bit as a float, and says nothing.
            read_slowly(raw, parse_int=_integer)

    def _texts(self, keys: dict[str, Any]) -> None:
        for each in keys:
            self._text(each)

    def _text(self, text: str) -> None:
        if len(text) > self._limits.string_chars_max:
            raise TooLarge(f"a string with more than {self._limits.string_chars_max} characters")


def _integer(digits: str) -> int:
    # The length first: Python takes quadratic time for very long ones, and refuses them.
    if len(digits) > 20 or not INTEGER_MIN <= int(digits) <= INTEGER_MAX:
        raise InvalidInput("an integer beyond 64 bit; send it as a string")
    return int(digits)
