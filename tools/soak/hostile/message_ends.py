"""Requests whose end two parsers may see at different places (RFC 9112, 11.2)."""

from typing import NamedTuple

HOST = b"Host: localhost\r\n"
CLOSE = b"Connection: close\r\n"
JSON = b"Content-Type: application/json\r\n"
POST = b"POST /v1/jobs HTTP/1.1\r\n" + HOST + JSON
CHUNKED = b"Transfer-Encoding: chunked\r\n"
JOB = b'{"type":"echo"}'
IN_CHUNKS = b"f\r\n" + JOB + b"\r\n0\r\n\r\n"

#: The tag of a job that must not be submitted: the request is in the body of another one.
MARK = "smuggled"
_HIDDEN_JOB = b'{"type":"echo","tags":["smuggled"]}'
#: A whole request. Where it is executed, a proxy in front would have passed it on unseen.
HIDDEN = (
    b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % len(_HIDDEN_JOB) + _HIDDEN_JOB
)


class Shape(NamedTuple):
    """The bytes of a connection, and the statuses of all its responses."""

    sent: bytes
    statuses: tuple[int, ...]


def _length(value: object) -> bytes:
    return b"Content-Length: %b\r\n" % str(value).encode()


def _with_length(value: object, *statuses: int) -> Shape:
    """A request whose Content-Length is *value*, and another request in its body or behind it."""
    return Shape(POST + _length(value) + b"\r\n" + JOB + HIDDEN, statuses)


def _with_coding(field: bytes, *statuses: int) -> Shape:
    """A request in chunks whose transfer coding is written as *field*, and another one behind."""
    return Shape(POST + field + b"\r\n0\r\n\r\n" + HIDDEN, statuses)


def _with_length_and(field: bytes, *statuses: int) -> Shape:
    """A request whose Content-Length counts, or the transfer coding *field*, which is not one."""
    body = b"0\r\n\r\n" + HIDDEN
    return Shape(POST + CLOSE + _length(len(body)) + field + b"\r\n" + body, statuses)


def _with_chunks(chunks: bytes, *statuses: int) -> Shape:
    return Shape(POST + CHUNKED + b"\r\n" + chunks + HIDDEN, statuses)


#: Two lengths, or a length that is no number.
LENGTHS = {
    "a length and chunks": Shape(POST + _length(5) + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN, (400,)),
    "chunks and a length": Shape(POST + CHUNKED + _length(5) + b"\r\n0\r\n\r\n" + HIDDEN, (400,)),
    "two lengths": Shape(POST + _length(15) + _length(0) + b"\r\n" + JOB + HIDDEN, (400,)),
    "the same length twice": Shape(POST + _length(15) * 2 + b"\r\n" + JOB + HIDDEN, (400,)),
    "a list of lengths": _with_length("15, 15", 400),
    "a signed length": _with_length("+15", 400),
    "a negative length": _with_length("-1", 400),
    "a length in base 16": _with_length("0x0f", 400),
    "a length with a space": _with_length("1 5", 400),
    "a length with a parameter": _with_length("15;a=b", 400),
    "a length with an underscore": _with_length("1_5", 400),
    "a length with a fraction": _with_length("15.0", 400),
    "a length in other digits": _with_length("\uff11\uff15", 400),
    "a length after a vertical tab": _with_length("\v15", 400),
    "an empty length": _with_length("", 400),
    "a length of 64 bits": _with_length(2**64 + 15, 400),
    "a length of thirty digits": _with_length(10**30, 400),
    "a length in quotes": _with_length('"15"', 400),
    "a body of GET": Shape(
        b"GET /healthz HTTP/1.1\r\n" + HOST + CLOSE + _length(len(HIDDEN)) + b"\r\n" + HIDDEN,
        (200,),
    ),
    "a body of DELETE": Shape(
        b"DELETE /v1/webhooks/x HTTP/1.1\r\n" + HOST + CLOSE + _length(len(HIDDEN)) + b"\r\n"
        + HIDDEN,
        (404,),
    ),
    "a body that is not read": Shape(
        b"POST /nothing HTTP/1.1\r\n" + HOST + CLOSE + _length(len(HIDDEN)) + b"\r\n" + HIDDEN,
        (404,),
    ),
    "a body of HEAD": Shape(
        b"HEAD /healthz HTTP/1.1\r\n" + HOST + CLOSE + _length(len(HIDDEN)) + b"\r\n" + HIDDEN,
        (200,),
    ),
}  # fmt: skip

