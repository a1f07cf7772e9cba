"""The Idempotency-Key header."""

import re

from eventjobs.http.request_errors import RequestError

_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')


def idempotency_key(values: list[str]) -> str | None:
    """The key in the header's *values*, quoted (draft-ietf-httpapi-idempotency-key) or bare; None
    without the header. Raises RequestError.
    """
    if not values:
        return None
    text = values[0].strip()
    if quoted := _QUOTED.fullmatch(text):
        text = re.sub(r"\\(.)", r"\1", quoted[1])
    elif text.startswith('"'):
        text = ""  # half a string, or several: refused below
    if len(values) > 1 or not 1 <= len(text) <= 255 or not (text.isascii() and text.isprintable()):
        raise RequestError("Idempotency-Key is one string of 1 to 255 printable ASCII characters")
    return text
