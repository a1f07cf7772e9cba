"""Removes secrets from log lines, recognized by their key or by their form."""

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any

REDACTED = "[hidden]"
#: Keys whose values are secret.
SECRET_KEY = re.compile(
    r"(?i)token|secret|passw(or)?d|passphrase|\bpwd\b|authorization|credential|cookie"
    r"|(api|private|access)[_-]?key"
)
#: The form of secret values, in any text, also after a percent-encoded character.
SECRET_VALUE = re.compile(
    r"(?:\b|(?<=%[0-9A-Fa-f]{2}))"
    r"(?:ej_[\w+/=-]+(?:\.[\w+/=-]+)*"  # keys, sessions and callback tokens of eventjobs
    r"|eyJ(?:[\w-]{8,}|[\w-]+\.)[\w.-]*"  # a JWT: JSON as base64 (RFC 7519)
    r"|wh(?:sec|sk)_[\w+/=-]+"  # Standard Webhooks
    r"|sk-[\w-]{16,}"  # keys of model providers
    r"|(?i:bearer(?:\s|%20|\+)+[\w.~+/=-]+))"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.)*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
#: User and password in an address (RFC 3986, 3.2.1).
_USER_INFO = re.compile(r"(?<=://)[^\s/?#\"'<>]*(?=@)")
#: User and password of HTTP (RFC 7617).
_BASIC = re.compile(r"(?i)\b(basic(?:\s|%20|\+)+)([\w+/-]{4,}=*)")
#: What is in the name of a secret: a header, up to the end of its line, or of the string of a repr;
#: and an argument, member or parameter, as the repr of a call or dict, as JSON, and in a query.
_NAMED_HEADER = re.compile(
    r"(?i)(authorization|cookie|api-key)([\"']?\s*+:\s*+(?:b?[\"'])?|[\"']\s*+,\s*+b?[\"'])"
    r"(?!\s|\[hidden\])[^\"'\r\n]++"
)
_NAMED_VALUE = re.compile(
    r"(?i)(token|secret|passw(?:or)?d|passphrase|pwd|authorization|credentials?|cookie"
    r"|(?:api|private|access|secret)[_-]?key)"
    r"(=\s*+|%3D|\\*+[\"']\s*+:\s*+)(?![\"']?\[hidden\]|(?:none|null|true|false)\b)"
    r"(?:[bu]?\\*+\"(?:[^\"\\]|\\++.)*+\"?|[bu]?\\*+'(?:[^'\\]|\\++.)*+'?|[^\s,;&)\]}\"']++)"
)
#: Every text with a secret contains one of these, in lower case. The search for them is fast.
_HINTS = (
    *("ej_", "eyj", "whs", "sk-", "bearer", "basic", "://", "token", "secret"),
    *("passw", "passphrase", "pwd", "authorization", "credential", "cookie"),
    *("api", "private", "access"),
)


def redact(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """*fields* without secrets. A value that is not JSON becomes its repr."""
    # A subclass of dict may have any methods.
    items: Iterable[tuple[Any, Any]]
    items = dict.items(fields) if isinstance(fields, dict) else fields.items()
    return {redact_text(str(key)): _redact_value(str(key), value) for key, value in items}


def redact_text(text: str) -> str:
    """*text* without what has the form of a secret, or is named as one."""
    lower = text.lower()
    if not any(hint in lower for hint in _HINTS):
        return text
    text = SECRET_VALUE.sub(REDACTED, text)
    text = _USER_INFO.sub(REDACTED, text)
    text = _BASIC.sub(_redact_basic, text)
    text = _NAMED_HEADER.sub(rf"\1\2{REDACTED}", text)
    return _NAMED_VALUE.sub(rf"\1\2{REDACTED}", text)


def _redact_basic(match: re.Match[str]) -> str:
    """Ordinary words may follow "basic": credentials decode to a user, a colon and a password."""
    text = match[2].rstrip("=")
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_")
    except ValueError:
        return match[0]
    return f"{match[1]}{REDACTED}" if b":" in decoded else match[0]


def _redact_value(key: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if SECRET_KEY.search(key):
        return REDACTED
    if isinstance(value, Mapping):
        return redact(value)
    for kind in (list, tuple, set, frozenset):
        if issubclass(type(value), kind):
            items = list(kind.__iter__(value))
            if len(items) == 2 and isinstance(items[0], str | bytes):  # a header, say
                return [_redact_value("", items[0]), _redact_value(str(items[0]), items[1])]
            return [_redact_value("", item) for item in items]
    return redact_text(value if isinstance(value, str) else repr(value))
