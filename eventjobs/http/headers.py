"""Request headers: lists on one or several lines (RFC 9110, 5.3 and 5.6.1), and conditions."""

import re
from functools import lru_cache

from aiohttp import web

from eventjobs.errors import PreconditionFailed

_STREAM = ("text", "event-stream")
_JSON = ("application", "json")

#: A member of a list, and a part of a member. A quoted string may contain the separator.
_MEMBER = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
_PART = re.compile(r'(?:[^;"]|"(?:[^"\\]|\\.)*"?)+')
#: A name or an address, and a port (RFC 3986, 3.2).
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::([0-9]{0,10}))?")
_WEIGHT = re.compile(r"0(?:\.\d*)?|1(?:\.0*)?")
#: An entity tag (RFC 9110, 8.8.3). A backslash is an ordinary character in it.
_TAG = re.compile(r'(?:W/)?"[^"]*"')
#: The position of a cursor that is not a number: beyond every log.
_NEVER = 2**62


def header_list(request: web.BaseRequest, name: str) -> str:
    """All lines of a header joined by commas; empty without the header."""
    return ", ".join(request.headers.getall(name, ()))


@lru_cache(maxsize=256)
def host_name(host: str) -> str | None:
    """The name or address in *host*, which may have a port, in lower case and without brackets;
    None where it is malformed.
    """
    match = _HOST.fullmatch(host)
    if match is None or int(match[2] or 0) > 65_535:
        return None
    return match[1].strip("[]").lower()


def media_type(request: web.BaseRequest) -> str:
    """The media type in Content-Type, in lower case and without parameters."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def preference(request: web.BaseRequest, name: str) -> str | None:
    """The value of a preference; the first one where it is repeated (RFC 7240, 2)."""
    for member in _MEMBER.findall(header_list(request, "Prefer")):
        key, _, value = _parts(member)[0].partition("=")
        if key.strip().lower() == name:
            return str(value.strip().strip('"'))
    return None


def _last_event_id(request: web.BaseRequest) -> str | None:
    """The query parameter `lastEventId`, in any spelling, of an EventSource that cannot send the
    header Last-Event-ID.
    """
    for name, value in request.query.items():
        if name.replace("-", "").replace("_", "").lower() == "lasteventid":
            return value
    return None


def stream_cursor(request: web.BaseRequest, after: int | None) -> tuple[int, bool]:
    """The position to start after, and whether an EventSource resumes there.

    The cursor of an EventSource wins over *after*. It is a header, or a parameter from clients
    that cannot send headers.
    """
    last_id = request.headers.get("Last-Event-ID") or _last_event_id(request)
    if not last_id:
        return after or 0, False
    is_position = last_id.isascii() and last_id.isdigit() and len(last_id) < 19
    return int(last_id) if is_position else _NEVER, True


def _parts(member: str) -> list[str]:
    return _PART.findall(member) or [""]


# --- Accept: JSON or a stream (RFC 9110, 12.4.2 and 12.5.1)


def wants_stream(request: web.BaseRequest) -> bool:
    """Whether the client prefers server-sent events to JSON."""
    accept = request.headers.get("Accept")
    return accept is not None and _prefers_stream(header_list(request, "Accept"))


@lru_cache(maxsize=256)
def _prefers_stream(accept: str) -> bool:
    """Whether *accept* names text/event-stream, with no lower weight than JSON. A wildcard does not
    count: a client that expects JSON would wait for ever. Malformed members are ignored.
    """
    ranges = [each for each in map(_range, _MEMBER.findall(accept)) if each is not None]
    stream, named = _quality(ranges, _STREAM)
    json, _ = _quality(ranges, _JSON)
    return named == len(_STREAM) and stream > 0 and stream >= json


_Range = tuple[str, str, float]


def _range(member: str) -> _Range | None:
    """A media range: type, subtype and weight; None where it is malformed."""
    name, *parameters = _parts(member)
    kind, slash, subtype = name.strip().lower().partition("/")
    if not slash:
        return None
    for each in parameters:
        key, _, value = each.partition("=")
        if key.strip().lower() == "q":
            weight = value.strip()
            return (kind, subtype, float(weight)) if _WEIGHT.fullmatch(weight) else None
    return kind, subtype, 1.0


def _quality(ranges: list[_Range], wanted: tuple[str, str]) -> tuple[float, int]:
    """The weight of *wanted* in its most specific range, and how many parts that range names."""
    weights = {
        2 - (kind, subtype).count("*"): weight
        for kind, subtype, weight in ranges
        if kind in (wanted[0], "*") and subtype in (wanted[1], "*")
    }
    named = max(weights, default=0)
    return weights.get(named, 0.0), named


# --- conditional requests (RFC 9110, 13)


def is_conditional(request: web.BaseRequest) -> bool:
    """Whether the request has If-Match or If-None-Match."""
    headers = request.headers
    return "If-Match" in headers or "If-None-Match" in headers


def is_known(request: web.BaseRequest, etag: str) -> bool:
    """Whether If-None-Match contains *etag*, by weak comparison (13.1.2)."""
    if "If-None-Match" not in request.headers:
        return False
    text = header_list(request, "If-None-Match")
    return text.strip() == "*" or _opaque(etag) in map(_opaque, _TAG.findall(text))


def check_match(request: web.BaseRequest, etag: str | None) -> None:
    """Raises PreconditionFailed where If-Match does not contain *etag*, by strong comparison: a
    weak tag never matches (13.1.1). *etag* is None for a resource that does not exist.
    """
    if "If-Match" not in request.headers:
        return
    text = header_list(request, "If-Match")
    if etag is not None and (text.strip() == "*" or _strong(etag, text)):
        return
    raise PreconditionFailed(f"If-Match does not hold: the ETag is {etag or 'none'}")


def check_command(request: web.BaseRequest, etag: str | None) -> None:
    """Check the conditions of a command on a resource with *etag*, in the order of 13.2.2.

    Raises PreconditionFailed.
    """
    check_match(request, etag)
    if etag is not None and is_known(request, etag):
        raise PreconditionFailed("If-None-Match does not hold: the resource exists with that ETag")


def _strong(etag: str, text: str) -> bool:
    return not etag.startswith("W/") and etag in _TAG.findall(text)


def _opaque(etag: str) -> str:
    return etag.removeprefix("W/")