#: A transfer coding that some parsers read as chunked.
CODINGS = {
    "two codings": _with_coding(CHUNKED + b"Transfer-Encoding: identity\r\n", 400),
    "identity before": _with_coding(b"Transfer-Encoding: identity\r\n" + CHUNKED, 400),
    "chunked twice": _with_coding(CHUNKED * 2, 400),
    "chunked in a list": _with_coding(b"Transfer-Encoding: identity, chunked\r\n", 501),
    "chunked first": _with_coding(b"Transfer-Encoding: chunked, identity\r\n", 400),
    "a list of chunked": _with_coding(b"Transfer-Encoding: chunked, chunked\r\n", 400),
    "another coding": _with_coding(b"Transfer-Encoding: xchunked\r\n", 400),
    "a coding in quotes": _with_coding(b'Transfer-Encoding: "chunked"\r\n', 400),
    "a coding with a parameter": _with_coding(b"Transfer-Encoding: chunked;a=b\r\n", 400),
    "a coding after a vertical tab": _with_coding(b"Transfer-Encoding: \x0bchunked\r\n", 400),
    "a coding after a null": _with_coding(b"Transfer-Encoding: \0chunked\r\n", 400),
    "a coding after a no-break space": _with_coding(b"Transfer-Encoding: \xa0chunked\r\n", 400),
    "an empty coding": _with_coding(b"Transfer-Encoding:\r\n", 400),
    "a coding with a comma": _with_coding(b"Transfer-Encoding: ,chunked\r\n", 501),
    "a space before the colon": _with_coding(b"Transfer-Encoding : chunked\r\n", 400),
    "a tab before the colon": _with_coding(b"Transfer-Encoding\t: chunked\r\n", 400),
    "a null in the name": _with_coding(b"Transfer\0Encoding: chunked\r\n", 400),
    "a folded coding": _with_coding(b"Transfer-Encoding:\r\n chunked\r\n", 400),
    "a coding in a folded line": _with_coding(b"X: y\r\n\tTransfer-Encoding: chunked\r\n", 400),
    "a folded line at first": Shape(
        b"POST /v1/jobs HTTP/1.1\r\n Transfer-Encoding: chunked\r\n" + HOST + JSON
        + b"\r\n0\r\n\r\n" + HIDDEN,
        (400,),
    ),
    "a coding after a bare return": _with_coding(b"X: y\rTransfer-Encoding: chunked\r\n", 400),
    "a coding after a bare newline": _with_coding(b"X: y\nTransfer-Encoding: chunked\r\n", 400),
    "another name": _with_length_and(b"Transfer_Encoding: chunked\r\n", 400),
    "a name that is no token": _with_length_and(b"Transfer-Encodin\xc7: chunked\r\n", 400),
    "chunks of HTTP/1.0": Shape(
        (POST + CHUNKED + b"\r\n0\r\n\r\n").replace(b"1.1", b"1.0") + HIDDEN, (400,)
    ),
    "a length and chunks of HTTP/1.0": Shape(
        (POST + _length(5) + CHUNKED + b"\r\n0\r\n\r\n").replace(b"1.1", b"1.0") + HIDDEN, (400,)
    ),
    "chunks of GET": Shape(
        b"GET /healthz HTTP/1.1\r\n" + HOST + CLOSE + CHUNKED + b"\r\n"
        + b"%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n0\r\n\r\n",
        (200,),
    ),
}  # fmt: skip

