"""Secrets in what is logged: told by what they are called, or by what they look like."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

REDACTED = "[hidden]"
#: What keys are called whose values nobody should read.
SECRET_KEY = re.compile(
    r"(?i)token|secret|passw(or)?d|passphrase|authorization|credential|cookie|(api|private)[_-]?key"
)
#: What such values look like, wherever they turn up.
SECRET_VALUE = re.compile(r"(?i)\b(?:ej_\w+|whsec_[\w+/=-]+|bearer\s+[\w.~+/=-]+)")


def redact(told: Mapping[Any, Any]) -> dict[str, Any]:
    """*told* without secrets; what JSON does not hold as it is becomes its repr."""
    # A dict of a class of its own may have any methods.
    items: Iterable[tuple[Any, Any]] = told.items()
    if isinstance(told, dict):
        items = dict.items(told)
    return {redact_text(str(key)): _redact_value(str(key), value) for key, value in items}


def redact_text(text: str) -> str:
    return SECRET_VALUE.sub(REDACTED, text)


def _redact_value(key: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if SECRET_KEY.search(key):
        return REDACTED
    if isinstance(value, Mapping):
        return redact(value)
    for kind in (list, tuple, set, frozenset):
        if issubclass(type(value), kind):
            return [_redact_value("", each) for each in kind.__iter__(value)]
    return redact_text(value if isinstance(value, str) else repr(value))
