"""The patterns of KEYS, as regular expressions."""

import re

from eventjobs.errors import InvalidInput

PATTERN_BYTES_MAX = 256


def compile_pattern(pattern: bytes) -> re.Pattern[bytes]:
    """A regular expression for whole keys: `*`, `?`, `[ab]`, `[^a]`, `[a-z]`, and `\\` before a
    character that means itself.

    The time to match is proportional to the length of the key, and to that of the pattern. Raises
    InvalidInput for a pattern that is too long.
    """
    if len(pattern) > PATTERN_BYTES_MAX:
        raise InvalidInput(f"a pattern has at most {PATTERN_BYTES_MAX} bytes")
    first, *others = _pieces(pattern)
    if not others:
        return re.compile(first, re.DOTALL)
    *middle, last = others
    # The first match of a piece is as good as any later one: an atomic group goes back to none.
    return re.compile(
        b"".join([first, *(b"(?>.*?%b)" % each for each in middle), b".*", last]), re.DOTALL
    )


def _pieces(pattern: bytes) -> list[bytes]:
    """The pieces between the stars, each an expression for a fixed number of characters."""
    pieces, position = [b""], 0
    while position < len(pattern):
        character = pattern[position : position + 1]
        position += 1
        if character == b"*":
            pieces.append(b"")
        elif character == b"?":
            pieces[-1] += b"."
        elif character == b"[":
            item, position = _read_class(pattern, position)
            pieces[-1] += item
        else:
            if character == b"\\" and position < len(pattern):
                character = pattern[position : position + 1]
                position += 1
            pieces[-1] += re.escape(character)
    return pieces


def _read_class(pattern: bytes, position: int) -> tuple[bytes, int]:
    """The expression for a class that begins at *position*, and the position after it."""
    negated = pattern[position : position + 1] == b"^"
    position += negated
    ranges = []
    while position < len(pattern) and pattern[position : position + 1] != b"]":
        if pattern[position : position + 1] == b"\\" and position + 1 < len(pattern):
            position += 1
            low = high = pattern[position]
        elif pattern[position + 1 : position + 2] == b"-" and position + 2 < len(pattern):
            low, high = sorted((pattern[position], pattern[position + 2]))
            position += 2
        else:
            low = high = pattern[position]
        ranges.append(b"\\x%02x-\\x%02x" % (low, high))
        position += 1
    position += 1  # a class without an end goes on to the end of the pattern
    if not ranges:
        return (b"." if negated else b"(?!)"), position
    return b"[%b%b]" % (b"^" if negated else b"", b"".join(ranges)), position
