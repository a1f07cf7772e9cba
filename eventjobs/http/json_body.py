"""JSON bodies as models, within limits on size, depth and numbers."""

import re
from collections.abc import Callable
from json import loads as load_json
from typing import Any, NamedTuple, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from eventjobs.domain.validation import field_errors
from eventjobs.errors import InvalidInput, TooLarge
from eventjobs.http.request_body import read_body
from eventjobs.http.request_errors import MalformedJSON
from eventjobs.service import Service
from eventjobs.settings import Settings
from eventjobs.storable import DEPTH_MAX

Model = TypeVar("Model", bound=BaseModel)

#: The digits of an integer that may exceed 64 bits.
LONG_NUMBER = re.compile(rb"\d{19}")
INTEGER_MAX = 2**64 - 1
INTEGER_MIN = -(2**63)

#: Bytes of a report besides its result: issues, details, data of progress, names.
REPORT_EXTRA_BYTES = 2**22
#: Levels of JSON around the result of a report.
REPORT_DEPTH = 10


class Limits(NamedTuple):
    """Limits of a JSON body."""

    bytes_max: int
    string_chars_max: int
    keys_max: int
    depth_max: int


def request_limits(settings: Settings) -> Limits:
    """The limits of a client's request."""
    return Limits(
        settings.body_bytes_max, settings.string_chars_max, settings.keys_max, settings.depth_max
    )


def report_limits(settings: Settings) -> Limits:
    """The limits of a report by a remote worker. They admit all that a local handler may report at
    once, such as a result with its issues.
    """
    bytes_max = max(settings.body_bytes_max, settings.result_bytes_max + REPORT_EXTRA_BYTES)
    return Limits(bytes_max, bytes_max, bytes_max, DEPTH_MAX + REPORT_DEPTH)


def child_limits(settings: Settings) -> Limits:
    """The limits of a child job that a handler on a remote worker submits."""
    bytes_max = settings.batch_bytes_max
    return Limits(bytes_max, bytes_max, bytes_max, DEPTH_MAX + REPORT_DEPTH)


async def read_json(
    service: Service,
    request: web.Request,
    model: type[Model],
    limits: Callable[[Settings], Limits] = request_limits,
) -> Model:
    """The body as *model*. Raises InvalidInput naming the fields, TooLarge, RequestError."""
    maximum = limits(service.settings)
    return parse(await read_body(service, request, maximum.bytes_max), model, maximum)


async def read_report(service: Service, request: web.Request, model: type[Model]) -> Model:
    """The report of a remote worker. Raises as *read_json*."""
    return await read_json(service, request, model, report_limits)


def parse(raw: bytes, model: type[Model], limits: Limits) -> Model:
    """The JSON text *raw* as *model*. Raises MalformedJSON, TooLarge, InvalidInput."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise MalformedJSON(f"the body is not JSON: {error}") from error
    if not _within_limits(raw, limits):
        _LimitCheck(limits).check(raw, value)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidInput("the body does not fit", field_errors(error)) from error


def _within_limits(raw: bytes, limits: Limits) -> bool:
    """Whether *raw* is within *limits* by a count of characters: cheap, and nearly always so."""
    return (
        len(raw) <= limits.string_chars_max
        and raw.count(b",") + raw.count(b"{") + raw.count(b"[") < limits.keys_max
        and raw.count(b"{") + raw.count(b"[") <= limits.depth_max
        and LONG_NUMBER.search(raw) is None
    )


class _LimitCheck:
    """Checks a value, level by level."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def check(self, raw: bytes, value: Any) -> None:
        """Raises TooLarge, InvalidInput."""
        keys = 0
        has_large_float = False
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
                    has_large_float = True
            if keys > self._limits.keys_max:
                raise TooLarge(f"more than {self._limits.keys_max} keys and items")
            if not deeper:
                break
            level = deeper
        else:
            raise TooLarge(f"nested deeper than {self._limits.depth_max}")
        if has_large_float:
            # orjson reads an integer beyond 64 bits as a float, without an error.
            load_json(raw, parse_int=_integer)

    def _texts(self, keys: dict[str, Any]) -> None:
        for each in keys:
            self._text(each)

    def _text(self, text: str) -> None:
        if len(text) > self._limits.string_chars_max:
            raise TooLarge(f"a string with more than {self._limits.string_chars_max} characters")


def _integer(digits: str) -> int:
    # The length first: int() takes quadratic time, and refuses very long texts.
    if len(digits) > 20 or not INTEGER_MIN <= int(digits) <= INTEGER_MAX:
        raise InvalidInput("an integer beyond 64 bit; send it as a string")
    return int(digits)
