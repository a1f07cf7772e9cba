"""Cursors of pages: a position in one log."""

import base64
import binascii
import hashlib
from typing import Any

import orjson

from eventjobs.http.problem import BadCursor

POSITION_MAX = 2**62


# --- cursors: the place of the last job given, and what the list was filtered by


def cursor(born: int, filters: dict[str, Any], order: str) -> str:
    return base64.urlsafe_b64encode(born.to_bytes(8) + _mark(filters, order)).decode()


def born_of(text: str, filters: dict[str, Any], order: str) -> int:
    """Raises BadCursor when it was not given for these *filters*."""
    try:
        raw = base64.b64decode(text.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise BadCursor from error
    if len(raw) != 24 or raw[8:] != _mark(filters, order) or int.from_bytes(raw[:8]) > POSITION_MAX:
        raise BadCursor
    return int.from_bytes(raw[:8])


def _mark(filters: dict[str, Any], order: str) -> bytes:
    return hashlib.sha256(orjson.dumps([filters, order], option=orjson.OPT_SORT_KEYS)).digest()[:16]
