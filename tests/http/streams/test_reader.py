"""The reader of the stream tests, tested itself."""

import pytest

from tests.support.stream_reader import Chunks, Message, Wire, whatwg


def test_the_reader_dispatches_as_a_browser_does() -> None:
    stream = (
        b"\xef\xbb\xbf: hello\n\nretry: 5\n\n"
        b"id: 1\nevent: job\ndata: a\rdata:b\r\ndata\n\n"
        b"id: 2\n\ndata: x\n\nid: 3\0\ndata:  y\n\nid: 4\ndata: lost"
    )
    assert whatwg(stream) == [
        Message("job", "a\nb\n", "1"),
        Message("message", "x", "2"),
        Message("message", " y", "2"),
    ]


def test_the_reader_takes_what_the_service_writes_however_it_is_cut() -> None:
    body = 'retry: 9\n:\n\nid: 7\nevent: job\ndata: "\u2028é"\n\n:\n\nid: 8\n\n'.encode()
    whole = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:30], body[30:], b""))
    for cut in range(1, 20):
        wire, chunks = Wire(), Chunks()
        parts = [whole[at : at + cut] for at in range(0, len(whole), cut)]
        read = [each for part in parts for each in wire.feed(chunks.feed(part))]
        assert read == [Message("job", '"\u2028é"', "7")]
        assert (wire.last_id, wire.retries, wire.beats, chunks.ended) == ("8", [9], 1, True)


@pytest.mark.parametrize(
    "bad",
    [
        b"id: 1\r\n\n",
        b"data: a\0\n\n",
        b"id:1\nevent: job\ndata: {}\n\n",
        b"id: x\nevent: job\ndata: {}\n\n",
        b"id: 01\n\n",
        b"event: job\ndata: {}\nid: 1\n\n",
        b"id: 1\ndata: {}\n\n",
        b"id: 1\nevent: job\ndata: {}\ndata: {}\n\n",
        b"\n\n",
        b"foo: bar\n\n",
        b"id: 2\n\nid: 1\n\n",
        b"event: end\ndata: \xff\n\n",
    ],
)
def test_the_reader_takes_nothing_else(bad: bytes) -> None:
    with pytest.raises((AssertionError, UnicodeDecodeError)):
        Wire().feed(bad)


@pytest.mark.parametrize(
    "bad", [b"5;x=y\r\nhello\r\n", b"5\r\nhelloXX", b"A\r\n", b"0\r\n\r\n0", b"hello world"]
)
def test_the_reader_takes_no_chunks_that_are_none(bad: bytes) -> None:
    with pytest.raises(AssertionError):
        Chunks().feed(bad)
