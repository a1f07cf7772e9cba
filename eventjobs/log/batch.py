"""A batch of events as one SQL statement."""

import asyncio
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from eventjobs.domain.recorded import Recorded
from eventjobs.errors import LogError
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
    """An event to be written, and the future that its caller awaits."""

    recorded: Recorded  # without its position yet
    body: bytes
    result: asyncio.Future[Recorded]
    salt: bytes = b""

    def refuse(self, error: LogError) -> None:
        if not self.result.done():  # its caller may have been cancelled
            self.result.set_exception(error)


def refuse_all(batch: Iterable[PendingAppend], error: LogError) -> None:
    for append in batch:
        append.refuse(error)


def append_parameters(batch: Sequence[PendingAppend], first: int) -> tuple[Any, ...]:
    """The parameters of APPEND, for positions from *first*. Draws the salts."""
    rows = []
    parts: list[bytes] = []
    commitments: list[bytes] = []
    start = 1
    salts = os.urandom(16 * len(batch))
    for number, append in enumerate(batch):
        append.salt = salts[16 * number : 16 * number + 16]
        event, body = append.recorded, append.body
        columns = (event.job_id, event.version, event.type, event.at_us, event.actor)
        middle = start + len(event.facts)
        end = middle + len(body)
        # SQLite would need as long to compute the offsets as to store the rest.
        rows.append((*columns, start, middle - start, middle, end - middle))
        parts += (event.facts, body)
        commitments.append(hashlib.sha256(COMMITMENT + append.salt + body).digest())
        start = end
    return first, orjson.dumps(rows).decode(), b"".join(parts), salts, b"".join(commitments)
