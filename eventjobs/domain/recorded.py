"""An event with its place in the log."""

from dataclasses import dataclass, field
from typing import Any

import orjson

from eventjobs.domain.events import Event, Unreadable
from eventjobs.domain.timestamps import rfc3339


@dataclass(slots=True)
class Recorded:
    """An event with its place: *position* in the whole log, *version* within its job."""

    position: int
    job_id: str
    version: int
    at_us: int
    actor: str
    event: Event
    type: str
    facts: bytes
    body: bytes | None  # None once erased
    #: A job that this event changed, and what it was after that. The write side and the views come
    #: to the same, one after the other: see job.evolve.
    evolved: tuple[Any, Any] | None = field(default=None, compare=False, repr=False)
    _json: bytes | None = field(default=None, compare=False, repr=False)

    @property
    def data(self) -> bytes:
        """Facts and body as one JSON object; an erased body says so."""
        if isinstance(self.event, Unreadable):
            return _unreadable(self.event, self.facts, self.body)
        body = b'{"erased":true}' if self.body is None else self.body
        if body == b"{}":
            return self.facts
        return body if self.facts == b"{}" else self.facts[:-1] + b"," + body[1:]

    def json(self) -> bytes:
        """The event as everyone outside reads it: pages, streams, exports. Encoded once."""
        if self._json is None:
            self._json = (
                b'{"position":%d,"job_id":%s,"version":%d,"type":%s,"at":"%s","actor":%s,"data":%s}'
                % (
                    self.position,
                    orjson.dumps(self.job_id),
                    self.version,
                    orjson.dumps(self.type),
                    rfc3339(self.at_us).encode(),
                    orjson.dumps(self.actor),
                    self.data,
                )
            )
        return self._json


def _unreadable(event: Unreadable, facts: bytes, body: bytes | None) -> bytes:
    """What is stored, as far as it is JSON, and why it cannot be read."""
    shown: dict[str, Any] = {"unreadable": event.why}
    for name, stored in (("facts", facts), ("body", body)):
        if stored is not None:
            try:
                shown[name] = orjson.Fragment(orjson.dumps(orjson.loads(stored)))
            except (TypeError, ValueError):
                shown[name] = stored.decode("utf-8", "backslashreplace")
    return orjson.dumps(shown)
