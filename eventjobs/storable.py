"""Values that can be stored: text without lone surrogates, and JSON.

Values of users are never trusted: a class of their own may override any method, fail in it, or
never return. So types are tested with type(), and builtin methods are called through the builtin.
"""

import math
import reprlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from itertools import islice
from typing import Any

import orjson
from pydantic import BaseModel

from eventjobs.errors import NotJSON

TEXT_CHARS_MAX = 4_000
#: Fields of one line of a job's log, as JSON.
FIELDS_BYTES_MAX = 8_192
#: Data of one progress report, as JSON.
PROGRESS_BYTES_MAX = 65_536
#: Details of one failure, as JSON.
DETAILS_BYTES_MAX = 65_536
#: Nesting of stored JSON. The limits of SQLite and orjson are higher: a response can wrap it.
DEPTH_MAX = 200
#: Size of one JSON document: its characters, and *NODE_SIZE* for each value. Without this limit a
#: few nested lists, each of which holds the next one twice, would fill the memory.
SIZE_MAX = 2**28
NODE_SIZE = 64
#: Nesting and number of the values that readable_json returns.
READABLE_DEPTH_MAX = 20
READABLE_SIZE_MAX = 20_000


def storable_text(value: object, chars_max: int = TEXT_CHARS_MAX) -> str:
    """str(*value*) without lone surrogates, cut to *chars_max* characters. Never raises."""
    try:
        # An object's own __str__ may fail, or return a subclass of str.
        text = str.__getitem__(_text(value), slice(chars_max))
    except BaseException:  # noqa: BLE001 -- also sys.exit() in a __str__
        text = f"<{class_name(type(value))} that has no text>"
    return text.encode("utf-8", "replace").decode()


def _text(value: Any) -> str:
    """str(*value*), or a bounded repr for a container whose text would be too large."""
    kind = type(value)
    if issubclass(kind, BaseException) and kind.__str__ is BaseException.__str__:
        args: tuple[Any, ...] = vars(BaseException)["args"].__get__(value)
        if not args:
            return ""
        value = args[0] if len(args) == 1 else args
        kind = type(value)
    if not issubclass(kind, dict | list | tuple):
        return str(value)
    try:
        check_size(value, READABLE_SIZE_MAX * NODE_SIZE)
    except _TooLarge:
        return _bounded_repr(value)
    return str(value)


def class_name(kind: type) -> str:
    """The full name of a class, as in tracebacks. Never raises."""
    try:
        module, name = kind.__module__, type.__getattribute__(kind, "__qualname__")
        full = name if module in ("__main__", "builtins") else f"{module}.{name}"
        return full.encode("utf-8", "replace").decode()[:200]
    except BaseException:  # noqa: BLE001 -- a metaclass may do anything
        return "object"


