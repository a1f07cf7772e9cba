"""How events are stored: as a type, facts and a body. Older schema versions are upcast."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import fields
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin

import orjson

from eventjobs.domain.events import Event, JobSubmitted, Stored, Unreadable
from eventjobs.domain.json_fields import as_fragments
from eventjobs.domain.spec import JobSpec
from eventjobs.domain.timestamps import MAX_US
from eventjobs.errors import CorruptLog, NotJSON
from eventjobs.storable import trim

Upcaster = Callable[[dict[str, Any], dict[str, Any]], tuple[str, dict[str, Any], dict[str, Any]]]

#: From a stored type to its next schema version: (facts, body) -> (type, facts, body).
#: A class whose fields changed sets `SCHEMA = 2`; its events are stored as "Name/2".
UPCASTERS: dict[str, Upcaster] = {}


#: The largest magnitude of a number by its unit, and of any other whole number. Sums of such
#: numbers fit into 64 bits.
_BOUNDS: dict[str, float] = {"us": MAX_US, "s": 10**12, "priority": 10**9}
_BOUND = 2**53

#: Raises TypeError or ValueError for a value that does not fit.
Check = Callable[[Any], object]


class _Field(NamedTuple):
    """A field of an event class and the values it may have, from its annotation."""

    name: str
    optional: bool
    #: A tuple. An empty one is not stored; it is the class's default.
    many: bool
    #: None: any JSON fits.
    check: Check | None

    @classmethod
    def of(cls, name: str, hint: Any) -> "_Field":
        kinds = [each for each in get_args(hint) if each is not type(None)]
        union = isinstance(hint, UnionType)
        kind = kinds[0] if union else hint
        optional = kind is Any or (union and len(kinds) < len(get_args(hint)))
        return cls(name, optional, get_origin(kind) is tuple, _check_of(name, kind))


def _check_of(name: str, kind: Any) -> Check | None:
    if kind is Any:
        return None
    if kind is int or kind is float:
        unit = name.rpartition("_")[2]
        high = _BOUNDS.get(unit, _BOUND if kind is int else sys.float_info.max)
        return _check_number(name, (int, kind), 0 if unit == "us" else -high, high)
    if get_origin(kind) is tuple:
        return _check_items(name, get_args(kind)[0])
    return _check_instance(name, kind)


def _check_instance(name: str, kind: type[Any]) -> Check:
    def check(value: Any) -> None:
        if value.__class__ is not kind and not isinstance(value, kind):
            raise TypeError(f"{name} cannot be {value!r:.100}")

    return check


def _check_number(name: str, kinds: tuple[type, ...], low: float, high: float) -> Check:
    def check(value: Any) -> None:
        number = isinstance(value, kinds)
        if not number or not low <= value <= high:  # a NaN is in no range
            raise ValueError(f"{name} cannot be {value!r:.100}")

    return check


def _check_items(name: str, kind: Any) -> Check:
    one = _check_instance(name, kind) if kind is str else _check_record(kind)

    def check(values: Any) -> None:
        if values.__class__ not in (tuple, list):
            raise TypeError(f"{name} cannot be {values!r:.100}")
        for each in values:
            one(each)

    return check


def _check_record(kind: type[Any]) -> Check:
    """A check for a small dataclass, or JSON that makes one."""
    checked_fields = [_Field.of(each.name, each.type) for each in fields(kind)]

    def check(value: Any) -> None:
        record = kind(**value) if isinstance(value, dict) else value
        for each in checked_fields:
            if each.check is not None:
                each.check(getattr(record, each.name))

    return check


class _EventSchema:
    """How one event class is split into facts and body."""

    def __init__(self, event: type[Any]) -> None:
        schema = getattr(event, "SCHEMA", 1)
        self.type = event.__name__ if schema == 1 else f"{event.__name__}/{schema}"
        # A JobSubmitted is stored as the fields of its specification.
        submission = event is JobSubmitted
        holder = JobSpec if submission else event
        self.build: Callable[..., Event] = _build_submission if submission else event
        private: frozenset[str] = getattr(holder, "BODY", frozenset())
        ordered = [
            _Field.of(each.name, each.type)
            for each in sorted(fields(holder), key=lambda each: each.name)
        ]
        #: None is never stored, so a check refuses null.
        self.checks = {each.name: each.check for each in ordered}
        self.holder = holder
        self.facts = _FieldGroup(holder, [each for each in ordered if each.name not in private])
        self.body = _FieldGroup(holder, [each for each in ordered if each.name in private])


_NOTHING: tuple[()] = ()


class _FieldGroup:
    """The facts or the body of an event class, encoded as JSON with sorted keys."""

    def __init__(self, holder: type[Any], fields: Iterable[_Field]) -> None:
        fields = tuple(fields)
        self._checks = tuple((each.name, each.check) for each in fields)
        self._many = frozenset(each.name for each in fields if each.many)
        self._needed = frozenset(each.name for each in fields if not each.optional) - self._many
        self._has_slots = "__slots__" in vars(holder)

    def encode(self, holder: Any) -> bytes:
        """The fields as JSON, without those that are None or (), which are the defaults.

        Raises TypeError, ValueError for a value that *decode* would refuse.
        """
        present = {}
        # A class without slots may have JSONFields, whose text is in its __dict__.
        values = None if self._has_slots else holder.__dict__
        for name, check in self._checks:  # a comprehension takes 1.5 times as long
            value = getattr(holder, name) if values is None else values[name]
            # Not `!= ()`, which calls a method of each value. There is one empty tuple.
            if value is not None and (value is not _NOTHING or name not in self._many):
                if check is not None:
                    check(value)
                present[name] = value
        if not present.keys() >= self._needed:
            raise TypeError(f"{', '.join(sorted(self._needed - present.keys()))} cannot be None")
        return trim(orjson.dumps(present)) if present else b"{}"


def _build_submission(**spec: Any) -> JobSubmitted:
    return JobSubmitted(JobSpec(**spec))


_SCHEMAS: dict[type[Any], _EventSchema] = {each: _EventSchema(each) for each in Stored.__args__}
_BY_TYPE = {shape.type: shape for shape in _SCHEMAS.values()}


def encode(event: Event) -> tuple[str, bytes, bytes]:
    """The stored type, facts and body. Raises NotJSON for an event that *decode* would refuse."""
    shape = _SCHEMAS.get(event.__class__)
    if shape is None:
        raise NotJSON(f"{event!r:.100} is not an event that can be stored")
    holder = event.spec if isinstance(event, JobSubmitted) else event
    try:
        return shape.type, shape.facts.encode(holder), shape.body.encode(holder)
    except (TypeError, ValueError) as error:
        raise NotJSON(f"this {shape.type} cannot be stored: {error}") from error


def decode(
    type: str,
    facts: bytes,
    body: bytes | None,
    upcasters: dict[str, Upcaster] = UPCASTERS,
) -> Event:
    """The event stored under *type*, upcast to the current schema. Raises CorruptLog."""
    try:
        fact_fields = _parse_object(facts)
        body_fields = {} if body is None or body == b"{}" else _parse_object(body)
        while type in upcasters:
            type, fact_fields, body_fields = upcasters[type](fact_fields, body_fields)
        schema = _BY_TYPE.get(type)
        if schema is not None:
            checks = schema.checks
            for part in (fact_fields, body_fields):
                for name, value in part.items():
                    if (check := checks[name]) is not None:
                        check(value)
            if body_fields and not fact_fields.keys().isdisjoint(body_fields):
                raise ValueError("a field is in facts and body")
            return schema.build(**fact_fields, **as_fragments(schema.holder, body_fields))
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        why = f"it has no field {error}" if isinstance(error, KeyError) else str(error)
        raise CorruptLog(f"a stored {type} cannot be read: {why}") from error
    raise CorruptLog(f"no event type {type!r} is known; it may be from a newer eventjobs")


def _parse_object(stored: bytes) -> dict[str, Any]:
    """The JSON object in *stored*. It must be on one line: Recorded.data concatenates such text."""
    value: dict[str, Any] = orjson.loads(stored)
    if (
        stored[0] != 123
        or stored[-1] != 125
        or b"\n" in stored
        or b"\r" in stored
        or (not value and stored != b"{}")
    ):
        raise ValueError("it is not a JSON object on one line")
    return value


def decode_or_unreadable(type: str, facts: bytes, body: bytes | None) -> Event:
    """As *decode*, for readers of the whole log: returns Unreadable where *decode* raises."""
    try:
        return decode(type, facts, body)
    except CorruptLog as error:
        return Unreadable(error.message)
