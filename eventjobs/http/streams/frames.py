"""Server-sent events as bytes."""

import orjson

from eventjobs.domain.events import AttemptFailed, JobCancelled, JobCompleted, JobExpired
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.timestamps import rfc3339
from eventjobs.http.streams.snapshots import Snapshot

#: Written to a client at once; only a single frame may be longer.
WRITE_BYTES = 131_072


def fact_frame(recorded: Recorded) -> bytes:
    return b"id: %d\nevent: event\ndata: %s\n\n" % (recorded.position, recorded.json())


def snapshot_frame(snapshot: Snapshot, position: int) -> bytes:
    """The job as it is; of one that is hidden, that it has gone."""
    job = snapshot.job
    if job.expired_us is None:
        return b"id: %d\nevent: job\ndata: %s\n\n" % (position, snapshot.body)
    gone = {"job_id": job.job_id, "expired_at": rfc3339(job.expired_us), "position": job.position}
    return b"id: %d\nevent: gone\ndata: %s\n\n" % (position, orjson.dumps(gone))


def fitting(events: list[Recorded]) -> list[Recorded]:
    """As many as may be written at once; at least one."""
    size = 0
    for number, each in enumerate(events):
        size += len(each.json())
        if size > WRITE_BYTES and number:
            return events[:number]
    return events


def is_end(recorded: Recorded) -> bool:
    """Whether the job has ended by now, if nothing came after this event."""
    event = recorded.event
    return isinstance(event, JobCompleted | JobCancelled | JobExpired) or (
        isinstance(event, AttemptFailed) and event.retry_at_us is None
    )