def storable_number(value: float | None) -> float | None:
    """*value*, a number of any type, as a JSON number. None for a value that is not finite or not a
    number.
    """
    if value is None or (type(value) is int and abs(value) < 2**53):
        return value
    try:
        number = float(value)
    except (OverflowError, TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def storable_json(value: Any) -> Any:
    """*value* encoded as JSON and decoded again: a copy as readers will get it. Raises NotJSON."""
    return None if value is None else orjson.loads(encode_json(value))


def encode_json(value: Any, size_max: int = SIZE_MAX) -> bytes:
    """*value* as JSON text. Pydantic models and dataclasses become objects. Raises NotJSON."""
    try:
        check_size(value, size_max)
        text = orjson.dumps(value, default=_dump_model)
        # These counts run in C. They spare most values the walk in Python.
        if b"null" in text or text.count(b"[") + text.count(b"{") > DEPTH_MAX:
            _refuse_nan(value)
    except NotJSON:
        raise
    except BaseException as error:  # the value's own methods run in here
        raise NotJSON(f"this cannot be kept as JSON: {storable_text(error)}") from error
    return text


def trim(text: bytes) -> bytes:
    """A copy of *text*, a result of orjson.dumps that will be kept.

    orjson never gives back the rest of its buffer: a result of 20 bytes holds 4 KiB, and longer
    ones up to 7 KiB too much. Without a copy the limits of caches, which use len(), do not hold.
    """
    return b"%b" % text  # bytes(text) and text[:] would return *text* itself


class _TooLarge(NotJSON):
    """It is too large to be kept as JSON."""


def check_size(value: Any, size_max: int = SIZE_MAX) -> None:
    """Raises NotJSON when *value* would be larger than *size_max* as JSON."""
    level = [value]
    while level:
        following: list[Any] = []
        for each in level:
            kind = type(each)  # not `__class__`, which a class can override
            if kind is str:
                size_max -= len(each)
            elif kind is dict:
                following += each.values()
            elif kind is list:
                following += each
            elif kind is orjson.Fragment:
                raise NotJSON("an orjson.Fragment is not a value")
            elif kind not in _SCALARS:
                following += _inside(each, kind)
        size_max -= NODE_SIZE * len(level)
        if size_max < 0:
            raise _TooLarge
        level = following


def _inside(value: Any, kind: type) -> Iterable[Any]:
    """The values in *value*, read by the builtin methods and not by overridden ones."""
    if issubclass(kind, dict):
        return dict.values(value)
    if issubclass(kind, list):
        return list.__iter__(value)
    if issubclass(kind, tuple):
        return tuple.__iter__(value)
    if issubclass(kind, BaseModel):
        return dict.values(object.__getattribute__(value, "__dict__"))
    if is_dataclass(kind):
        return [getattr(value, each.name) for each in fields(kind)]
    return ()


def json_fragment(value: Any) -> orjson.Fragment | None:
    """*value* as JSON in a Fragment, which orjson writes as it is. Raises NotJSON."""
    return None if value is None else orjson.Fragment(trim(encode_json(value)))


def _dump_model(value: Any) -> Any:
    if issubclass(type(value), BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{class_name(type(value))} is not a type of JSON")


#: The most frequent types. Their values contain no other values.
_SCALARS = frozenset({str, int, float, bool, type(None)})


def _refuse_nan(value: Any, depth: int = 0) -> None:
    kind = type(value)
    if depth > DEPTH_MAX:
        raise TypeError(f"it is nested deeper than {DEPTH_MAX}")
    # orjson writes NaN and infinity as null: a result would silently lose a number.
    if issubclass(kind, float) and not math.isfinite(value):
        raise TypeError(f"{float(value)} is not a JSON number")
    if kind in _SCALARS:
        return
    if issubclass(kind, Enum):
        _refuse_nan(value.value, depth + 1)
    elif issubclass(kind, BaseModel):
        _refuse_nan(value.model_dump(mode="json"), depth + 1)
    for each in _inside(value, kind):
        _refuse_nan(each, depth + 1)


def bounded_json(value: Any, bytes_max: int, *, whole: bool = False) -> Any:
    """*value* as JSON of about *bytes_max* bytes. Larger JSON becomes {"cut": its beginning}.

    Parts that JSON cannot hold become text; with *whole* the entire value does. Never raises.
    """
    if value is None:
        return None
    try:
        text = encode_json(value, bytes_max * NODE_SIZE)
    except _TooLarge:
        return _cut(orjson.dumps(readable_json(value)), bytes_max)
    except NotJSON:
        text = orjson.dumps(_bounded_repr(value) if whole else readable_json(value))
    if len(text) > bytes_max:
        return _cut(text, bytes_max)
    return orjson.loads(text)


def _cut(text: bytes, bytes_max: int) -> Any:
    # JSON text is at most twice as long inside a JSON string. So a value that a remote worker has
    # cut is within the limit, and the service does not cut it again.
    return {"cut": storable_text(text[: bytes_max // 2 - 16].decode("utf-8", "ignore"))}


#: The builtin iterators, which a subclass cannot override.
_CONTAINERS: dict[type, Callable[[Any], Iterator[Any]]] = {
    each: each.__iter__ for each in (dict, list, tuple, set, frozenset)
}


def readable_json(value: Any) -> Any:
    """*value* as JSON for people: other values become text, large ones are cut. Never raises."""
    return _readable_json(value, [READABLE_SIZE_MAX], 0)


def _readable_json(value: Any, left: list[int], depth: int) -> Any:
    kind = type(value)
    left[0] -= 1
    if kind is bool or value is None or (kind is int and -(2**63) <= value < 2**64):
        return value
    if kind is float and math.isfinite(value):
        return value
    for container, values in _CONTAINERS.items():
        if not issubclass(kind, container):
            continue
        if depth >= READABLE_DEPTH_MAX or left[0] <= 0:
            return "…"  # its repr is unbounded
        if container is dict:
            items = islice(dict.items(value), left[0])
            return {
                storable_text(name): _readable_json(each, left, depth + 1) for name, each in items
            }
        return [_readable_json(each, left, depth + 1) for each in islice(values(value), left[0])]
    text = _leaf(value, kind)
    left[0] -= len(text)
    return text


def _leaf(value: Any, kind: type) -> str:
    if issubclass(kind, bytes | bytearray):
        value = repr(bytes.__getitem__(bytes(value), slice(TEXT_CHARS_MAX)))
    elif not issubclass(kind, str):
        with suppress(BaseException):  # falls back to str(value)
            encoded = orjson.loads(orjson.dumps(value))
            value = encoded if isinstance(encoded, str) else value  # dates, and values of enums
    if issubclass(kind, BaseException):
        text = storable_text(value)
        return f"{class_name(kind)}: {text}" if text else class_name(kind)
    return storable_text(value)


_REPR = reprlib.Repr()
_REPR.maxlevel = 4
_REPR.maxdict = _REPR.maxlist = _REPR.maxtuple = _REPR.maxset = _REPR.maxfrozenset = 20
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 1_000


def _bounded_repr(value: Any) -> str:
    try:
        return storable_text(_REPR.repr(value))
    except BaseException:  # noqa: BLE001 -- a __repr__ of an element may raise anything
        return storable_text(readable_json(value))
