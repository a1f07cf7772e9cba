"""The API keys that are not revoked, for lists. Keys are verified by the log, never by this."""

from collections.abc import Iterator, Sequence

from eventjobs.domain.events import KeyCreated, KeyRevoked
from eventjobs.domain.recorded import Recorded
from eventjobs.projections.change import Statement, rows

NAME = "api_keys"
VERSION = 1

SCHEMA = """
CREATE TABLE api_keys (
  stream_id  TEXT    PRIMARY KEY,
  position   INTEGER NOT NULL,
  created_us INTEGER NOT NULL,
  actor      TEXT    NOT NULL,
  name       TEXT    NOT NULL,
  owner      TEXT    NOT NULL,
  scopes     TEXT    NOT NULL,     -- a JSON list
  expires_us INTEGER               -- NULL: never
) STRICT, WITHOUT ROWID;
"""

ADD_KEYS = """
INSERT OR REPLACE INTO api_keys
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value -> 6,
  value ->> 7
FROM json_each(?1)
"""
DELETE_KEYS = "DELETE FROM api_keys WHERE stream_id IN (SELECT value FROM json_each(?1))"

SELECT_KEYS = """
SELECT json_group_array(json_array(
  stream_id, created_us, actor, name, owner, json(scopes), expires_us))
FROM (SELECT * FROM api_keys ORDER BY position)
"""


def apply(batch: Sequence[Recorded]) -> Iterator[Statement]:
    created = []
    revoked = []
    for each in batch:
        match each.event:
            case KeyCreated() as event:
                columns = (each.job_id, each.position, each.at_us, each.actor)
                created.append((*columns, event.name, event.owner, event.scopes, event.expires_us))
            case KeyRevoked():
                revoked.append(each.job_id)
            case _:
                pass
    if created:
        yield ADD_KEYS, rows(created)
    if revoked:
        yield DELETE_KEYS, rows(revoked)
