"""How events are stored: as a type, facts and a body; older shapes are brought up to date."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import fields
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin

import orjson

from eventjobs.domain.events import Event, JobSubmitted, Stored, Unreadable
from eventjobs.domain.spec import JobSpec
from eventjobs.domain.timestamps import MAX_US
from eventjobs.errors import CorruptLog, NotJSON
from eventjobs.storable import as_texts

Upcaster = Callable[[dict[str, Any], dict[str, Any]], tuple[str, dict[str, Any], dict[str, Any]]]

#: From a stored type of an older shape to the next one: (facts, body) -> (type, facts, body).
#: A class whose shape changed sets `SCHEMA = 2` and is stored as "Name/2" from then on.
UPCASTERS: dict[str, Upcaster] = {}


#: The largest magnitude of a number by its unit, and of any other whole number. Sums of such
#: numbers fit into 64 bits.
_BOUNDS: dict[str, float] = {"us": MAX_US, "s": 10**12, "priority": 10**9}
_BOUND = 2**53

#: Raises TypeError or ValueError for a value that does not fit.
Check = Callable[[Any], object]


class _Field(NamedTuple):
    """What may be stored as one field of an event: by the annotation of its class."""

    name: str
    optional: bool
    #: An empty tuple is left out: the class's default brings it back.
    many: bool
    #: None: any JSON fits.
    check: Check | None

    @classmethod
    def of(cls, name: str, hint: Any) -> "_Field":
        kinds = [each for each in get_args(hint) if each is not type(None)]
        union = isinstance(hint, UnionType)
        kind = kinds[0] if union else hint
        optional = kind is Any or (union and len(kinds) < len(get_args(hint)))
        return cls(name, optional, get_origin(kind) is tuple, _check(name, kind))


def _check(name: str, kind: Any) -> Check | None:
    if kind is Any:
        return None
    if kind is int or kind is float:
        unit = name.rpartition("_")[2]
        high = _BOUNDS.get(unit, _BOUND if kind is int else sys.float_info.max)
        return _number(name, (int, kind), 0 if unit == "us" else -high, high)
    if get_origin(kind) is tuple:
        return _several(name, get_args(kind)[0])
    return _instance(name, kind)


def _instance(name: str, kind: type[Any]) -> Check:
    def check(value: Any) -> None:
        if value.__class__ is not kind and not isinstance(value, kind):
            raise TypeError(f"{name} cannot be {value!r:.100}")

    return check


def _number(name: str, kinds: tuple[type, ...], low: float, high: float) -> Check:
    def check(value: Any) -> None:
        number = isinstance(value, kinds)
        if not number or not low <= value <= high:  # a NaN is in no range
            raise ValueError(f"{name} cannot be {value!r:.100}")

    return check


def _several(name: str, kind: Any) -> Check:
    one = _instance(name, kind) if kind is str else _record(kind)

    def check(values: Any) -> None:
        if values.__class__ not in (tuple, list):
            raise TypeError(f"{name} cannot be {values!r:.100}")
        for each in values:
            one(each)

    return check


def _record(kind: type[Any]) -> Check:
    """Of a small dataclass, or JSON that makes one."""
    known = [_Field.of(each.name, each.type) for each in fields(kind)]

    def check(value: Any) -> None:
        made = kind(**value) if isinstance(value, dict) else value
        for each in known:
            if each.check is not None:
                each.check(getattr(made, each.name))

    return check


class _Shape:
    """How one event class is split into facts and body."""

    def __init__(self, event: type[Any]) -> None:
        schema = getattr(event, "SCHEMA", 1)
        self.type = event.__name__ if schema == 1 else f"{event.__name__}/{schema}"
        # A submission is stored as its specification; the wrapper has nothing of its own.
        submission = event is JobSubmitted
        holder = JobSpec if submission else event
        self.build: Callable[..., Event] = _submitted if submission else event
        private: frozenset[str] = getattr(holder, "BODY", frozenset())
        ordered = [
            _Field.of(each.name, each.type)
            for each in sorted(fields(holder), key=lambda each: each.name)
        ]
        #: What is None is not stored: a null was no number.
        self.checks = {each.name: each.check for each in ordered}
        self.holder = holder
        self.facts = _Half(holder, [each for each in ordered if each.name not in private])
        self.body = _Half(holder, [each for each in ordered if each.name in private])


_NOTHING: tuple[()] = ()


class _Half:
    """Some fields of an event class, as JSON with sorted keys."""

    def __init__(self, holder: type[Any], fields: Iterable[_Field]) -> None:
        fields = tuple(fields)
        self._checks = tuple((each.name, each.check) for each in fields)
        self._many = frozenset(each.name for each in fields if each.many)
        self._needed = frozenset(each.name for each in fields if not each.optional) - self._many
        self._has_slots = "__slots__" in vars(holder)

    def dump(self, holder: Any) -> bytes:
        """What is None or () is left out: the class's own default brings it back.

        Raises TypeError, ValueError for what could not be read again.
        """
        kept = {}
        # A class without slots may have JSONFields, whose text is in its __dict__.
        known = None if self._has_slots else holder.__dict__
        for name, check in self._checks:  # a comprehension would take half as long again
            value = getattr(holder, name) if known is None else known[name]
            # Not `!= ()`, which asks every value; there is one empty tuple.
            if value is not None and (value is not _NOTHING or name not in self._many):
                if check is not None:
                    check(value)
                kept[name] = value
        if not kept.keys() >= self._needed:
            raise TypeError(f"{', '.join(sorted(self._needed - kept.keys()))} cannot be None")
        return orjson.dumps(kept) if kept else b"{}"


def _submitted(**spec: Any) -> JobSubmitted:
    return JobSubmitted(JobSpec(**spec))


_SHAPES: dict[type[Any], _Shape] = {each: _Shape(each) for each in Stored.__args__}
_BY_TYPE = {shape.type: shape for shape in _SHAPES.values()}


def encode(event: Event) -> tuple[str, bytes, bytes]:
    """The stored type, facts and body. Raises NotJSON for what *decode* would not read again."""
    shape = _SHAPES.get(event.__class__)
    if shape is None:
        raise NotJSON(f"{event!r:.100} is no event that can be stored")
    holder = event.spec if isinstance(event, JobSubmitted) else event
    try:
        return shape.type, shape.facts.dump(holder), shape.body.dump(holder)
    except (TypeError, ValueError) as error:
        raise NotJSON(f"this {shape.type} cannot be stored: {error}") from error


def decode(
    type: str,
    facts: bytes,
    body: bytes | None,
    upcasters: dict[str, Upcaster] = UPCASTERS,
) -> Event:
    """The event stored under *type*, brought up to today's shape. Raises CorruptLog."""
    try:
        known = _object(facts)
        told = {} if body is None or body == b"{}" else _object(body)
        while type in upcasters:
            type, known, told = upcasters[type](known, told)
        shape = _BY_TYPE.get(type)
        if shape is not None:
            checks = shape.checks
            for half in (known, told):
                for name, value in half.items():
                    if (check := checks[name]) is not None:
                        check(value)
            if told and not known.keys().isdisjoint(told):
                raise ValueError("a field is in facts and body")
            return shape.build(**known, **as_texts(shape.holder, told))
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        why = f"it has no field {error}" if isinstance(error, KeyError) else str(error)
        raise CorruptLog(f"a stored {type} cannot be read: {why}") from error
    raise CorruptLog(f"no event type {type!r} is known; it may be from a newer eventjobs")


def _object(stored: bytes) -> dict[str, Any]:
    """One line of JSON that others can be put together with: see Recorded.data."""
    value: dict[str, Any] = orjson.loads(stored)
    if (
        stored[0] != 123
        or stored[-1] != 125
        or b"\n" in stored
        or b"\r" in stored
        or (not value and stored != b"{}")
    ):
        raise ValueError("it is not a JSON object as it is written here")
    return value


def read(type: str, facts: bytes, body: bytes | None) -> Event:
    """As *decode*, for readers of the whole log: what cannot be read stops none of them."""
    try:
        return decode(type, facts, body)
    except CorruptLog as error:
        return Unreadable(error.message)
