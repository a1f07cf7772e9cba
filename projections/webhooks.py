"""Webhook subscriptions, and the newest event for which each has a delivery."""

from collections.abc import Iterator, Sequence

from eventjobs.domain.events import JobSubmitted, WebhookAdded, WebhookRemoved
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.projections.change import Statement, rows

NAME = "webhooks"
VERSION = 1

SCHEMA = """
CREATE TABLE webhooks (
  webhook_id TEXT    PRIMARY KEY,
  position   INTEGER NOT NULL,     -- of the event that added it: it is told of what comes after
  told       INTEGER NOT NULL,     -- the newest event that has a delivery
  added_us   INTEGER NOT NULL,
  actor      TEXT    NOT NULL,
  url        TEXT,                 -- NULL: erased
  events     TEXT    NOT NULL,     -- JSON lists
  types      TEXT    NOT NULL,
  owner      TEXT
) STRICT, WITHOUT ROWID;
"""

ADD_WEBHOOKS = """
INSERT OR REPLACE INTO webhooks
SELECT value ->> 0, value ->> 1, value ->> 1, value ->> 2, value ->> 3, value ->> 4,
  value -> 5, value -> 6, value ->> 7
FROM json_each(?1)
"""
ADVANCE_DELIVERED = """
UPDATE webhooks SET told = max(told, (
  SELECT max(value ->> 1) FROM json_each(?1) WHERE value ->> 0 = webhook_id))
WHERE webhook_id IN (SELECT value ->> 0 FROM json_each(?1))
"""
DELETE_WEBHOOKS = "DELETE FROM webhooks WHERE webhook_id IN (SELECT value FROM json_each(?1))"

SELECT_WEBHOOKS = """
SELECT json_group_array(json_array(
  webhook_id, position, told, added_us, actor, url, json(events), json(types), owner))
FROM (SELECT * FROM webhooks ORDER BY position)
"""


def apply(batch: Sequence[Recorded]) -> Iterator[Statement]:
    added = []
    delivered = []
    removed = []
    for each in batch:
        match each.event:
            case WebhookAdded() as event:
                columns = (each.job_id, each.position, each.at_us, each.actor)
                added.append((*columns, event.url, event.events, event.types, event.owner))
            case WebhookRemoved():
                removed.append(each.job_id)
            # A pattern reads all its fields before it compares one, and a payload is decoded.
            case JobSubmitted(spec=JobSpec(type="eventjobs.webhook") as spec):
                match spec.payload:
                    case {"webhook": str(webhook_id), "position": int(position)}:
                        delivered.append((webhook_id, position))
            case _:
                pass
    if added:
        yield ADD_WEBHOOKS, rows(added)
    if delivered:
        yield ADVANCE_DELIVERED, rows(delivered)
    if removed:
        yield DELETE_WEBHOOKS, rows(removed)
