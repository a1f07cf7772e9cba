"""The job types, queues and schedules that are paused: since when, by whom, and why."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from eventjobs.domain.events import Paused, Resumed
from eventjobs.domain.recorded import Recorded
from eventjobs.projections.change import Statement, rows

NAME = "pauses"
VERSION = 1

SCHEMA = """
CREATE TABLE pauses (
  kind     TEXT    NOT NULL,  -- type, queue or schedule
  name     TEXT    NOT NULL,
  since_us INTEGER NOT NULL,
  actor    TEXT    NOT NULL,
  reason   TEXT,
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
"""

PUT_PAUSES = """
INSERT OR REPLACE INTO pauses
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?1)
"""
DELETE_PAUSES = """
DELETE FROM pauses
WHERE (kind, name) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))
"""
SELECT_PAUSES = (
    "SELECT json_group_array(json_array(kind, name, since_us, actor, reason)) FROM pauses"
)


class Pause(NamedTuple):
    kind: str
    name: str
    since_us: int
    actor: str
    reason: str | None


def pauses_of(batch: Sequence[Recorded]) -> dict[tuple[str, str], Pause | None]:
    """By kind and name: what *batch* has paused, or None for what it has resumed."""
    newest: dict[tuple[str, str], Pause | None] = {}
    for each in batch:
        match each.event:
            case Paused(kind=kind, name=name, reason=reason):
                newest[kind, name] = Pause(kind, name, each.at_us, each.actor, reason)
            case Resumed(kind=kind, name=name):
                newest[kind, name] = None
            case _:
                pass
    return newest


def apply(batch: Sequence[Recorded]) -> Iterator[Statement]:
    if newest := pauses_of(batch):
        yield DELETE_PAUSES, rows([key for key, pause in newest.items() if pause is None])
        yield PUT_PAUSES, rows([tuple(pause) for pause in newest.values() if pause is not None])
