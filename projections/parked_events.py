"""Events that could not be applied, and so are left out of all other views."""

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
#: How many there are, and the first of them.
SELECT_PARKED = """
SELECT json_array((SELECT count(*) FROM parked), json_group_array(
  json_array(position, job_id, type, why)))
FROM (SELECT * FROM parked ORDER BY position LIMIT ?1)
"""


class ParkedEvent(NamedTuple):
    """An event that was left out: that of a job stops the job there."""

    position: int
    job_id: str
    type: str
    why: str


def apply(parked: Iterable[ParkedEvent]) -> Iterator[Statement]:
    if found := [tuple(each) for each in parked]:
        yield ADD_PARKED, rows(found)
