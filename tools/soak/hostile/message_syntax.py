"""Request lines, targets and header fields that are not as RFC 9112 has them, or are very many."""

import gzip
import zlib

from .message_ends import CLOSE, HIDDEN, HOST, JOB, JSON, POST, Shape

GET = b"GET /healthz HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"
#: Requests in one write; more than the service reads before it has answered some.
PIPELINE = 2_000


def _line(line: bytes, *statuses: int) -> Shape:
    """A request whose first line is *line*, with its end."""
    return Shape(line + HOST + CLOSE + b"\r\n", statuses)


def _field(field: bytes, *statuses: int) -> Shape:
    """A request with the header line *field*, with its end."""
    return Shape(b"GET /healthz HTTP/1.1\r\n" + HOST + field + CLOSE + b"\r\n", statuses)


def _submission(body: bytes, *statuses: int, fields: bytes = JSON) -> Shape:
    head = b"POST /v1/jobs HTTP/1.1\r\n" + HOST + CLOSE + fields
    return Shape(head + b"Content-Length: %d\r\n\r\n" % len(body) + body, statuses)


LINES = {
    "nothing": Shape(b"", ()),
    "empty lines": Shape(b"\r\n" * 5_000, ()),
    "empty lines before a request": Shape(b"\r\n\r\n" + GET, (200,)),
    "a null": Shape(b"\0", (400,)),
    "binary": Shape(bytes(range(256)) * 4, (400,)),
    "half a line": Shape(b"GET /healthz HT", ()),
    "half a head": Shape(GET[:-2], ()),
    "a space before the method": _line(b" GET /healthz HTTP/1.1\r\n", 400),
    "a method in small letters": _line(b"get /healthz HTTP/1.1\r\n", 400),
    "an unknown method": _line(b"BREW /healthz HTTP/1.1\r\n", 400),
    "a method of 8 KiB": _line(b"G" * 8_192 + b" /healthz HTTP/1.1\r\n", 400),
    "a method with a null": _line(b"GE\0T /healthz HTTP/1.1\r\n", 400),
    "no target": _line(b"GET HTTP/1.1\r\n", 400),
    "two spaces": _line(b"GET  /healthz HTTP/1.1\r\n", 200),
    "a tab for a space": _line(b"GET\t/healthz HTTP/1.1\r\n", 400),
    "a second version": _line(b"GET /healthz HTTP/1.1 HTTP/1.1\r\n", 400),
    "a space after the version": _line(b"GET /healthz HTTP/1.1 \r\n", 400),
    "a version in small letters": _line(b"GET /healthz http/1.1\r\n", 400),
    "a version of two digits": _line(b"GET /healthz HTTP/1.10\r\n", 400),
    "a version with a zero": _line(b"GET /healthz HTTP/01.1\r\n", 400),
    "another protocol": _line(b"GET /healthz RTSP/1.0\r\n", 200),
    "a line that ends in a newline": _line(b"GET /healthz HTTP/1.1\n", 400),
    "a line that ends in a return": _line(b"GET /healthz HTTP/1.1\r", 400),
    "a head of newlines": Shape(GET.replace(b"\r\n", b"\n"), (400,)),
    "a head of returns": Shape(GET.replace(b"\r\n", b"\r"), (400,)),
    "a head that ends in newlines": Shape(GET[:-4] + b"\n\n", (400,)),
    "a target with a null": _line(b"GET /\0 HTTP/1.1\r\n", 400),
    "a target with a delete": _line(b"GET /\x7f HTTP/1.1\r\n", 400),
    "a target with a newline": _line(b"GET /a\nb HTTP/1.1\r\n", 400),
    "a target with bytes above ASCII": _line(b"GET /\xff HTTP/1.1\r\n", 400),
    "a target with an encoded newline": _line(b"GET /v1/jobs/%0d%0aX:%20y HTTP/1.1\r\n", 404),
    "a target with dots": _line(b"GET /../../etc/passwd HTTP/1.1\r\n", 404),
    "a target with encoded dots": _line(b"GET /%2e%2e/%2e%2e/healthz HTTP/1.1\r\n", 404),
    "a target with backslashes": _line(b"GET /\\..\\healthz HTTP/1.1\r\n", 404),
    "a target of two slashes": _line(b"GET //healthz HTTP/1.1\r\n", 404),
    "a target with a fragment": _line(b"GET /healthz#a HTTP/1.1\r\n", 200),
    "a target that is a name": _line(b"GET healthz HTTP/1.1\r\n", 400),
    "a target of another host": _line(b"GET http://evil.example/healthz HTTP/1.1\r\n", 421),
    "a target without a host": _line(b"GET http:///healthz HTTP/1.1\r\n", 400),
    "a query of 4,000 parameters": _line(b"GET /v1/jobs?" + b"a&" * 4_000 + b" HTTP/1.1\r\n", 422),
}

