"""The responses on a connection, read strictly by RFC 9112 and RFC 9457."""

import re
from typing import NamedTuple

import orjson

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) [A-Za-z -]+")
#: No byte that a proxy or a terminal may take for something else.
_FIELD = re.compile(rb"([A-Za-z][A-Za-z-]*): ([\x20-\x7e]*)")
_REQUEST_ID = re.compile("[A-Za-z0-9._-]{1,64}")
_SIZE = re.compile(rb"[0-9a-f]{1,8}")
_WITHOUT_BODY = {204, 304}
#: Statuses above 500 that say what the request asks for, and not that the service has failed.
UNSUPPORTED = {501, 505}


class Malformed(Exception):
    """The bytes of the service are not as its documentation has them."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def read_answers(received: bytes, *, heads: bool = False) -> list[Answer]:
    """The responses in *received*, all of them; *heads* when the requests were HEAD.

    Raises Malformed for one that is not of HTTP, an error that is not a problem, and a failure.
    """
    answers = []
    while received:
        answer, received = _read_answer(received, heads=heads)
        if answer.status != 100:
            _check(answer, heads=heads)
            answers.append(answer)
    return answers


def _read_answer(received: bytes, *, heads: bool) -> tuple[Answer, bytes]:
    """The first response, and the bytes after it."""
    head, separator, rest = received.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    match = _STATUS.fullmatch(first)
    _require(bool(separator) and match is not None, "no status line", head)
    assert match is not None
    status = int(match[1])
    headers: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        _require(field is not None, "no header", line)
        assert field is not None
        name = field[1].decode().lower()
        _require(name not in headers, "a header twice", line)
        headers[name] = field[2].decode()
    if heads or status in _WITHOUT_BODY or status < 200:
        return Answer(status, headers, b""), rest
    if "transfer-encoding" in headers:
        body, rest = _read_chunks(rest)
        return Answer(status, headers, body), rest
    size = int(headers.get("content-length", len(rest)))
    _require(len(rest) >= size, f"fewer bytes than {size}", rest)
    return Answer(status, headers, rest[:size]), rest[size:]


def _read_chunks(rest: bytes) -> tuple[bytes, bytes]:
    body: list[bytes] = []
    while True:
        line, separator, rest = rest.partition(b"\r\n")
        _require(bool(separator) and _SIZE.fullmatch(line) is not None, "no size of a chunk", line)
        size = int(line, 16)
        chunk, rest = rest[:size], rest[size:]
        _require(len(chunk) == size and rest.startswith(b"\r\n"), "no end of a chunk", chunk)
        rest = rest[2:]
        if size == 0:
            return b"".join(body), rest
        body.append(chunk)


def _check(answer: Answer, *, heads: bool) -> None:
    headers = answer.headers
    _require(answer.status < 500 or answer.status in UNSUPPORTED, "a failure", answer)
    _require(headers.get("x-content-type-options") == "nosniff", "no nosniff", answer)
    _require(headers.get("server") == "eventjobs", "another server", answer)
    request_id = headers.get("x-request-id", "")
    _require(_REQUEST_ID.fullmatch(request_id) is not None, "no request id", answer)
    if answer.status < 400:
        return
    _require(headers.get("content-type") == "application/problem+json", "no problem", answer)
    if not heads:
        problem = orjson.loads(answer.body)
        _require(problem["status"] == answer.status, "another status in the problem", answer)
        _require(problem["request_id"] == request_id, "another request id", answer)
        _require(re.fullmatch("[a-z_]+", problem["code"]) is not None, "no code", answer)


def _require(holds: bool, what: str, part: object) -> None:
    if not holds:
        raise Malformed(f"{what}: {part!r:.500}")
