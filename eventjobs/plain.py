"""Values as they can be stored: plain text, and what JSON holds."""

import copyreg
import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel

from eventjobs.errors import NotJSON

TEXT_CHARS_MAX = 4_000
#: Of what is told with a line of a job's log, as JSON; more than that is cut.
FIELDS_BYTES_MAX = 8_192
#: Nesting of what is stored; the engines and what wraps it in an answer need some room above.
DEPTH_MAX = 200


def plain_text(value: object) -> str:
    """*value* as text that can be stored: no lone surrogates, not too long."""
    text = str(value)[:TEXT_CHARS_MAX]
    return text.encode("utf-8", "replace").decode()


def plain_json(value: Any) -> Any:
    """A copy of *value* as it will be read back. Raises NotJSON."""
    return None if value is None else orjson.loads(encoded(value))


def encoded(value: Any) -> bytes:
    """*value* as JSON; pydantic models and dataclasses become objects. Raises NotJSON."""
    try:
        text = orjson.dumps(value, default=_dumped)
        # Two counts in C spare most values the walk in Python.
        if b"null" in text or text.count(b"[") + text.count(b"{") > DEPTH_MAX:
            _refuse_unreal(value)
    except Exception as error:  # methods of the value run in here
        raise NotJSON(f"this cannot be kept as JSON: {plain_text(error)}") from error
    return text


def json_text(value: Any) -> orjson.Fragment | None:
    """*value* as a JSONField keeps it: JSON that orjson writes as it is. Raises NotJSON."""
    if value is None or value.__class__ is orjson.Fragment:
        return value
    return orjson.Fragment(encoded(value))


def _dumped(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not a type of JSON")


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
        holder.__dict__[self._name] = json_text(value)


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


def text_of(holder: Any, name: str) -> orjson.Fragment | None:
    """The JSON of *holder*'s field *name*, which orjson writes as it is; None for null."""
    found: orjson.Fragment | None = holder.__dict__.get(name)
    return found


def as_text(value: Any) -> orjson.Fragment | None:
    """What orjson has read, as a JSONField keeps it; None for null."""
    return None if value is None else orjson.Fragment(orjson.dumps(value))


def as_texts(kind: type, given: dict[str, Any]) -> dict[str, Any]:
    """*given*, which orjson has read, with the JSONFields of *kind* as they are kept."""
    for name in _NAMES.get(kind, ()):
        if name in given:
            given[name] = as_text(given[name])
    return given


def cut(fields: Any) -> Any:
    """What is told with a line of a log, if it is not too much; else the beginning of it."""
    if fields is None or len(encoded := orjson.dumps(fields)) <= FIELDS_BYTES_MAX:
        return fields
    return {"cut": plain_text(encoded.decode())}


#: Most of what there is, and nothing that has to be looked into.
_SCALARS = frozenset({str, int, bool, type(None)})


def _refuse_unreal(value: Any, depth: int = 0) -> None:
    if depth > DEPTH_MAX:
        raise TypeError(f"it is nested deeper than {DEPTH_MAX}")
    if value.__class__ in _SCALARS:
        return
    # orjson writes NaN and infinity as null: a result would silently lose a number.
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{value} is not a JSON number")
    if isinstance(value, dict):
        for each in value.values():
            _refuse_unreal(each, depth + 1)
    elif isinstance(value, list | tuple):
        for each in value:
            _refuse_unreal(each, depth + 1)
    elif isinstance(value, Enum):
        _refuse_unreal(value.value, depth + 1)
    elif isinstance(value, BaseModel):
        _refuse_unreal(value.model_dump(mode="json"), depth + 1)
    elif is_dataclass(value):
        for field in fields(value):
            _refuse_unreal(getattr(value, field.name), depth + 1)
