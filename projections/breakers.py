"""The newest state of each circuit breaker, and the job whose call changed it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from eventjobs.domain.events import BreakerChanged
from eventjobs.domain.recorded import Recorded
from eventjobs.projections.change import Statement, rows

NAME = "breakers"
VERSION = 1

SCHEMA = """
CREATE TABLE breakers (
  name       TEXT PRIMARY KEY,
  state      TEXT NOT NULL,
  until_us   INTEGER,           -- when an open one may be tried
  failures   INTEGER NOT NULL,  -- that opened it
  changed_us INTEGER NOT NULL,
  job_id     TEXT NOT NULL      -- whose call changed it
) STRICT, WITHOUT ROWID;
"""

PUT_BREAKERS = """
INSERT OR REPLACE INTO breakers
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
FROM json_each(?1)
"""
SELECT_BREAKERS = """
SELECT json_group_array(json_array(name, state, until_us, failures, changed_us, job_id))
FROM (SELECT * FROM breakers ORDER BY name)
"""


class LastBreakerChange(NamedTuple):
    """The newest change of one breaker. *changed_us* and *job_id* are None before the first."""

    name: str
    state: str
    until_us: int | None
    failures: int
    changed_us: int | None
    job_id: str | None


def apply(batch: Sequence[Recorded]) -> Iterator[Statement]:
    newest = {}
    for each in batch:
        if isinstance(event := each.event, BreakerChanged):
            newest[event.name] = LastBreakerChange(
                event.name, event.state, event.until_us, event.failures, each.at_us, each.job_id
            )
    if newest:
        yield PUT_BREAKERS, rows([tuple(change) for change in newest.values()])
