"""The protocol of Redis, version 2: commands are parsed as they arrive, and replies encoded.

https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

import re
from collections.abc import Sequence

ARGUMENTS_MAX = 128
#: Of one argument: a token is the longest.
ARGUMENT_BYTES_MAX = 16_384
#: Of all arguments of a command.
COMMAND_BYTES_MAX = 65_536
#: Of a command that is a line of text.
LINE_BYTES_MAX = 16_384

NULL = b"$-1\r\n"
OK = b"+OK\r\n"

_NUMBER = re.compile(rb"-?[0-9]{1,10}")
#: An argument of a line: in double quotes, in single quotes, or up to the next space.
_WORD = re.compile(
    rb"""[\s\0]*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([^\s\0"'][^\s\0]*))(?=[\s\0]|\Z)""",
    re.DOTALL,
)
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


class ProtocolError(Exception):
    """What a client sends is no command. The connection cannot be used any more."""


class CommandParser:
    """Splits what a connection receives into commands, each a list of arguments.

    It holds at most one incomplete command, and what was fed since the last one.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._arguments: list[bytes] = []
        #: Arguments that are not complete yet.
        self._missing = 0
        #: The length of the next argument, once it is known.
        self._length: int | None = None
        self._command_bytes = 0

    @property
    def is_partial(self) -> bool:
        """Whether a part of a command was received."""
        return bool(self._buffer or self._missing)

    def feed(self, data: bytes) -> None:
        """Add received bytes. To be called when *next_command* has returned None."""
        self._buffer += data

    def next_command(self) -> list[bytes] | None:
        """The next complete command; empty for an empty line. None: more bytes are needed.

        Raises ProtocolError.
        """
        if not self._missing:
            if (line := self._take_line()) is None:
                return None
            if not line.startswith(b"*"):
                return split_line(line)
            count = _number(line[1:], ARGUMENTS_MAX, "invalid multibulk length")
            if count <= 0:
                return []
            self._missing, self._command_bytes = count, 0
        while self._missing:
            if (argument := self._take_argument()) is None:
                return None
            self._arguments.append(argument)
            self._missing -= 1
        arguments, self._arguments = self._arguments, []
        return arguments

    def _take_argument(self) -> bytes | None:
        if self._length is None:
            if (line := self._take_line()) is None:
                return None
            if not line.startswith(b"$"):
                raise ProtocolError("expected '$'")
            self._length = _number(line[1:], ARGUMENT_BYTES_MAX, "invalid bulk length")
            self._command_bytes += self._length
            if self._length < 0 or self._command_bytes > COMMAND_BYTES_MAX:
                raise ProtocolError("invalid bulk length")
        end = self._length + 2
        if len(self._buffer) < end:
            return None
        if self._buffer[self._length : end] != b"\r\n":
            raise ProtocolError("expected the end of a bulk string")
        argument = bytes(self._buffer[: self._length])
        del self._buffer[:end]
        self._length = None
        return argument

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(b"\n", 0, LINE_BYTES_MAX)
        if end < 0:
            if len(self._buffer) >= LINE_BYTES_MAX:
                raise ProtocolError("too big inline request")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.removesuffix(b"\r")


def _number(text: bytes, largest: int, message: str) -> int:
    if _NUMBER.fullmatch(text) is None or int(text) > largest:
        raise ProtocolError(message)
    return int(text)


def split_line(line: bytes) -> list[bytes]:
    """The arguments of a command that is a line of text. Raises ProtocolError."""
    arguments: list[bytes] = []
    position, line = 0, line.strip(b" \t\r\n\v\f\0")
    while position < len(line):
        if (word := _WORD.match(line, position)) is None:
            raise ProtocolError("unbalanced quotes in request")
        double, single, bare = word.groups()
        if double is not None:
            arguments.append(_ESCAPE.sub(_unescape, double))
        else:
            arguments.append(bare if single is None else single.replace(rb"\'", b"'"))
        if len(arguments) > ARGUMENTS_MAX:
            raise ProtocolError("too many arguments")
        position = word.end()
    return arguments


def _unescape(escape: re.Match[bytes]) -> bytes:
    digits, character = escape.groups()
    return bytes.fromhex(digits.decode()) if digits else _ESCAPED.get(character, character)


# --- replies


def bulk(data: bytes) -> bytes:
    """A string of any bytes."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def simple(text: str) -> bytes:
    """A status: a line of text."""
    return f"+{text}\r\n".encode()


def integer(number: int) -> bytes:
    return b":%d\r\n" % number


def array_head(length: int) -> bytes:
    """The beginning of an array; *length* replies follow."""
    return b"*%d\r\n" % length


def bulks(items: Sequence[bytes]) -> bytes:
    """An array of strings."""
    return array_head(len(items)) + b"".join(map(bulk, items))


def error(text: str) -> bytes:
    """An error: a line that begins with its code in capitals. Control characters are replaced."""
    printable = "".join(each if each.isprintable() else "?" for each in text)
    return f"-{printable}\r\n".encode("utf-8", "replace")
