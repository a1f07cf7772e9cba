"""Parked events: those that could not be applied and are left out of all other views."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from eventjobs.projections.change import Statement, rows

NAME = "parked"
VERSION = 1

SCHEMA = """
CREATE TABLE parked (
  position INTEGER PRIMARY KEY,
  job_id   TEXT NOT NULL,
  type     TEXT NOT NULL,
  why      TEXT NOT NULL
) STRICT;
"""

ADD_PARKED = """
INSERT INTO parked
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?1)
"""
#: The number of parked events, and the first of them.
SELECT_PARKED = """
SELECT json_array((SELECT count(*) FROM parked), json_group_array(
  json_array(position, job_id, type, why)))
FROM (SELECT * FROM parked ORDER BY position LIMIT ?1)
"""


class ParkedEvent(NamedTuple):
    """An event that was left out, and why. A job stays as it was before its parked event."""

    position: int
    job_id: str
    type: str
    why: str


def apply(parked: Iterable[ParkedEvent]) -> Iterator[Statement]:
    if values := [tuple(event) for event in parked]:
        yield ADD_PARKED, rows(values)
