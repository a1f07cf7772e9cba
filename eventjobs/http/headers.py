"""Request headers that are lists, on one line or several (RFC 9110, 5.3 and 5.6.1)."""

import re
from functools import lru_cache

from aiohttp import web

from eventjobs.errors import PreconditionFailed

_STREAM = ("text", "event-stream")
_JSON = ("application", "json")

#: A member of a list, and a part of a member: a quoted string may hold the separator.
_MEMBER = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
_PART = re.compile(r'(?:[^;"]|"(?:[^"\\]|\\.)*"?)+')
_WEIGHT = re.compile(r"0(?:\.\d*)?|1(?:\.0*)?")
#: An entity tag (RFC 9110, 8.8.3); a backslash in it quotes nothing.
_TAG = re.compile(r'(?:W/)?"[^"]*"')


def joined(request: web.BaseRequest, name: str) -> str:
    """All lines of a header as one; empty where there is none."""
    return ", ".join(request.headers.getall(name, ()))


def media_type(request: web.BaseRequest) -> str:
    """What Content-Type says, in small letters and without parameters."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def preference(request: web.BaseRequest, name: str) -> str | None:
    """The value of a preference (RFC 7240, 2); of several with one name the first counts."""
    for member in _MEMBER.findall(joined(request, "Prefer")):
        key, _, value = _parts(member)[0].partition("=")
        if key.strip().lower() == name:
            return str(value.strip().strip('"'))
    return None


def _parts(member: str) -> list[str]:
    return _PART.findall(member) or [""]


# --- Accept: JSON or a stream (RFC 9110, 12.4.2 and 12.5.1)


def wants_stream(request: web.BaseRequest) -> bool:
    """Whether the client would rather have server-sent events than JSON."""
    accept = request.headers.get("Accept")
    return accept is not None and _prefers_stream(joined(request, "Accept"))


@lru_cache(maxsize=256)
def _prefers_stream(accept: str) -> bool:
    """A stream has to be named, since one that nobody expects never ends; and JSON not be
    preferred to it. A member that cannot be read counts as if it were not there.
    """
    ranges = [each for each in map(_range, _MEMBER.findall(accept)) if each is not None]
    stream, named = _quality(ranges, _STREAM)
    json, _ = _quality(ranges, _JSON)
    return named == len(_STREAM) and stream > 0 and stream >= json


_Range = tuple[str, str, float]


def _range(member: str) -> _Range | None:
    """A media range: type, subtype and weight."""
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
    """The weight of *wanted* by the most specific range, and how many of its parts that names."""
    found = {
        2 - (kind, subtype).count("*"): weight
        for kind, subtype, weight in ranges
        if kind in (wanted[0], "*") and subtype in (wanted[1], "*")
    }
    named = max(found, default=0)
    return found.get(named, 0.0), named


# --- conditional requests (RFC 9110, 13)


def is_conditional(request: web.BaseRequest) -> bool:
    headers = request.headers
    return "If-Match" in headers or "If-None-Match" in headers


def is_known(request: web.BaseRequest, etag: str) -> bool:
    """Whether If-None-Match has *etag*: compared weakly (13.1.2)."""
    if "If-None-Match" not in request.headers:
        return False
    text = joined(request, "If-None-Match")
    return text.strip() == "*" or _opaque(etag) in map(_opaque, _TAG.findall(text))


def check_match(request: web.BaseRequest, etag: str | None) -> None:
    """Raises PreconditionFailed unless If-Match, where there is one, has *etag*: compared strongly,
    so that a weak tag never matches (13.1.1). None is a resource that is not there.
    """
    if "If-Match" not in request.headers:
        return
    text = joined(request, "If-Match")
    if etag is not None and (text.strip() == "*" or _strong(etag, text)):
        return
    raise PreconditionFailed(f"If-Match does not hold: the ETag is {etag or 'none'}")


def check_command(request: web.BaseRequest, etag: str | None) -> None:
    """The conditions of a command on a resource with *etag*, in the order of 13.2.2.

    Raises PreconditionFailed.
    """
    check_match(request, etag)
    if etag is not None and is_known(request, etag):
        raise PreconditionFailed("If-None-Match does not hold: it is there, and has that tag")


def _strong(etag: str, text: str) -> bool:
    return not etag.startswith("W/") and etag in _TAG.findall(text)


def _opaque(etag: str) -> str:
    return etag.removeprefix("W/")
