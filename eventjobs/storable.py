"""Values as they can be stored: plain text, and what JSON holds."""

import copyreg
import math
import reprlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from itertools import islice
from typing import Any, TypeVar

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
#: Nesting of what is stored; the engines and what wraps it in an answer need some room above.
DEPTH_MAX = 200
#: Of one JSON document: its characters, and *NODE_SIZE* for each value in it. A list that holds
#: another list twice, and that one the next, has no end that a service lives to see.
SIZE_MAX = 2**28
NODE_SIZE = 64
#: Nesting, and values in all, of what is made readable for a log.
READABLE_DEPTH_MAX = 20
READABLE_SIZE_MAX = 20_000


def storable_text(value: object, chars_max: int = TEXT_CHARS_MAX) -> str:
    """*value* as text that can be stored: no lone surrogates, not too long. Never raises."""
    try:
        # An object's own __str__ may fail, or return a str that has methods of its own.
        text = str.__getitem__(_text(value), slice(chars_max))
    except BaseException:  # noqa: BLE001 -- also sys.exit() in a __str__
        text = f"<{class_name(type(value))} that has no text>"
    return text.encode("utf-8", "replace").decode()


def _text(value: Any) -> str:
    """str(value), unless that has no end: a list may hold another twice, and that one the next."""
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
    """The full name of a class, as tracebacks have it. Never raises."""
    try:
        module, name = kind.__module__, type.__getattribute__(kind, "__qualname__")
        full = name if module in ("__main__", "builtins") else f"{module}.{name}"
        return full.encode("utf-8", "replace").decode()[:200]
    except BaseException:  # noqa: BLE001 -- a metaclass may do anything
        return "object"


def storable_number(value: float | None) -> float | None:
    """Any number, also a library's own or an enormous one, as JSON has it; None for another."""
    if value is None or (type(value) is int and abs(value) < 2**53):
        return value
    try:
        number = float(value)
    except (OverflowError, TypeError, ValueError):  # an enormous one, or none
        return None
    return number if math.isfinite(number) else None


def storable_json(value: Any) -> Any:
    """A copy of *value* as it will be read back. Raises NotJSON."""
    return None if value is None else orjson.loads(encode_json(value))


def encode_json(value: Any, size_max: int = SIZE_MAX) -> bytes:
    """*value* as JSON; pydantic models and dataclasses become objects. Raises NotJSON."""
    try:
        check_size(value, size_max)
        text = orjson.dumps(value, default=_dump_model)
        # Two counts in C spare most values the walk in Python.
        if b"null" in text or text.count(b"[") + text.count(b"{") > DEPTH_MAX:
            _refuse_nan(value)
    except NotJSON:
        raise
    except BaseException as error:  # methods of the value run in here
        raise NotJSON(f"this cannot be kept as JSON: {storable_text(error)}") from error
    return text


class _TooLarge(NotJSON):
    """It is too large to be kept as JSON."""


def check_size(value: Any, size_max: int = SIZE_MAX) -> None:
    """Raise NotJSON for what would be larger than that as JSON, and may look small."""
    level = [value]
    while level:
        following: list[Any] = []
        for each in level:
            kind = type(each)  # and not `__class__`, which may be a class's own
            if kind is str:
                size_max -= len(each)
            elif kind is dict:
                following += each.values()
            elif kind is list:
                following += each
            elif kind is orjson.Fragment:
                raise NotJSON("text that claims to be JSON is no value")
            elif kind not in _SCALARS:
                following += _inside(each, kind)
        size_max -= NODE_SIZE * len(level)
        if size_max < 0:
            raise _TooLarge
        level = following


def _inside(value: Any, kind: type) -> Iterable[Any]:
    """The values in *value*, whatever a class of its own has made of its methods."""
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
    """*value* as a JSONField keeps it: JSON that orjson writes as it is. Raises NotJSON."""
    return None if value is None else orjson.Fragment(encode_json(value))


def _dump_model(value: Any) -> Any:
    if issubclass(type(value), BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{class_name(type(value))} is not a type of JSON")


class JSONField:
    """A field of a dataclass that is kept as JSON text, so that each reading gives a new copy.

    What is read may be changed at will: it is nobody else's. Setting it raises NotJSON.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, holder: Any, owner: Any = None) -> Any:
        if holder is None:
            return self
        text = holder.__dict__.get(self._name)
        return None if text is None else orjson.loads(orjson.dumps(text))

    def __set__(self, holder: Any, value: Any) -> None:
        # A Fragment is what this module made; what users give goes through *json_text* first.
        made = value if type(value) is orjson.Fragment else json_fragment(value)
        holder.__dict__[self._name] = made


# Else no dataclass with a JSONField could be pickled, or copied deeply.
copyreg.pickle(orjson.Fragment, lambda text: (orjson.Fragment, (orjson.dumps(text),)))

Class = TypeVar("Class", bound=type)
#: The JSONFields of each class that has some.
_NAMES: dict[type, tuple[str, ...]] = {}


def json_fields(*names: str) -> Callable[[Class], Class]:
    """Make the fields *names* of a dataclass JSONFields.

    It must not have slots: orjson, which writes it as it is, does not hold what a descriptor
    returns, and the process would crash.
    """

    def changed(kind: Class) -> Class:
        assert "__slots__" not in vars(kind), kind
        for name in names:
            setattr(kind, name, JSONField(name))
        _NAMES[kind] = names
        return kind

    return changed


def fragment_of(holder: Any, name: str) -> orjson.Fragment | None:
    """The JSON of *holder*'s field *name*, which orjson writes as it is; None for null."""
    found: orjson.Fragment | None = holder.__dict__.get(name)
    return found


def as_fragment(value: Any) -> orjson.Fragment | None:
    """What orjson has read, as a JSONField keeps it; None for null."""
    return None if value is None else orjson.Fragment(orjson.dumps(value))


def as_fragments(kind: type, given: dict[str, Any]) -> dict[str, Any]:
    """*given*, which orjson has read, with the JSONFields of *kind* as they are kept."""
    for name in _NAMES.get(kind, ()):
        if name in given:
            given[name] = as_fragment(given[name])
    return given


#: Most of what there is, and nothing that has to be looked into.
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
    """*value* as JSON of some *bytes_max* bytes: what is more is {"cut": its beginning}.

    What JSON cannot hold becomes text, or with *whole* all of it does. Never raises.
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
    # A text of JSON grows to twice its size at most as a value of JSON. What is cut on its way
    # from a worker is not cut again by the service.
    return {"cut": storable_text(text[: bytes_max // 2 - 16].decode("utf-8", "ignore"))}


#: How to read them, whatever a class of their own has made of it.
_CONTAINERS: dict[type, Callable[[Any], Iterator[Any]]] = {
    each: each.__iter__ for each in (dict, list, tuple, set, frozenset)
}


def readable_json(value: Any) -> Any:
    """*value* for people, as what JSON holds: all else becomes text. Bounded. Never raises."""
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
            return "…"  # its own repr has no bounds
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
        with suppress(BaseException):  # then its own text has to do
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
    except BaseException:  # noqa: BLE001 -- of what is in it, some __repr__ may do anything
        return storable_text(readable_json(value))
