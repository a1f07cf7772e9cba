"""Removes secrets from log lines, recognized by their key or by their form."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

REDACTED = "[hidden]"
#: Keys whose values are secret.
SECRET_KEY = re.compile(
    r"(?i)token|secret|passw(or)?d|passphrase|authorization|credential|cookie|(api|private)[_-]?key"
)
#: The form of secret values, in any text.
SECRET_VALUE = re.compile(
    r"(?i)\b(?:ej_\w+|whsec_[\w+/=-]+|bearer\s+[\w.~+/=-]+|eyJ[\w-]+\.[\w-]+\.[\w-]+)"
)


def redact(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """*fields* without secrets. A value that is not JSON becomes its repr."""
    # A subclass of dict may have any methods.
    items: Iterable[tuple[Any, Any]] = fields.items()
    if isinstance(fields, dict):
        items = dict.items(fields)
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
            return [_redact_value("", item) for item in kind.__iter__(value)]
    return redact_text(value if isinstance(value, str) else repr(value))
