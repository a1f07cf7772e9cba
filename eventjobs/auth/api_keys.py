"""The text of an API key: `ej_key_`, its id, `_`, its secret, and a checksum.

All parts are base62 of a fixed length, so that a scanner of source code finds keys by one regular
expression, and without a request knows by the checksum which of its finds are real. The id is that
of the key's stream in the log. The secret has 256 random bits, so a fast digest protects it.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from typing import NamedTuple
from uuid import UUID

PREFIX = "ej_key_"
SECRET_BITS = 256
#: Lengths that hold 128, 256 and 32 bits.
ID_CHARS, SECRET_CHARS, CHECKSUM_CHARS = 22, 43, 6

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
_KEY_ID = re.compile(f"[0-9A-Za-z]{{{ID_CHARS}}}")
_KEY = re.compile(
    f"{PREFIX}([0-9A-Za-z]{{{ID_CHARS}}})_([0-9A-Za-z]{{{SECRET_CHARS}}})"
    f"([0-9A-Za-z]{{{CHECKSUM_CHARS}}})"
)
#: No secret has this digest.
_NO_DIGEST = "0" * 64


class APIKey(NamedTuple):
    """The parts of a key. Only its owner has the secret; the service stores the *digest*."""

    key_id: str
    secret: str

    @classmethod
    def create(cls, stream_id: str) -> "APIKey":
        """A key with a new secret for the stream *stream_id*, a UUID."""
        return cls(key_id_of(stream_id), _base62(secrets.randbits(SECRET_BITS), SECRET_CHARS))

    @classmethod
    def parse(cls, text: str) -> "APIKey | None":
        """The key that *text* is; None for another form, or when the checksum is wrong."""
        match = _KEY.fullmatch(text)
        if match is None or match[3] != _checksum(text[:-CHECKSUM_CHARS]):
            return None
        return cls(match[1], match[2])

    @property
    def text(self) -> str:
        unchecked = f"{PREFIX}{self.key_id}_{self.secret}"
        return unchecked + _checksum(unchecked)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def matches(self, digest: str | None) -> bool:
        """Whether *digest* is that of this key. It is None for a key that does not exist, for which
        the comparison takes as long.
        """
        return hmac.compare_digest(self.digest.encode(), (digest or _NO_DIGEST).encode())


def key_id_of(stream_id: str) -> str:
    """The id of the key with this stream."""
    return _base62(UUID(stream_id).int, ID_CHARS)


def stream_of(key_id: str) -> str | None:
    """The stream of a key; None when *key_id* is no key's."""
    if not _KEY_ID.fullmatch(key_id):
        return None
    number = 0
    for digit in key_id:
        number = number * 62 + _VALUES[digit]
    return str(UUID(int=number)) if number < 2**128 else None


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), CHECKSUM_CHARS)