FIELDS = {
    "no colon": _field(b"no field\r\n", 400),
    "no name": _field(b": a\r\n", 400),
    "a name with a space": _field(b"X Y: a\r\n", 400),
    "a name with a null": _field(b"X\0: a\r\n", 400),
    "a name in brackets": _field(b"(X): a\r\n", 400),
    "a name above ASCII": _field(b"X\xff: a\r\n", 400),
    "a value with a null": _field(b"X: a\0b\r\n", 400),
    "a value with a return": _field(b"X: a\rb\r\n", 400),
    "a value with an escape": _field(b"X: \x1b[2J\r\n", 400),
    "a value above ASCII": _field(b"X: \xff\xfe\r\n", 200),
    "a folded value": _field(b"X: a\r\n b\r\n", 400),
    "two hosts": _field(b"Host: evil.example\r\n", 400),
    "a host with a path": Shape(b"GET /healthz HTTP/1.1\r\nHost: localhost/x\r\n\r\n", (400,)),
    "a host of two": Shape(b"GET /healthz HTTP/1.1\r\nHost: localhost, evil\r\n\r\n", (400,)),
    "a host with a null": Shape(b"GET /healthz HTTP/1.1\r\nHost: local\0host\r\n\r\n", (400,)),
    "129 fields": _field(b"X: a\r\n" * 129, 431),
    "100,000 fields": _field(b"X: a\r\n" * 100_000, 431),
    "fields of a megabyte": _field(b"X: %b\r\n" % (b"a" * 8_000) * 125, 431),
    "a field that never ends": Shape(GET[:-2] + b"X: " + b"a" * 1_000_000, (431,)),
    "4,000 cookies": _field(b"Cookie: " + b"a=b;" * 2_000 + b"\r\n", 200),
    "4,000 media types": _field(b"Accept: " + b"a/b," * 2_000 + b"\r\n", 200),
    "open quotes": _field(b"Accept: " + b'"' * 8_000 + b"\r\n", 200),
    "open parameters": _field(b"Prefer: " + b";=" * 4_000 + b"\r\n", 200),
    "entity tags": _field(b"If-None-Match: " + b'W/"a",' * 1_200 + b"\r\n", 200),
    "ranges": _field(b"Range: bytes=" + b"0-1," * 2_000 + b"\r\n", 200),
    "an X-Request-ID above ASCII": _field(b"X-Request-ID: \xff\xe9\r\n", 200),
    "an X-Request-ID of 8 KB": _field(b"X-Request-ID: " + b"a" * 8_000 + b"\r\n", 200),
}

MANY = {
    "a pipeline": Shape(GET.replace(CLOSE, b"") * PIPELINE, (200,) * PIPELINE),
    "a pipeline of submissions": Shape(
        (POST + b"Content-Length: %d\r\n\r\n" % len(JOB) + JOB) * 50, (202,) * 50
    ),
    "a request after the last one": Shape(GET + HIDDEN, (400,)),
    "a pipeline after a refusal": Shape(b"\0" + HIDDEN * 50, (400,)),
}

_NESTED = b"[" * 200_000
CODED = JSON + b"Content-Encoding: "

BODIES = {
    "an empty body": _submission(b"", 400),
    "an empty body in chunks": Shape(
        POST + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400,)
    ),
    "a null body": _submission(b"\0" * 1_000, 400),
    "deep lists": _submission(_NESTED, 400),
    "deep lists that end": _submission(_NESTED[:5_000] + b"]" * 5_000, 400),
    "deep objects": _submission(b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400),
    "a deep payload": _submission(
        b'{"type":"echo","payload":' + b"[" * 100 + b"]" * 100 + b"}", 413
    ),
    "many keys": _submission(
        b'{"type":"echo","payload":{' + b",".join(b'"%d":1' % n for n in range(50_000)) + b"}}", 413
    ),
    "a key many times": _submission(b"{" + b'"type":"echo",' * 50_000 + b'"type":"echo"}', 202),
    "a long string": _submission(b'{"type":"echo","payload":"' + b"a" * 900_000 + b'"}', 413),
    "a long number": _submission(b'{"type":"echo","payload":' + b"9" * 900_000 + b"}", 400),
    "a large exponent": _submission(b'{"type":"echo","payload":1e999999}', 400),
    "no number": _submission(b'{"type":"echo","payload":NaN}', 400),
    "half a body": _submission(JOB[:-1], 400),
    "two bodies": _submission(JOB * 2, 400),
    "a byte order mark": _submission(b"\xef\xbb\xbf" + JOB, 400),
    "UTF-16": _submission(JOB.decode().encode("utf-16"), 400),
    "bytes that are no UTF-8": _submission(b'{"type":"echo","payload":"\xff\xfe"}', 400),
    "an overlong slash": _submission(b'{"type":"echo","payload":"\xc0\xaf"}', 400),
    "a surrogate in UTF-8": _submission(b'{"type":"echo","payload":"\xed\xa0\x80"}', 400),
    "half a surrogate": _submission(b'{"type":"echo","payload":"\\ud800"}', 400),
    "a raw newline in a string": _submission(b'{"type":"echo","payload":"\n"}', 400),
    "a body above the limit": _submission(b" " * 1_100_000, 413),
    "a length above the limit": Shape(
        POST + b"Content-Length: 999999999999\r\n\r\n{", (413,)
    ),
    "gzip": _submission(gzip.compress(JOB), 415, fields=CODED + b"gzip\r\n"),
    "a bomb of gzip": _submission(
        gzip.compress(bytes(50_000_000), 9), 415, fields=CODED + b"gzip\r\n"
    ),
    "members of gzip": _submission(
        gzip.compress(b"") * 20_000, 415, fields=CODED + b"gzip\r\n"
    ),
    "a bomb in deflate": _submission(
        zlib.compress(bytes(50_000_000), 9), 415, fields=CODED + b"deflate\r\n"
    ),
    "gzip of gzip": _submission(
        gzip.compress(gzip.compress(bytes(50_000_000), 9)), 415, fields=CODED + b"gzip, gzip\r\n"
    ),
    "brotli": _submission(b"\x0b\x02\x80hello\x03", 415, fields=CODED + b"br\r\n"),
    "an unknown encoding": _submission(JOB, 415, fields=CODED + b"\xff\r\n"),
    "a form": _submission(b"type=echo", 415, fields=b"Content-Type: text/plain\r\n"),
    "no media type": _submission(JOB, 415, fields=b""),
    "a long media type": _submission(JOB, 415, fields=b"Content-Type: " + b"a/" * 4_000 + b"\r\n"),
}  # fmt: skip

SHAPES = LINES | FIELDS | MANY | BODIES
