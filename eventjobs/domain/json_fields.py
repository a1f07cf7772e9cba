"""Dataclass fields that are stored as JSON text and decoded at each read.

A value of a user is encoded once, where it arrives. The log, the views and responses write the text
as it is, and no reader can change what another one gets.
"""

import copyreg
from collections.abc import Callable
from typing import Any, TypeVar

import orjson

from eventjobs.storable import json_fragment, trim


class JSONField:
    """A dataclass field that is stored as JSON text. Each read decodes a new copy, which the reader
    may change. Setting a value that JSON cannot hold raises NotJSON.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, holder: Any, owner: Any = None) -> Any:
        if holder is None:
            return self
        text = holder.__dict__.get(self._name)
        return None if text is None else orjson.loads(orjson.dumps(text))

    def __set__(self, holder: Any, value: Any) -> None:
        # Only eventjobs makes Fragments: json_fragment refuses those of users.
        text = value if type(value) is orjson.Fragment else json_fragment(value)
        holder.__dict__[self._name] = text


# Needed to pickle, and to copy deeply, a dataclass with a JSONField.
copyreg.pickle(orjson.Fragment, lambda text: (orjson.Fragment, (trim(orjson.dumps(text)),)))

Class = TypeVar("Class", bound=type)
#: The JSONFields of each class that has some.
_NAMES: dict[type, tuple[str, ...]] = {}


def json_fields(*names: str) -> Callable[[Class], Class]:
    """A decorator that makes the fields *names* of a dataclass JSONFields.

    The class must not have slots: orjson then reads fields through descriptors without holding a
    reference to the value, and the process crashes.
    """

    def decorate(kind: Class) -> Class:
        assert "__slots__" not in vars(kind), kind
        for name in names:
            setattr(kind, name, JSONField(name))
        _NAMES[kind] = names
        return kind

    return decorate


def fragment_of(holder: Any, name: str) -> orjson.Fragment | None:
    """The JSON text of *holder*'s JSONField *name*, not decoded; None for null."""
    text: orjson.Fragment | None = holder.__dict__.get(name)
    return text


def as_fragment(value: Any) -> orjson.Fragment | None:
    """*value*, which orjson has decoded, as JSON text again; None for null."""
    return None if value is None else orjson.Fragment(trim(orjson.dumps(value)))


def as_fragments(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """*values*, which orjson has decoded, with those of *kind*'s JSONFields as JSON text again."""
    for name in _NAMES.get(kind, ()):
        if name in values:
            values[name] = as_fragment(values[name])
    return values
