"""Cursors of job lists: the position of the last job of a page, bound to the list's filters."""

import base64
import binascii
import hashlib
from typing import Any

import orjson

from eventjobs.http.request_errors import BadCursor

POSITION_MAX = 2**62


def cursor(born: int, filters: dict[str, Any], order: str) -> str:
    """The cursor after the job whose first event has position *born*."""
    return base64.urlsafe_b64encode(born.to_bytes(8) + _digest(filters, order)).decode()


def born_of(text: str, filters: dict[str, Any], order: str) -> int:
    """The position in a cursor. Raises BadCursor where it belongs to other *filters*."""
    try:
        raw = base64.b64decode(text.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise BadCursor from error
    born, digest = int.from_bytes(raw[:8]), raw[8:]
    if len(raw) != 24 or digest != _digest(filters, order) or born > POSITION_MAX:
        raise BadCursor
    return born


def _digest(filters: dict[str, Any], order: str) -> bytes:
    text = orjson.dumps([filters, order], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).digest()[:16]