#: Chunks whose size or end is ambiguous (RFC 9112, 7.1).
CHUNKS = {
    "an extension": Shape(
        POST + CLOSE + CHUNKED + b'\r\nf;a=b;c="d;e"\r\n' + JOB + b"\r\n0\r\n\r\n", (202,)
    ),
    "an extension that ends in a newline": _with_chunks(b"2;\nxx\r\n4c\r\n" + JOB, 400),
    "an extension with a return": _with_chunks(b"f;a\rb\r\n" + JOB + b"\r\n0\r\n\r\n", 400),
    "an extension with a null": _with_chunks(b"f;a=\0\r\n" + JOB + b"\r\n0\r\n\r\n", 400),
    "an extension that never ends": _with_chunks(b"f;" + b"a" * 1_000_000, 400),
    "a size that ends in a newline": _with_chunks(b"f\n" + JOB + b"\r\n0\r\n\r\n", 400),
    "a size that ends in a return": _with_chunks(b"f\r" + JOB + b"\r\n0\r\n\r\n", 400),
    "a space after the size": _with_chunks(b"f \r\n" + JOB + b"\r\n0\r\n\r\n", 400),
    "a space before the size": _with_chunks(b" f\r\n" + JOB + b"\r\n0\r\n\r\n", 400),
    "a prefix of base 16": _with_chunks(b"0xf\r\n" + JOB + b"\r\n0\r\n\r\n", 400),
    "a signed size": _with_chunks(b"+f\r\n" + JOB + b"\r\n0\r\n\r\n", 400),
    "a negative size": _with_chunks(b"-1\r\n" + JOB + b"\r\n0\r\n\r\n", 400),
    "an empty size": _with_chunks(b"\r\n" + JOB + b"\r\n0\r\n\r\n", 400),
    "a size of 64 bits": _with_chunks(b"ffffffffffffffff\r\n" + JOB, 400),
    "a size of more bits": _with_chunks(b"1000000000000000f\r\n" + JOB + b"\r\n0\r\n\r\n", 400),
    "a size that overflows": _with_chunks(b"f" * 99 + b"\r\n" + JOB, 400),
    "a chunk with another end": _with_chunks(b"f\r\n" + JOB + b"XX0\r\n\r\n", 400),
    "a chunk that ends in a newline": _with_chunks(b"f\r\n" + JOB + b"\n0\r\n\r\n", 400),
    "a chunk longer than its size": _with_chunks(b"5\r\n" + JOB + b"\r\n0\r\n\r\n", 400),
    "an end of newlines": _with_chunks(b"f\r\n" + JOB + b"\r\n0\n\n", 400),
    "no end": Shape(POST + CHUNKED + b"\r\nf\r\n" + JOB + b"\r\n", (400,)),
    "chunks of a byte": Shape(
        POST + CLOSE + CHUNKED + b"\r\n"
        + b"".join(b"1\r\n%c\r\n" % each for each in JOB + b" " * 20_000) + b"0\r\n\r\n",
        (202,),
    ),
    "a trailer": Shape(
        POST + CLOSE + CHUNKED + b"\r\n" + IN_CHUNKS[:-2] + b"X: y\r\n\r\n", (202,)
    ),
    "a trailer with a length": Shape(
        POST + CLOSE + CHUNKED + b"\r\n" + IN_CHUNKS[:-2] + _length(9) + b"\r\n" + HIDDEN, (400,)
    ),
    "a trailer with a coding": Shape(
        POST + CLOSE + CHUNKED + b"\r\n" + IN_CHUNKS[:-2] + CHUNKED + b"\r\n" + HIDDEN, (400,)
    ),
    "a trailer with a host": Shape(
        POST + CLOSE + CHUNKED + b"\r\n" + IN_CHUNKS[:-2] + b"Host: evil.example\r\n\r\n", (202,)
    ),
    "a trailer with newlines": _with_chunks(IN_CHUNKS[:-2] + b"X: y\n\n", 400),
    "a trailer that is no field": _with_chunks(IN_CHUNKS[:-2] + b"no field\r\n\r\n", 400),
    "many trailers": Shape(
        POST + CLOSE + CHUNKED + b"\r\n" + IN_CHUNKS[:-2] + b"X: y\r\n" * 10_000 + b"\r\n", (431,)
    ),
    "a trailer that never ends": Shape(
        POST + CLOSE + CHUNKED + b"\r\n" + IN_CHUNKS[:-2] + b"X: " + b"y" * 1_000_000, (431,)
    ),
}  # fmt: skip

#: Switches of the protocol that are declined: what follows is no other protocol, and no request
#: that was hidden in a body.
UPGRADES = {
    "an upgrade to h2c": Shape(
        b"GET /healthz HTTP/1.1\r\n" + HOST
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
        (200,),
    ),
    "an upgrade to websocket": Shape(
        b"GET /healthz HTTP/1.1\r\n" + HOST
        + b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        + b"Sec-WebSocket-Key: x\r\n\r\n\x81\x85aaaa" + HIDDEN,
        (200,),
    ),
    "an upgrade with a body": Shape(
        POST + _length(15) + b"Connection: close, upgrade\r\nUpgrade: websocket\r\n\r\n" + JOB
        + HIDDEN,
        (202,),
    ),
    "an upgrade with a length that hides": Shape(
        b"GET /healthz HTTP/1.1\r\n" + HOST + _length(len(HIDDEN))
        + b"Connection: close, upgrade\r\nUpgrade: websocket\r\n\r\n" + HIDDEN,
        (200,),
    ),
    "the preface of HTTP/2": Shape(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN, (400,)),
    "a hello of TLS": Shape(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500, (400,)),
    "a tunnel with a length": Shape(
        b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + _length(len(HIDDEN)) + b"\r\n" + HIDDEN,
        (404,),
    ),
    "a tunnel in chunks": Shape(
        b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n" + HIDDEN, (404,)
    ),
    "a tunnel": Shape(b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN, (404,)),
}  # fmt: skip

SHAPES = LENGTHS | CODINGS | CHUNKS | UPGRADES
