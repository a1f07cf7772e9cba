"""How events are stored: as a type, facts and a body; older shapes are brought up to date."""

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

import orjson

from eventjobs.errors import CorruptLog
from eventjobs.events import Event, JobSpec, JobSubmitted
from eventjobs.plain import as_texts

Upcaster = Callable[[dict[str, Any], dict[str, Any]], tuple[str, dict[str, Any], dict[str, Any]]]

#: From a stored type of an older shape to the next one: (facts, body) -> (type, facts, body).
#: A class whose shape changed sets `SCHEMA = 2` and is stored as "Name/2" from then on.
UPCASTERS: dict[str, Upcaster] = {}


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
        names = sorted(each.name for each in fields(holder))
        self.holder = holder
        self.facts = _Half(holder, [name for name in names if name not in private])
        self.body = _Half(holder, [name for name in names if name in private])


_NOTHING: tuple[()] = ()


class _Half:
    """Some fields of an event class, as JSON with sorted keys."""

    def __init__(self, holder: type[Any], names: Iterable[str]) -> None:
        self._names = tuple(names)
        self._has_slots = "__slots__" in vars(holder)

    def dump(self, holder: Any) -> bytes:
        """What is None or () is left out: the class's own default brings it back."""
        kept = {}
        # A class without slots may have JSONFields, whose text is in its __dict__.
        known = None if self._has_slots else holder.__dict__
        for name in self._names:  # a comprehension would take half as long again
            value = getattr(holder, name) if known is None else known[name]
            # Not `!= ()`, which asks every value; there is one empty tuple.
            if value is not None and value is not _NOTHING:
                kept[name] = value
        return orjson.dumps(kept) if kept else b"{}"


def _submitted(**spec: Any) -> JobSubmitted:
    return JobSubmitted(JobSpec(**spec))


_SHAPES: dict[type[Any], _Shape] = {each: _Shape(each) for each in Event.__args__}
_BY_TYPE = {shape.type: shape for shape in _SHAPES.values()}


def encode(event: Event) -> tuple[str, bytes, bytes]:
    """The stored type, facts and body. Raises TypeError for what JSON cannot hold."""
    shape = _SHAPES[event.__class__]
    holder = event.spec if isinstance(event, JobSubmitted) else event
    return shape.type, shape.facts.dump(holder), shape.body.dump(holder)


def decode(
    type: str,
    facts: bytes,
    body: bytes | None,
    upcasters: dict[str, Upcaster] = UPCASTERS,
) -> Event:
    """The event stored under *type*, brought up to today's shape. Raises CorruptLog."""
    try:
        known = orjson.loads(facts)
        told = {} if body is None or body == b"{}" else orjson.loads(body)
        while type in upcasters:
            type, known, told = upcasters[type](known, told)
        shape = _BY_TYPE.get(type)
        if shape is not None:
            return shape.build(**known, **as_texts(shape.holder, told))
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptLog(f"a stored {type} cannot be read: {error}") from error
    raise CorruptLog(f"no event type {type!r} is known; it may be from a newer eventjobs")
