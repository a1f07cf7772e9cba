"""Events on their way into the log: many become one statement."""

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

# Whole batches cross to the connection's thread as one statement over one JSON array; see rows.py.
APPEND = """
INSERT INTO events
SELECT ?1 + key, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4,
  substr(?3, value ->> 5, value ->> 6), substr(?3, value ->> 7, value ->> 8),
  substr(?4, 16 * key + 1, 16), substr(?5, 32 * key + 1, 32)
FROM json_each(?2)
"""


@dataclass(slots=True, eq=False)
class Append:
    """One event on its way into the log, and who waits for it."""

    recorded: Recorded  # without its position yet
    body: bytes
    answer: asyncio.Future[Recorded]
    salt: bytes = b""

    def refuse(self, error: LogError) -> None:
        if not self.answer.done():  # its caller may have been cancelled
            self.answer.set_exception(error)


def refuse(batch: Iterable[Append], error: LogError) -> None:
    for each in batch:
        each.refuse(error)


def bound(batch: Sequence[Append], first: int) -> tuple[Any, ...]:
    """What APPEND is bound to, for positions from *first*. Draws the salts."""
    rows = []
    parts: list[bytes] = []
    commitments: list[bytes] = []
    at = 1
    salts = os.urandom(16 * len(batch))
    for number, each in enumerate(batch):
        each.salt = salts[16 * number : 16 * number + 16]
        told, body = each.recorded, each.body
        named = (told.job_id, told.version, told.type, told.at_us, told.actor)
        middle = at + len(told.facts)
        end = middle + len(body)
        # Offsets are worked out here: for SQLite that would cost as much as storing the rest.
        rows.append((*named, at, middle - at, middle, end - middle))
        parts += (told.facts, body)
        commitments.append(hashlib.sha256(COMMITMENT + each.salt + body).digest())
        at = end
    listed = orjson.dumps(rows).decode()
    return first, listed, b"".join(parts), salts, b"".join(commitments)
