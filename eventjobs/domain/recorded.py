"""An event with its position in the log."""

from dataclasses import dataclass, field
from typing import Any

import orjson

from eventjobs.domain.events import Event, Unreadable
from eventjobs.domain.timestamps import rfc3339

#: Bytes in memory of an event and the outcome of its fold, without texts: measured with
#: tracemalloc, 500 to 1,250 by type.
EVENT_BYTES = 1_250
#: Its texts are in memory as stored, as decoded, and as JSON.
EVENT_COPIES = 3


@dataclass(slots=True)
class Recorded:
    """An event with its *position* in the whole log and its *version* within its stream."""

    position: int
    job_id: str
    version: int
    at_us: int
    actor: str
    event: Event
    type: str
    facts: bytes
    body: bytes | None  # None once erased
    #: (job before, job after) of the first job.evolve with this event, until the second one: the
    #: write side computes it, and the views use it again. It holds the payload of the job.
    transition: tuple[Any, Any] | None = field(default=None, compare=False, repr=False)
    _json: bytes | None = field(default=None, compare=False, repr=False)

    @property
    def size(self) -> int:
        """Bytes of the facts and the body."""
        return len(self.facts) + (0 if self.body is None else len(self.body))

    @property
    def memory_size(self) -> int:
        """About how many bytes it takes in memory."""
        return EVENT_BYTES + EVENT_COPIES * self.size

    @property
    def data(self) -> bytes:
        """Facts and body as one JSON object. An erased body is `"erased": true`."""
        if isinstance(self.event, Unreadable):
            return _unreadable(self.event, self.facts, self.body)
        body = b'{"erased":true}' if self.body is None else self.body
        if body == b"{}":
            return self.facts
        return body if self.facts == b"{}" else self.facts[:-1] + b"," + body[1:]

    def json(self) -> bytes:
        """The event as JSON for pages, streams and exports. Encoded once."""
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
    """The stored facts and body, as text where they are not JSON, and why decoding failed."""
    fields: dict[str, Any] = {"unreadable": event.why}
    for name, stored in (("facts", facts), ("body", body)):
        if stored is not None:
            try:
                fields[name] = orjson.Fragment(orjson.dumps(orjson.loads(stored)))
            except (TypeError, ValueError):
                fields[name] = stored.decode("utf-8", "backslashreplace")
    return orjson.dumps(fields)
