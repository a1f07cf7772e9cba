"""The protocol of Redis: commands in any pieces, garbage, limits; and patterns."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventjobs.resp import protocol
from eventjobs.resp.patterns import compile_pattern
from eventjobs.resp.protocol import CommandParser, ProtocolError, split_line

COMMANDS = st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=6), max_size=6)


def parse(pieces: list[bytes]) -> list[list[bytes]]:
    """The commands in *pieces*, each of which arrives by itself."""
    parser, commands = CommandParser(), []
    for piece in pieces:
        parser.feed(piece)
        while (command := parser.next_command()) is not None:
            commands.append(command)
    return commands


@given(COMMANDS)
def test_commands_are_the_same_split_at_every_byte_and_in_one_piece(
    commands: list[list[bytes]],
) -> None:
    sent = b"".join(map(protocol.bulks, commands))
    assert parse([sent]) == commands
    assert parse([sent[each : each + 1] for each in range(len(sent))]) == commands


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=20))
def test_garbage_is_commands_or_a_protocol_error(pieces: list[bytes]) -> None:
    with suppress(ProtocolError):
        parse(pieces)


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        (b"GET job:1", [b"GET", b"job:1"]),
        (b"  get\t 'job:1'  \"a b\" ", [b"get", b"job:1", b"a b"]),
        (rb'echo "\x41\n\"" ' + rb"'it\'s'", [b"echo", b'A\n"', b"it's"]),
        (b'set a ""', [b"set", b"a", b""]),
        (b"keys a\\*\xff", [b"keys", b"a\\*\xff"]),
        (b" \0 ", []),
    ],
)
def test_a_line_is_split_as_redis_splits_it(line: bytes, arguments: list[bytes]) -> None:
    assert split_line(line) == arguments
    assert parse([line + b"\r\n"]) == [arguments]


@pytest.mark.parametrize(
    "sent",
    [
        b"*129\r\n",
        b"*99999999999999999999\r\n",
        b"*x\r\n",
        b"*1\r\nGET\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$16385\r\n",
        b"*1\r\n$ 3\r\n",
        b"*1\r\n$3\r\nGETxx",
        b"*8\r\n" + b"$16000\r\n%b\r\n" % (b"x" * 16000) * 4 + b"$16000\r\n",
        b"x" * 16_384,
        b'GET "job',
        b'GET "job"x',
        b"x " * 129,
    ],
)
def test_what_is_no_command_or_too_large_is_an_error(sent: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse([sent, b"\r\n"])


def test_an_empty_command_is_skipped() -> None:
    assert parse([b"\r\n*0\r\n*-1\r\nPING\n"]) == [[], [], [], [b"PING"]]


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("ERR a\r\nb", b"-ERR a??b\r\n"),
        ("ERR \ud800é", "-ERR ?é\r\n".encode()),
    ],
)
def test_an_error_is_one_line(text: str, reply: bytes) -> None:
    assert protocol.error(text) == reply


# --- patterns


def matches(pattern: bytes, text: bytes) -> bool:
    """Whether *text* matches, as the documentation of KEYS says, by trying everything."""
    if not pattern:
        return not text
    first, rest = pattern[:1], pattern[1:]
    if first == b"*":
        return any(matches(rest, text[each:]) for each in range(len(text) + 1))
    if not text:
        return False
    if first == b"[" and b"]" in rest:
        inside, _, rest = rest.partition(b"]")
        negated = inside.startswith(b"^")
        return ((text[:1] in set_of(inside.removeprefix(b"^"))) is not negated) and matches(
            rest, text[1:]
        )
    return first in (b"?", text[:1]) and matches(rest, text[1:])


def set_of(inside: bytes) -> set[bytes]:
    members = set()
    while inside:
        low, high = inside[0], inside[2] if inside[1:2] == b"-" and len(inside) > 2 else inside[0]
        members |= {bytes([each]) for each in range(min(low, high), max(low, high) + 1)}
        inside = inside[3:] if inside[1:2] == b"-" and len(inside) > 2 else inside[1:]
    return members


PARTS = st.sampled_from([b"*", b"?", b"a", b"b", b"[ab]", b"[^a]", b"[a-c]", b"[c-a]", b"[]", b"."])


@given(st.lists(PARTS, max_size=7).map(b"".join), st.text("abc.", max_size=7).map(str.encode))
def test_patterns_match_as_those_of_redis(pattern: bytes, text: bytes) -> None:
    assert bool(compile_pattern(pattern).fullmatch(text)) is matches(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (rb"a\*", b"a*", True),
        (rb"a\*", b"ab", False),
        (rb"[\]]", b"]", True),
        (b"[ab", b"b", True),
        (b"a\\", b"a\\", True),
        (b"[^]", b"x", True),
        (b"?", b"\n", True),
    ],
)
def test_escapes_and_classes_without_an_end(pattern: bytes, text: bytes, expected: bool) -> None:
    assert bool(compile_pattern(pattern).fullmatch(text)) is expected


def test_no_pattern_takes_long() -> None:
    pattern = compile_pattern(b"*a" * 128)
    assert pattern.fullmatch(b"a" * 127 + b"b") is None


@given(st.binary(max_size=256))
def test_every_pattern_compiles(pattern: bytes) -> None:
    compile_pattern(pattern)
