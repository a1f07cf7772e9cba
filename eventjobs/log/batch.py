"""A batch of events as one SQL statement."""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from eventjobs.domain.recorded import Recorded
from eventjobs.errors import Conflict, LogError
from eventjobs.log.commitment import COMMITMENT

# A batch crosses to the connection's thread as one statement over one JSON array; see rows.py.
APPEND = """
INSERT INTO events
SELECT ?1 + key, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4,
  substr(?3, value ->> 5, value ->> 6), substr(?3, value ->> 7, value ->> 8),
  substr(?4, 16 * key + 1, 16), substr(?5, 32 * key + 1, 32)
FROM json_each(?2)
"""


@dataclass(slots=True, eq=False)
class PendingAppend:
    """Events to be written in one commit, and the future that their caller awaits."""

    events: list[Recorded]  # without their positions yet
    result: asyncio.Future[list[Recorded | Conflict]]

    @property
    def memory_size(self) -> int:
        return sum([event.memory_size for event in self.events])

    def refuse(self, error: LogError) -> None:
        if not self.result.done():  # its caller may have been cancelled
            self.result.set_exception(error)


class Batch:
    """Appends that are written together."""

    def __init__(self, appends: Sequence[PendingAppend]) -> None:
        self._appends = appends
        #: The events to write, in order.
        self.events = [event for append in appends for event in append.events]
        self._conflicts: dict[int, Conflict] = {}  # by id() of the event
        self._salts = b""

    @property
    def job_ids(self) -> set[str]:
        return {event.job_id for event in self.events}

    def remove_conflicts(self, versions: dict[str, int]) -> None:
        """Leave the events whose version is the next of their job. *versions* has the newest."""
        events = []
        for event in self.events:
            current = versions.get(event.job_id, 0)
            if event.version == current + 1:
                versions[event.job_id] = event.version
                events.append(event)
            else:
                message = f"job {event.job_id} is at version {current}, not {event.version - 1}"
                self._conflicts[id(event)] = Conflict(message)
        self.events = events

    def parameters(self, first: int) -> tuple[Any, ...]:
        """The parameters of APPEND, for positions from *first*. Draws the salts."""
        rows = []
        parts: list[bytes] = []
        commitments: list[bytes] = []
        start = 1
        self._salts = salts = os.urandom(16 * len(self.events))
        for number, event in enumerate(self.events):
            body = event.body or b""
            columns = (event.job_id, event.version, event.type, event.at_us, event.actor)
            middle = start + len(event.facts)
            end = middle + len(body)
            # SQLite would need as long to compute the offsets as to store the rest.
            rows.append((*columns, start, middle - start, middle, end - middle))
            parts += (event.facts, body)
            salt = salts[16 * number : 16 * number + 16]
            commitments.append(hashlib.sha256(COMMITMENT + salt + body).digest())
            start = end
        return first, orjson.dumps(rows).decode(), b"".join(parts), salts, b"".join(commitments)

    def salt_keys(self) -> str:
        """The parameter of FIND_BY_SALT."""
        keys = [
            (event.job_id, event.version, self._salts[16 * number : 16 * number + 16].hex().upper())
            for number, event in enumerate(self.events)
        ]
        return orjson.dumps(keys).decode()

    def answer(self) -> None:
        """Give each caller its events, which are written, and its conflicts."""
        conflicts = self._conflicts
        for append in self._appends:
            if append.result.done():
                continue
            if conflicts:
                append.result.set_result([conflicts.get(id(each), each) for each in append.events])
            else:
                append.result.set_result([*append.events])

    def refuse(self, error: LogError) -> None:
        """Nothing is written. An append of conflicts alone has these as its outcome."""
        for append in self._appends:
            outcomes = [self._conflicts.get(id(event)) for event in append.events]
            conflicts = [each for each in outcomes if each is not None]
            if len(conflicts) < len(outcomes):
                append.refuse(error)
            elif not append.result.done():
                append.result.set_result([*conflicts])
